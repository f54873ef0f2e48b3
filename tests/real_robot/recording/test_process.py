"""The recorder process: all topics of a description, a report, and an end that the robot does not notice."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from real_robots import toy_base, toy_robot

from embodied.core.errors import UserError
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.recording.process import recorded_topics, run_recorder
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

pytest.importorskip("mcap")
IMAGE = message_type("sensor_msgs/msg/Image")
DOMAIN = 152
pytestmark = pytest.mark.xdist_group("robots")


def test_everything_of_a_robot_is_recorded():
    arm = recorded_topics(load_robot("ros2_arm"))
    assert {
        "/joint_states", "/camera/color/image_raw", "/joint_trajectory_controller/joint_trajectory",
        "/shadow/joint_trajectory_controller/joint_trajectory", "/gripper_controller/commands",
        "/shadow/gripper_controller/commands", "/embodied/status", "/embodied/enable", "/embodied/estop",
        "/embodied/reset", "/task", "/sim/episode/status", "/sim/episode/active", "/sim/episode/reset",
    } == set(arm)  # fmt: skip
    assert "/joint_states" not in recorded_topics(toy_base())


def test_a_recording_says_what_it_holds(tmp_path):
    robot, network = toy_robot(), MemoryTransport()
    publisher = network.advertise(robot.command.name, robot.command.type, COMMAND)
    packet = encode(message_type(robot.command.type)(data=np.zeros(2)))
    turns = iter(range(1000))

    def pause(seconds):
        publisher.publish(packet)
        network.advance(seconds)

    report = run_recorder(robot, network, tmp_path / "a.mcap", stop=lambda: next(turns) == 20, pause=pause)
    assert report.messages[robot.command.name] == 20 and report.written_bytes == 20 * len(packet)
    assert robot.estop.name in report.silent and robot.command.name not in report.silent
    assert (report.lost, report.failure) == (0, None) and report.path.is_file()
    with pytest.raises(UserError, match="exists already"):
        run_recorder(robot, network, tmp_path / "a.mcap", stop=lambda: True)


def test_a_full_disk_ends_the_recording_at_once_with_the_reason(tmp_path):
    camera = {"topic": "/front", "type": "sensor_msgs/msg/Image", "input": "observation.images.front"}
    robot, network = toy_robot(cameras={"front": camera}), MemoryTransport()
    publisher = network.advertise("/front", IMAGE.struct.name, SENSOR)
    data = np.random.default_rng(0).integers(0, 255, 3 << 18, np.uint8)
    packet = encode(IMAGE(height=512, width=512, encoding="rgb8", step=1536, data=data))
    heard = []
    network.subscribe("/front", IMAGE.struct.name, SENSOR, lambda packet, stamp: heard.append(stamp))

    def pause(seconds):
        assert len(heard) < 500, "it went on after the disk was full"
        publisher.publish(packet)
        network.advance(seconds)
        time.sleep(0.002)  # the writer has a thread of its own

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, before[1]))
        report = run_recorder(robot, network, tmp_path / "full.mcap", stop=lambda: False, pause=pause)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "recording failed: File too large" in report.failure
    assert not report.path.exists() and len(heard) > 7


def test_the_process_records_until_it_is_told_to_stop(tmp_path):
    pytest.importorskip("cyclonedds")
    robot, path = load_robot("sim"), tmp_path / "run.mcap"
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [
            sys.executable, "-m", "embodied.real_robot.recording", "--robot", "sim", "--to", str(path),
            "--options", json.dumps({"domain": DOMAIN}),
        ],
        env={**os.environ, "PYTHONPATH": root}, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    transport = open_transport("dds", domain=DOMAIN)
    try:
        publisher = transport.advertise(robot.command.name, robot.command.type, COMMAND)
        end = time.monotonic() + 60
        while not publisher.matched():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        packet = encode(message_type(robot.command.type)(data=np.arange(4.0)))
        for _ in range(20):
            publisher.publish(packet)
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        transport.close()
    facts = json.loads(said)
    assert process.returncode == 0 and path.is_file()
    assert 1 <= facts["messages"][robot.command.name] <= 20 and facts["failure"] is None
