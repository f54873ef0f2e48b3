"""Over the wire, DDS and Zenoh, with a ROS 2 implementation that shares no code with ours: dora-rs."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.structs import standard_definitions
from embodied.real_robot.messages.values import duration_message, header_message, message_type, nanoseconds
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("robots"),
    pytest.mark.skipif(importlib.util.find_spec("dora") is None, reason="dora-rs is not installed"),
]
IMAGE, JOINTS = message_type("sensor_msgs/msg/Image"), message_type("sensor_msgs/msg/JointState")
TRAJECTORY, POINT = (
    message_type(f"trajectory_msgs/msg/{name}") for name in ("JointTrajectory", "JointTrajectoryPoint")
)
ARRAY, FRAME = message_type("std_msgs/msg/Float64MultiArray"), message_type("sensor_msgs/msg/CompressedImage")
SECONDS = 9


@pytest.fixture(scope="module")
def ros_path(tmp_path_factory):
    """Our definitions as ROS installs them."""
    root = tmp_path_factory.mktemp("ros")
    index = root / "share/ament_index/resource_index/rosidl_interfaces"
    index.mkdir(parents=True)
    for name in standard_definitions():
        package, _, message = name.split("/")
        folder = root / "share" / package / "msg"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{message}.msg").write_text(standard_definitions()[name].definition.text)
        (root / "share" / package / "package.xml").write_text(f"<package><name>{package}</name></package>")
        (index / package).touch()
    return root


class Peer:
    def __init__(self, **settings):
        self.received, self.lines = {}, []
        arguments = json.dumps({"duration_s": SECONDS, "zenoh_config": None, **settings})
        script = Path(__file__).with_name("dora_peer.py")
        self.process = subprocess.Popen(
            [sys.executable, script, arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("{"):
                found = json.loads(line)
                self.received.setdefault(found["topic"], []).append(found["message"])

    def wait(self):
        self.process.wait(timeout=60)
        self.thread.join()
        self.process.stdout.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


def exchange(transport, peer):
    """Both directions until the peer ends; returns images, joint states and their ages in ms."""
    images, joints, ages = [], [], []

    def receive(kind, into):
        def take(packet, stamp):
            message = decode(packet, kind)
            ages.append((stamp - nanoseconds(message.header.stamp)) / 1e6)
            into.append(message)

        return take

    transport.subscribe("/cam0/image_raw", IMAGE.struct.name, SENSOR, receive(IMAGE, images))
    transport.subscribe("/joint_states", JOINTS.struct.name, COMMAND, receive(JOINTS, joints))
    commands = transport.advertise("/command", TRAJECTORY.struct.name, COMMAND)
    forward = transport.advertise("/forward", ARRAY.struct.name, COMMAND)
    frames = transport.advertise("/frame", FRAME.struct.name, COMMAND)
    for number in range(10_000):
        if peer.process.poll() is not None:
            break
        points = [POINT(positions=[0.5 * number, -1.0], velocities=[0.0, 1.0], time_from_start=duration_message(0.05))]
        commands.publish(
            encode(TRAJECTORY(header=header_message(7, "base"), joint_names=["a", "bb"], points=points * 2))
        )
        forward.publish(encode(ARRAY(data=np.arange(7) * 0.25 + number)))
        frames.publish(encode(FRAME(format="jpeg", data=np.arange(1001) % 256)))
        time.sleep(0.05)
    peer.wait()
    return images, joints, ages


def check(images, joints, ages, received):
    assert len(images) > 30 and len(joints) > 30
    for image in images:
        start = int(image.data[0])
        assert (image.height, image.width, image.encoding, image.step) == (224, 224, "rgb8", 672)
        assert np.array_equal(image.data, (np.arange(224 * 224 * 3) + start) % 251)
    assert len({int(image.data[0]) for image in images}) > 20
    for state in joints:
        assert state.name == [f"joint_{place}" for place in range(7)]
        assert np.allclose(state.position - state.position[0], np.arange(7) * 0.1)
        assert len(state.velocity) == 7 and len(state.effort) == 0
    assert min(len(received[topic]) for topic in ("/command", "/forward", "/frame")) > 10
    for command in received["/command"]:
        assert command["header"] == {"stamp": {"sec": 0, "nanosec": 7}, "frame_id": "base"}
        assert command["joint_names"] == ["a", "bb"] and len(command["points"]) == 2
        point = command["points"][1]
        assert point["positions"][1] == -1.0 and point["positions"][0] % 0.5 == 0
        assert point["velocities"] == [0.0, 1.0] and point["accelerations"] == []
        assert point["time_from_start"] == {"sec": 0, "nanosec": 50_000_000}
    for array in received["/forward"]:
        assert np.allclose(np.diff(array["data"]), 0.25) and len(array["data"]) == 7
    for frame in received["/frame"]:
        assert frame["format"] == "jpeg" and frame["data"] == [place % 256 for place in range(1001)]
    p50, p99 = np.percentile(ages, [50, 99])
    counts = {topic: len(messages) for topic, messages in received.items()}
    print(f"{len(images)} images, {len(joints)} states in (p50 {p50:.2f}, p99 {p99:.2f} ms); out {counts}")


def exchange_with_peer(transport, /, **settings):
    """Exchange messages with a peer made with these settings, and compare them; its last words show a failure."""
    with closing(transport):
        peer = Peer(**settings)
        try:
            check(*exchange(transport, peer), peer.received)
        except Exception:
            print("".join(peer.lines[-20:]))
            raise
        finally:
            peer.stop()


def test_dds_with_dora(ros_path):
    domain = 187
    transport = open_transport("dds", domain=domain)
    exchange_with_peer(transport, transport="dds", ros_path=str(ros_path), domain=domain)


def test_zenoh_with_dora(ros_path, tmp_path):
    port = 20_000 + os.getpid() % 20_000
    config = tmp_path / "zenoh.json5"
    config.write_text(
        json.dumps(
            {
                "mode": "peer",
                "connect": {"endpoints": [f"tcp/127.0.0.1:{port}"]},
                "listen": {"endpoints": ["tcp/127.0.0.1:0"]},
                "scouting": {"multicast": {"enabled": False}},
            }
        )
    )
    # Domain 0: dora-rs announces its topics under the one it is given, but sends under 0.
    transport = open_transport("zenoh", domain=0, connect=None, listen=f"tcp/127.0.0.1:{port}", type_hash=False)
    exchange_with_peer(transport, transport="zenoh", ros_path=str(ros_path), domain=0, zenoh_config=str(config))
