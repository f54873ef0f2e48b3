"""What the command process takes from messages, and what it drops."""

import numpy as np
import pytest
from real_robots import toy_robot
from toy_deployments import NS, Deployment

from embodied.real_robot.control.intake import Intake


@pytest.fixture
def heard(tmp_path):
    deployment = Deployment(toy_robot(), tmp_path)
    return deployment, Intake(deployment.robot, deployment.transport)


def test_joints_are_taken_by_name_in_any_order(heard):
    deployment, intake = heard
    deployment.publish_joints(["two", "other", "one"], [2, 9, 1])
    deployment.transport.advance(0.01)
    assert intake.pose.measured.tolist() == [1, 2]
    assert intake.pose.sensor.delay_ns == 0


@pytest.mark.parametrize(
    ("names", "positions", "reason"),
    [
        (["one"], [1], "names"),
        (["one", "two", "two"], [1, 2, 3], "names"),
        (["one", "two"], [1], "shape"),
        (["one", "two"], [1, np.nan], "finite"),
        (["one", "two"], [1, np.inf], "finite"),
    ],
)
def test_joint_states_that_make_no_sense_are_dropped_and_counted(heard, names, positions, reason):
    deployment, intake = heard
    for _ in range(3):
        deployment.publish_joints(names, positions)
    deployment.transport.advance(0.01)
    assert intake.pose is None and intake.dropped == {f"joint states: {reason}": 3}


def test_a_message_that_was_overtaken_is_dropped_but_a_clock_may_be_set(heard):
    deployment, intake = heard
    wall = deployment.transport.clock.wall()
    for stamp, position in ((wall, 1.0), (wall - 1000, 2.0), (wall - 100 * NS, 3.0)):
        deployment.publish_joints(["one", "two"], [position, 0], stamp_ns=stamp)
    deployment.transport.advance(0.01)
    assert intake.pose.measured[0] == 3.0 and intake.pose.sensor.delay_ns == pytest.approx(100 * NS, abs=NS)
    assert intake.dropped == {"joint states: order": 1}


def test_a_malformed_packet_is_dropped_and_counted(heard):
    deployment, intake = heard
    deployment._joints.publish(b"\x00\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff")
    deployment.transport.advance(0.01)
    assert intake.pose is None and intake.dropped == {"/joint_states: malformed": 1}


def test_a_short_press_of_the_stop_is_not_lost(heard):
    deployment, intake = heard
    for deployment.pressed in (True, False):
        deployment._send()
    deployment.transport.advance(0.01)
    assert not intake.stop.on and intake.presses == 1
