"""Over DDS with other implementations and their own types: Debian's Cyclone DDS 0.10 in C and Fast DDS 2.9 in C++.

apt-get install gcc g++ cyclonedds-dev cyclonedds-tools libfastrtps-dev. Cyclone with type information is how programs
of robot vendors are built: they crashed when they met endpoints of the wheel's own Python API. Without it is how ROS
2's rmw_cyclonedds is.
"""

import os
import shutil
import subprocess
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import duration_message, header_message, message_type
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import QoS

pytest.importorskip("cyclonedds")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("robots"),
]
HERE = Path(__file__).parent
SAME = QoS(reliable=True, depth=100)
TYPES = {
    "/image": "sensor_msgs/msg/Image",
    "/joints": "sensor_msgs/msg/JointState",
    "/command": "trajectory_msgs/msg/JointTrajectory",
}
LOOPBACK = """<CycloneDDS xmlns="https://cdds.io/config"><Domain Id="any"><General><Interfaces>
<NetworkInterface name="lo" multicast="true"/></Interfaces></General><Discovery>
<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>100</MaxAutoParticipantIndex></Discovery>
</Domain></CycloneDDS>"""


def needs(reason, *tools, header):
    there = Path("/usr/include", header).is_file() and all(map(shutil.which, tools))
    return pytest.mark.skipif(not there, reason=f"Debian's {reason} are missing")


cyclone = needs("gcc, cyclonedds-dev and cyclonedds-tools", "gcc", "idlc", header="dds/dds.h")
fast = needs("g++ and libfastrtps-dev", "g++", header="fastdds/dds/topic/TopicDataType.hpp")


def build(*command):
    subprocess.run(command, check=True, capture_output=True)


def cyclone_peer(folder, *options):
    build("idlc", *options, "-o", folder, HERE / "cyclone_types.idl")
    sources = [HERE / "cyclone_peer.c", folder / "cyclone_types.c"]
    build("gcc", "-O1", "-I", folder, *sources, "-lddsc", "-o", folder / "peer")
    return folder / "peer"


def fast_peer(folder):
    build("g++", "-O0", HERE / "fastdds_peer.cpp", "-lfastrtps", "-lfastcdr", "-o", folder / "peer")
    return folder / "peer"


def messages():
    rng = np.random.default_rng(0)
    header = header_message(1_700_000_000_123_456_789, "base")
    image, joints, command = (message_type(kind) for kind in TYPES.values())
    point = message_type("trajectory_msgs/msg/JointTrajectoryPoint")
    points = [
        point(positions=[0.1, -0.2], velocities=[0.0, n], time_from_start=duration_message(n)) for n in (1.5, 2.0)
    ]
    noise = rng.integers(0, 256, 224 * 672, np.uint8)
    return {
        "/image": [image(header=header, height=224, width=224, encoding="rgb8", step=672, data=noise)] * 3,
        "/joints": [
            joints(header=header, name=["a", "longer"], position=rng.standard_normal(2), effort=[float(n)])
            for n in range(20)
        ],
        "/command": [command(header=header, joint_names=["a", "b"], points=points)],
    }


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def exchange(program, domain, topics):
    """Messages to the peer and back; what it says at its end."""
    peer = subprocess.Popen(
        [program, str(domain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "CYCLONEDDS_URI": LOOPBACK},
    )  # fmt: skip
    try:
        assert peer.stdout.readline() == "ready\n"
        with closing(open_transport("dds", domain=domain)) as transport:
            pass_on(transport, topics)
    finally:
        peer.stdin.close()
        code, said = peer.wait(20), peer.stdout.read()
        peer.stdout.close()
    assert code == 0
    return int(said)


def warm_up(publisher, packet, back):
    """Until the first comes back: what Fast DDS sends before its first heartbeat, each 3 s, a volatile reader loses."""
    published = 0
    while not back:
        assert published < 90
        publisher.publish(packet)
        published += 1
        time.sleep(0.5)
    before = -1
    while before != len(back):  # those that are still under way
        before = len(back)
        time.sleep(1.0)
    back.clear()


def pass_on(transport, topics):
    back = {topic: [] for topic in topics}

    def keep(topic, packet, stamp):
        back[topic].append(bytes(packet))

    publishers = {topic: transport.advertise(topic, TYPES[topic], SAME) for topic in topics}
    readers = [transport.subscribe(f"{topic}/back", TYPES[topic], SAME, partial(keep, topic)) for topic in topics]
    until(lambda: all(end.matched() for end in (*publishers.values(), *readers)))
    sent = messages()
    for topic in topics:
        warm_up(publishers[topic], encode(sent[topic][0]), back[topic])
        for message in sent[topic]:
            publishers[topic].publish(encode(message))
        until(lambda topic=topic: len(back[topic]) == len(sent[topic]))
        assert [decode(packet, message_type(TYPES[topic])) for packet in back[topic]] == sent[topic]


@cyclone
@pytest.mark.parametrize(
    ("domain", "options"), [(181, ["-t"]), (182, [])], ids=["as rmw_cyclonedds", "type information"]
)
def test_messages_pass_through_cyclone_in_c_both_ways(tmp_path, domain, options):
    assert exchange(cyclone_peer(tmp_path, *options), domain, list(TYPES)) >= 24


@fast
def test_messages_pass_through_fast_dds_both_ways(tmp_path):
    assert exchange(fast_peer(tmp_path), 183, ["/image", "/joints"]) >= 23
