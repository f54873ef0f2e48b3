"""Commands as messages of the robot's types, on its topics or below /shadow."""

from dataclasses import replace

import numpy as np
import pytest
from real_robots import toy_base, toy_robot

from embodied.real_robot.control.publishing import CommandPublisher
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.motion import resting
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import COMMAND


def sent(robot, topics, position, *, shadow=False, live=True):
    """What arrives on each of `topics` (name, type) when a position at rest is commanded."""
    transport, heard = MemoryTransport(), {}
    for name, kind in topics:
        transport.subscribe(
            name, kind, COMMAND,
            lambda packet, _, name=name, kind=kind: heard.__setitem__(name, decode(packet, message_type(kind))),
        )  # fmt: skip
    CommandPublisher(robot, transport, live=live).publish(resting(np.array(position)), shadow=shadow)
    transport.advance(0.01)
    return heard


def test_the_gripper_has_a_topic_of_its_own():
    robot = load_robot("ros2_arm")
    topics = [(robot.command.name, robot.command.type), (robot.gripper.topic.name, robot.gripper.topic.type)]
    heard = sent(robot, topics, np.arange(7.0))
    arm, hand = (heard[name] for name, _ in topics)
    assert arm.joint_names == list(robot.axis_names[:6])
    assert len(arm.points) == 1 and arm.points[0].positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert (arm.header.stamp.sec, arm.header.stamp.nanosec) == (0, 0)
    assert hand.data.tolist() == [6]


def test_without_a_topic_of_its_own_the_gripper_goes_with_the_others():
    robot = load_robot("sim")
    heard = sent(robot, [(robot.command.name, robot.command.type)], [0.1, 0.6, 0.2, -1.0])
    assert heard[robot.command.name].data.tolist() == [0.1, 0.6, 0.2, -1.0]


@pytest.mark.parametrize("kind", ["geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"])
def test_velocities_are_put_where_their_names_say(kind):
    robot = toy_base()
    robot = replace(robot, command=replace(robot.command, type=kind))
    message = sent(robot, [("/cmd_vel", kind)], [0.3])["/cmd_vel"]
    twist = message.twist if kind.endswith("Stamped") else message
    assert (twist.linear.x, twist.linear.y, twist.angular.z) == (0.3, 0, 0)


@pytest.mark.parametrize(
    ("shadow", "live", "where"), [(True, True, "/shadow"), (True, False, "/shadow"), (False, False, None)]
)
def test_a_shadow_never_reaches_the_robot(shadow, live, where):
    robot = toy_robot()
    topics = [(prefix + robot.command.name, robot.command.type) for prefix in ("", "/shadow")]
    heard = sent(robot, topics, [0.1, 0.2], shadow=shadow, live=live)
    assert list(heard) == ([] if where is None else [where + robot.command.name])
