"""What is heard of a robot against its description, on the memory transport."""

import math

import numpy as np
import pytest
from real_robots import toy_robot

from embodied.real_robot.checking.checks import findings
from embodied.real_robot.checking.listening import listen, sensor_topics
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.transports.memory import Faults, MemoryTransport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

CAMERA = {"topic": "/front", "type": "sensor_msgs/msg/Image", "input": "observation.images.front"}
JOINTS, IMAGE, BOOL = (message_type(f"{name}") for name in (
    "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image", "std_msgs/msg/Bool",
))  # fmt: skip


class Arm:
    """A healthy robot; what a test changes is wrong with it."""

    def __init__(self, **robot):
        self.robot = toy_robot(cameras={"front": CAMERA}, **robot)
        self.network = MemoryTransport()
        self.names, self.pose, self.period_s, self.stamp_s, self.still = ["one", "two"], [0.1, -0.1], 0.05, 0.0, False
        self.encoding, self.estop, self.count = "rgb8", False, 0
        topics = {"/joint_states": JOINTS, "/front": IMAGE, self.robot.enable.name: BOOL, self.robot.estop.name: BOOL}
        self.senders = {name: self.network.advertise(name, kind.struct.name, SENSOR) for name, kind in topics.items()}
        self.silent = set()

    def pause(self, seconds):
        self.count += 1
        header = header_message(self.network.clock.wall() + round(self.stamp_s * 1e9))
        pixels = np.full(4 * 6 * 3, 7 if self.still else self.count % 256, np.uint8)
        sent = {
            "/joint_states": JOINTS(header=header, name=self.names, position=np.asarray(self.pose, float)),
            "/front": IMAGE(header=header, height=4, width=6, encoding=self.encoding, step=18, data=pixels),
            self.robot.enable.name: BOOL(data=True),
            self.robot.estop.name: BOOL(data=self.estop),
        }
        for name, message in sent.items():
            if name not in self.silent:
                self.senders[name].publish(encode(message))
        self.network.advance(self.period_s)

    def check(self, *, listeners=1, commanders=0):
        topics = [*sensor_topics(self.robot), self.robot.enable, self.robot.estop]
        logs = listen(self.network, topics, seconds=4.0, pause=self.pause)
        return findings(self.robot, logs, listeners=listeners, commanders=commanders)


def verdicts(found, verdict):
    return {finding.what: finding.found for finding in found if finding.verdict == verdict}


def test_a_robot_as_described_passes():
    found = Arm().check()
    assert not verdicts(found, "fail") and not verdicts(found, "note")
    passed = verdicts(found, "pass")
    assert passed["joint names"] == "one, two"
    assert passed["pose in limits"] == "one 0.100, two -0.100"
    assert passed["/front rate"].startswith("80 messages, 20.0 Hz, 50 ms between them (p99; limit 200)")
    assert passed["camera front"] == "6 x 4, uint8"


@pytest.mark.parametrize(
    ("changes", "what", "message"),
    [
        ({"silent": {"/front"}}, "/front", "no message of sensor_msgs/msg/Image: is its name and type right?"),
        ({"period_s": 0.12}, "/joint_states rate", "120 ms between them (p99; limit 100)"),
        ({"stamp_s": -1.0}, "/joint_states stamps", "1000.0 ms old at receipt"),
        ({"stamp_s": 0.7}, "/front stamps", "the robot's clock is ahead of this computer's"),
        ({"names": ["one", "twoo"]}, "joint names", "two missing in one, twoo; did you mean twoo?"),
        ({"names": ["one", "one"]}, "joint names", "two missing"),
        ({"pose": [0.1]}, "joint names", "1 positions for 2 names"),
        ({"pose": [1.2, 0.0]}, "pose in limits", "one 1.200 not in -1 .. 1"),
        ({"pose": [math.nan, 0.0]}, "pose", "not finite"),
        ({"encoding": "nothing8"}, "camera front", "a picture that cannot be read"),
        ({"encoding": "8UC9"}, "camera front", "cannot be read"),
        ({"estop": True}, "/embodied/estop", "the stop is pressed"),
    ],
)
def test_one_thing_that_is_wrong_is_named(changes, what, message):
    arm = Arm()
    for name, value in changes.items():
        setattr(arm, name, value)
    assert message in verdicts(arm.check(), "fail")[what]


def test_what_is_no_fault_is_noted():
    arm = Arm(timeouts={"source_s": math.inf}, rates={"policy_hz": 50, "command_hz": 100})
    arm.still, arm.names, arm.silent = True, ["two", "one"], {arm.robot.enable.name, arm.robot.estop.name}
    found = arm.check()
    assert not verdicts(found, "fail")
    notes = verdicts(found, "note")
    assert "not watched" in notes["/front stamps"] and "slower than the policy, 50 Hz" in notes["/front rate"]
    assert "is it frozen" in notes["camera front"] and "nothing moves" in notes["/embodied/enable"]
    assert verdicts(found, "pass")["joint names"].endswith("(the robot has another order)")


def test_who_takes_and_who_sends_commands_counts():
    arm = Arm()
    alone = verdicts(arm.check(listeners=0), "fail")
    assert "nobody listens for std_msgs/msg/Float64MultiArray" in alone["/arm/commands"]
    assert "2 other programs send" in verdicts(arm.check(commanders=2), "fail")["/arm/commands"]


def test_ages_and_intervals_are_measured_where_messages_are_late():
    arm = Arm()
    arm.network.set_faults("/joint_states", Faults(delay_s=0.02))
    logs = listen(arm.network, sensor_topics(arm.robot), seconds=2.0, pause=arm.pause)
    joints, images = logs["/joint_states"], logs["/front"]
    assert joints.ages_s == pytest.approx(np.full(len(joints.ages), 0.02), abs=1e-6)
    assert images.ages_s == pytest.approx(0.0, abs=1e-6)
    assert joints.rate_hz == pytest.approx(20) and joints.intervals_s == pytest.approx(0.05)


def test_malformed_messages_are_counted_not_raised():
    network, robot = MemoryTransport(), toy_robot()
    sender = network.advertise("/joint_states", JOINTS.struct.name, COMMAND)

    def pause(seconds):
        sender.publish(b"\x00\x01\x00\x00\xff\xff")
        network.advance(seconds)

    logs = listen(network, sensor_topics(robot), seconds=0.5, pause=pause)
    assert logs["/joint_states"].malformed == 10 and logs["/joint_states"].newest is None


def test_listening_ends_when_it_is_enough():
    arm = Arm()
    listen(arm.network, sensor_topics(arm.robot), seconds=60, pause=arm.pause, enough=lambda logs: arm.count >= 5)
    assert arm.count == 5
