"""Single cycles: what no transport can play, such as a clock that goes backwards."""

import numpy as np
import pytest
from real_robots import toy_robot

from embodied.real_robot.control.cycle import Inputs, cycle, cycle_settings, initial
from embodied.real_robot.control.mailbox import RawChunk
from embodied.real_robot.safety.modes import Mode
from embodied.real_robot.safety.supervisors import Sensor

MS = 1_000_000
START = 1_000_000 * MS


class Played:
    """Cycles at given times, all sensors fresh unless told otherwise; the arm is where it was sent."""

    def __init__(self, **robot):
        self.settings = cycle_settings(toy_robot(engage_ramp_s=0, **robot))
        self.carry = initial(self.settings)
        self.pose = np.zeros(2)

    def at(self, now_ns, *, enabled=True, target=0.2, **changes):
        chunk = RawChunk(now_ns, now_ns, now_ns, 50 * MS, np.full((4, 2), target))
        values = {
            "now_ns": now_ns, "late_ns": 0, "measured": self.pose, "joint_state": Sensor(now_ns, 0, now_ns),
            "cameras": {}, "chunk": chunk, "heartbeat_ns": now_ns, "enabled": enabled, "enable_ns": now_ns,
            "estop": False, "reset": False, "live": True,
        }  # fmt: skip
        self.carry, output = cycle(self.settings, self.carry, Inputs(**{**values, **changes}))
        if output.motion is not None:
            self.pose = output.motion.position
        return output

    def engaged(self):
        self.at(START, enabled=False)
        for k in range(1, 31):
            self.at(START + 10 * k * MS)
        assert self.carry.mode is Mode.ACTIVE
        return START + 300 * MS


def test_a_clock_that_goes_backwards_is_a_fault_and_the_robot_comes_to_rest():
    played = Played()
    now = played.engaged()
    positions = [played.carry.chain.motion.position]
    for k in range(1, 100):
        positions.append(played.at(now - 5000 * MS + 10 * k * MS).motion.position)
    assert played.carry.mode is Mode.FAULT
    way = np.array(positions)
    for order, limit in ((1, 1.0), (2, 4.0), (3, 40.0)):
        assert (np.abs(np.diff(way, n=order, axis=0)) * 100**order <= limit * (1 + 1e-6)).all()
    assert (way[-1] == way[-2]).all()


@pytest.mark.parametrize("tail", [False, True])
def test_after_a_gap_commands_go_on_from_where_the_robot_is(tail):
    kind = "trajectory_msgs/msg/JointTrajectory" if tail else "std_msgs/msg/Float64MultiArray"
    played = Played(command={"type": kind})
    now = played.engaged()
    before = played.carry.chain.motion
    assert np.abs(before.velocity).max() > 0.3
    after = played.at(now + 1000 * MS).motion
    moved = np.abs(after.position - before.position).max()
    if tail:  # the robot went to the end of the plan that came with the last command
        assert 0.02 < moved < 0.2
    else:  # it stayed at the last command
        assert moved < 1e-4
    assert played.carry.gaps == 1 and np.abs(after.velocity).max() < 0.01


def test_before_the_robot_is_measured_nothing_is_commanded_but_the_stop_is_heard():
    played = Played()
    assert played.at(START, measured=None).motion is None and played.carry.mode is Mode.SHADOW
    assert played.at(START + 10 * MS, measured=None, estop=True).motion is None and played.carry.mode is Mode.FAULT


def test_a_held_robot_that_was_never_engaged_is_not_commanded():
    played = Played()
    for k in range(20):
        played.pose = np.full(2, 0.01 * k)  # moved by hand
        assert played.at(START + 10 * k * MS, enabled=False).motion is None
    assert played.carry.mode is Mode.HOLD and not played.carry.owns
    assert played.carry.chain.motion.position == pytest.approx([0.19, 0.19])


def test_a_shadow_that_loses_its_robot_begins_anew_from_it():
    played = Played(timeouts={"tracking_s": 0.0})
    for k in range(90):
        output = played.at(START + 10 * k * MS, live=False, measured=np.full(2, -0.5), target=0.5)
        assert output.shadow
        assert np.abs(output.motion.position + 0.5).max() < 0.31
    assert played.carry.mode is Mode.SHADOW and played.carry.clamps[-1].sum() > 0
