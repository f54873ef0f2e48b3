"""ROS 1 as Debian has it: its own master, its own classes and its own `rostopic` at the other end, on loopback."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.structs import standard_definitions
from embodied.real_robot.messages.values import duration_message, header_message, message_type, nanoseconds
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.ros1_types import full_text, md5sum, ros1_name
from embodied.real_robot.transports.transport import COMMAND, LATCHED, QoS, TransportError

PYTHON = "/usr/bin/python3"
SAME = QoS(reliable=True, depth=100)
IMAGE, JOINTS, STRING = (
    message_type(name) for name in ("sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "std_msgs/msg/String")
)
TRAJECTORY, POINT = (
    message_type(f"trajectory_msgs/msg/{name}") for name in ("JointTrajectory", "JointTrajectoryPoint")
)
# From the message classes of ROS Noetic.
SUMS = {
    "std_msgs/msg/Empty": "d41d8cd98f00b204e9800998ecf8427e",
    "std_msgs/msg/String": "992ce8a1687cec8c8bd883ec73ca41d1",
    "std_msgs/msg/Header": "2176decaecbce78abc3b96ef049fabed",
    "std_msgs/msg/Float64MultiArray": "4b7d974086d4060e7db4613a7e6c3ba4",
    "sensor_msgs/msg/Image": "060021388200f6f0f447d0fcd9c64743",
    "sensor_msgs/msg/CompressedImage": "8f7a12909da2c9d3332d540a0977563f",
    "sensor_msgs/msg/JointState": "3066dcd76a6cfaef579bd0f34173e9fd",
    "geometry_msgs/msg/Twist": "9f195f881246fdfa2798d1d3eebca84a",
    "trajectory_msgs/msg/JointTrajectory": "65b4f94a94d1ed67169da35a02f33d3f",
}


def installed():
    parts = "rospy, rosgraph, sensor_msgs.msg, trajectory_msgs.msg, std_msgs.msg"
    return (
        Path(PYTHON).is_file()
        and shutil.which("rosmaster") is not None
        and subprocess.run([PYTHON, "-I", "-c", f"import {parts}"], capture_output=True).returncode == 0
    )


ros1 = pytest.mark.skipif(not installed(), reason="Debian's python3-rospy, python3-rosmaster and messages are missing")


def environment(master):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"ROS_MASTER_URI": master, "ROS_IP": "127.0.0.1", "ROS_PYTHON_LOG_CONFIG_FILE": ""}


@pytest.fixture(scope="module")
def master():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        ["rosmaster", "--core", "-p", str(port)], env=environment(uri), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port), 60)
        yield uri
    finally:
        process.terminate()
        process.wait(20)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def peer(master):
    """A node with ROS 1's own classes; gives their checksums."""
    names = [ros1_name(name) for name in standard_definitions()]
    process = subprocess.Popen(
        [PYTHON, Path(__file__).with_name("ros1_peer.py"), *names], env=environment(master), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        word, _, sums = process.stdout.readline().partition(" ")
        assert word == "ready"
        yield json.loads(sums)
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def exchange(transport, topic, kind, messages):
    """Each message to the peer and back."""
    back, publisher = [], transport.advertise(topic, kind, SAME)
    heard = transport.subscribe(f"{topic}/back", kind, SAME, lambda packet, stamp: back.append((packet, stamp)))
    until(lambda: publisher.matched() and heard.matched())
    before = transport.clock.now()
    for message in messages:
        publisher.publish(encode(message))
    until(lambda: len(back) == len(messages))
    assert all(before < stamp <= transport.clock.now() for _, stamp in back)
    return [decode(packet, message_type(kind)) for packet, _ in back]


@pytest.mark.parametrize("name", SUMS)
def test_checksums_are_those_of_ros_1(name):
    assert md5sum(standard_definitions()[name]) == SUMS[name]


def test_texts_name_what_is_inside():
    text = full_text(standard_definitions()["sensor_msgs/msg/JointState"])
    assert text.startswith("std_msgs/Header header\nstring[] name\nfloat64[] position\n")
    assert text.endswith(f"{'=' * 80}\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"master": "robot:11311"}, "master must look like"),
        ({"node": "a/b"}, "node must be"),
        ({"host": "robot"}, "host must be an address"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        open_transport("ros1", **options)


def test_a_python_without_rospy_and_one_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="name the Python that has rospy"):
        open_transport("ros1", python=str(tmp_path / "python"))
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {PYTHON} -S "$@"\n')
    bare.chmod(0o700)
    with pytest.raises(UserError, match="rospy is not installed: apt-get install"):
        open_transport("ros1", python=str(bare))


@ros1
def test_without_a_master_it_says_so():
    with pytest.raises(UserError, match=r"no ROS 1 master at http://127.0.0.1:9: start roscore"):
        open_transport("ros1", master="http://127.0.0.1:9")


@ros1
def test_messages_pass_through_ros_1s_own_classes_both_ways(master, peer):
    rng = np.random.default_rng(0)
    header = header_message(1_700_000_000_123_456_789, "base")
    image = IMAGE(
        header=header, height=48, width=64, encoding="rgb8", step=192, data=rng.integers(0, 256, 48 * 192, np.uint8)
    )
    joints = [
        JOINTS(header=header, name=["a", "ü"], position=rng.standard_normal(2), velocity=[float(number), -1.5])
        for number in range(20)
    ]
    point = POINT(positions=[0.1, -0.2], velocities=[0.0, 1.0], time_from_start=duration_message(1.25))
    command = TRAJECTORY(header=header, joint_names=["a", "b"], points=[point, point])
    with closing(open_transport("ros1", master=master)) as transport:
        assert exchange(transport, "/image", "sensor_msgs/msg/Image", [image]) == [image]
        assert exchange(transport, "/joints", "sensor_msgs/msg/JointState", joints) == joints
        (found,) = exchange(transport, "/command", "trajectory_msgs/msg/JointTrajectory", [command])
        assert found == command and nanoseconds(found.points[1].time_from_start) == 1_250_000_000


@ros1
def test_checksums_are_those_of_the_classes_that_are_installed(peer):
    known = {name: total for name, total in peer.items() if total is not None}
    own = {ros1_name(name): md5sum(standard_definitions()[name]) for name in standard_definitions()}
    differ = {name for name, total in known.items() if own[name] != total}
    assert len(known) >= 50 and differ <= CHANGED, differ - CHANGED


# Where ROS 2's definitions say something else.
CHANGED = {"sensor_msgs/CameraInfo"}


@ros1
def test_latched_topics_reach_those_who_come_late(master, peer):
    heard = []
    with closing(open_transport("ros1", master=master)) as transport:
        transport.subscribe("/latched", "std_msgs/msg/String", LATCHED, lambda packet, stamp: heard.append(packet))
        until(lambda: heard)
        assert decode(heard[0], STRING).data == "here before you"


@ros1
def test_rostopic_hears_what_is_sent_and_the_other_way(master):
    if shutil.which("rostopic") is None:
        pytest.skip("Debian's python3-rostopic is missing")
    heard = threading.Event()
    with closing(open_transport("ros1", master=master)) as transport:
        transport.subscribe("/to_us", "std_msgs/msg/String", COMMAND, lambda packet, stamp: heard.set())
        publisher = transport.advertise("/from_us", "sensor_msgs/msg/JointState", COMMAND)
        echo = subprocess.Popen(
            ["rostopic", "echo", "-n", "1", "/from_us"], env=environment(master), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        until(lambda: publisher.matched() == 1, 60)
        publisher.publish(encode(JOINTS(name=["elbow"], position=[0.75])))
        said = echo.communicate(timeout=60)[0]
        assert "name: \n  - elbow" in said and "position: [0.75]" in said
        command = ["rostopic", "pub", "-1", "/to_us", "std_msgs/String", "data: hello"]
        subprocess.run(command, env=environment(master), check=True, capture_output=True, timeout=60)
        assert heard.wait(10)


@ros1
def test_a_bridge_that_dies_is_an_error_when_sending(master, caplog):
    with closing(open_transport("ros1", master=master)) as transport:
        publisher = transport.advertise("/x", "std_msgs/msg/String", COMMAND)
        transport._process.kill()
        until(lambda: "the bridge to ROS 1 has ended" in caplog.text)
        with pytest.raises(TransportError, match="the bridge to ROS 1 has ended"):
            for _ in range(3):
                publisher.publish(encode(STRING(data="x")))
        with pytest.raises(TransportError, match="it is no"):
            publisher.publish(encode(JOINTS(name=["elbow"])))
    with pytest.raises(TransportError, match="is closed"):
        publisher.publish(encode(STRING(data="x")))
