"""The command loop end to end on a fake clock: modes, faults, bounds, and limits whatever happens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_robots import toy_base, toy_robot
from toy_deployments import Deployment, enable_after

from embodied.real_robot.control.cycle import rest_bound_s
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.transports.memory import Faults

CAMERA = {"topic": "/front", "type": "sensor_msgs/msg/Image", "input": "observation.images.front"}
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


def swing(t):
    """Actions that keep the arm moving: a sine of 0.15 rad, 0.3 Hz, for the next 8 steps."""
    times = t + 0.05 * np.arange(8)
    return np.stack([0.15 * np.sin(0.6 * np.pi * times)] * 2, axis=1)


def moving(robot, tmp_path, **options):
    deployment = Deployment(robot, tmp_path, **options)
    deployment.policy = swing
    return deployment


def rest_after(deployment, moment):
    """How long after `moment` the last change of the command came."""
    times, way = deployment.positions()
    still = np.abs(np.diff(way, axis=0)).max(1) > 0
    return times[1:][still][-1] - moment if still.any() else 0.0


def test_without_leave_only_the_shadow_is_published(tmp_path):
    deployment = moving(toy_robot(), tmp_path)
    deployment.run(2.0, enable_after(deployment, 0.5), live=False)
    assert not deployment.commands and len(deployment.shadows) > 150
    assert {mode for _, mode, _ in deployment.modes} == {"shadow"}
    assert np.ptp([message.data[0] for _, message in deployment.shadows]) > 0.1


def test_the_policy_moves_the_robot_once_the_switch_is_held(tmp_path):
    deployment = Deployment(toy_robot(), tmp_path)
    report = deployment.run(3.0, enable_after(deployment, 0.5))
    assert [deployment.mode_at(t) for t in (0.05, 0.4, 0.6, 2.9)] == ["hold", "hold", "active", "active"]
    assert deployment.commands[0][0] >= 0.5
    assert deployment.pose == pytest.approx([0.1, -0.1], abs=1e-4)
    deployment.assert_within_limits()
    assert report.cycles >= 300 and report.late_max_ms == 0


def test_a_switch_held_from_the_start_moves_nothing_until_it_was_let_go(tmp_path):
    deployment = Deployment(toy_robot(), tmp_path)

    def world(t):
        deployment.enabled = not 1.0 <= t < 1.2

    deployment.run(2.0, world)
    assert deployment.mode_at(0.99) == "shadow" and deployment.commands[0][0] >= 1.2


def test_a_dead_policy_leads_to_rest_within_the_stated_bound(tmp_path):
    deployment = moving(toy_robot(), tmp_path)
    bound = rest_bound_s(deployment.robot)

    def world(t):
        deployment.enabled = 0.2 <= t < 4.0 or t > 4.5
        deployment.alive = not 2.0 <= t < 4.2
        deployment.reset = 3.9 <= t < 3.91 or 4.3 <= t < 4.31

    deployment.run(6.0, world)
    assert deployment.mode_at(1.99) == "active" and deployment.mode_at(2.0 + bound) == "fault"
    times, way = deployment.positions()
    stopped = way[(times > 2.0 + bound) & (times < 4.5)]
    assert len(stopped) > 100 and (stopped == stopped[0]).all()  # it is held, not left alone
    assert np.abs(np.diff(way[times < 2.0], axis=0)).max() > 1e-3  # it was moving
    assert "the policy's process: nothing for 0.26" in next(r for _, m, r in deployment.modes if m == "fault")
    assert deployment.mode_at(4.25) == "fault"  # the reset while the policy was dead did nothing
    assert [deployment.mode_at(t) for t in (4.4, 5.9)] == ["hold", "active"]
    deployment.assert_within_limits()


def test_the_stop_is_latched_until_it_is_reset_with_the_switch_let_go(tmp_path):
    deployment = moving(toy_robot(), tmp_path)

    def world(t):
        deployment.enabled = 0.2 <= t < 3.0 or t > 3.4
        deployment.pressed = 1.5 <= t < 1.52
        deployment.reset = 2.5 <= t < 2.51 or 3.2 <= t < 3.21

    deployment.run(5.0, world)
    assert [deployment.mode_at(t) for t in (1.49, 1.53, 2.9, 3.3, 3.6)] == [
        "active",
        "fault",
        "fault",
        "hold",
        "active",
    ]
    times, way = deployment.positions()
    held = way[(times > 1.52 + deployment.robot.stopping_s) & (times < 3.4)]
    assert (held == held[0]).all()
    deployment.assert_within_limits()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("joints", "joint states: nothing for 0.1"),
        ("camera", "camera front sends the same picture for 1.0"),
        ("chunks", "actions: nothing for 0.5"),
        ("switch", "switch let go"),
        ("silent switch", "switch let go"),
    ],
)
def test_what_comes_and_goes_holds_the_robot_and_lets_it_go_on(tmp_path, fault, reason):
    deployment = moving(toy_robot(cameras={"front": CAMERA}), tmp_path)

    def world(t):
        bad = 1.5 <= t < 4.0
        deployment.enabled = t >= 0.2
        if fault == "joints":
            deployment.joints = not bad
        elif fault == "camera":
            deployment.frozen_s = 1.5 if bad else None
        elif fault == "chunks":
            deployment.policy = None if bad else swing
        elif bad:
            deployment.enabled = None if fault == "silent switch" else False

    deployment.run(5.5, world)
    assert [deployment.mode_at(t) for t in (1.45, 3.9, 5.4)] == ["active", "hold", "active"]
    assert any(mode == "hold" and reason in why for _, mode, why in deployment.modes)
    deployment.assert_within_limits()


def test_a_far_first_target_is_refused(tmp_path):
    deployment = Deployment(toy_robot(), tmp_path)
    deployment.policy = lambda t: np.full((4, 2), 0.3)
    deployment.run(1.0, enable_after(deployment, 0.2))
    assert not deployment.commands
    assert deployment.modes[-5][1:] == (
        "hold", "engagement refused: one is away from the first target by 0.3 (limit 0.2)",
    )  # fmt: skip


def test_an_arm_that_is_blocked_trips(tmp_path):
    deployment = Deployment(toy_robot(), tmp_path)
    deployment.policy = lambda t: np.full((4, 2), min(0.15 * t, 0.9))

    def world(t):
        deployment.enabled = t >= 0.2
        deployment.follows = t < 1.0

    deployment.run(5.0, world)
    reason = next(why for _, mode, why in deployment.modes if mode == "fault")
    assert reason.startswith("tripped: one is 0.3") and "away from its command" in reason
    deployment.assert_within_limits()


def test_one_of_five_messages_lost_does_not_stop_the_robot(tmp_path):
    deployment = moving(toy_robot(), tmp_path, seed=3)
    for topic in (deployment.robot.joint_states, deployment.robot.enable):
        deployment.transport.set_faults(topic.name, Faults(loss=0.2, delay_s=0.005, jitter_s=0.03, duplicates=0.1))
    deployment.run(4.0, enable_after(deployment, 0.3))
    assert {mode for t, mode, _ in deployment.modes if 0.6 < t < 3.9} == {"active"}
    deployment.assert_within_limits()


def test_actions_that_are_not_finite_are_refused_and_counted(tmp_path):
    deployment = moving(toy_robot(), tmp_path)

    def world(t):
        deployment.enabled = t >= 0.2
        deployment.policy = swing if t < 1.5 else lambda t: np.full((4, 2), np.nan)

    deployment.run(3.0, world)
    assert deployment.carries[-3].refused["finite"] > 20
    assert deployment.mode_at(2.9) == "hold"
    deployment.assert_within_limits()


def test_a_loop_that_stalls_is_a_fault_and_goes_on_from_rest(tmp_path):
    deployment = moving(toy_robot(), tmp_path)
    done = []

    def world(t):
        deployment.enabled = t >= 0.2
        if t >= 1.5 and not done:
            deployment.stall_s = done.append(t) or 0.2

    report = deployment.run(2.5, world)
    assert deployment.mode_at(2.4) == "fault" and deployment.carries[-1].gaps == 1
    assert "a command was 0.2" in next(why for _, mode, why in deployment.modes if mode == "fault")
    times, way = deployment.positions()
    after = way[times > 1.7]
    assert np.abs(after - after[0]).max() == 0
    assert report.late_max_ms == pytest.approx(200, abs=15)


@pytest.mark.parametrize(("held_up_s", "mode"), [(0.04, "active"), (0.2, "fault")])
def test_who_is_held_up_while_it_reads_was_late_and_saw_nothing_of_the_future(tmp_path, held_up_s, mode):
    deployment = moving(toy_robot(), tmp_path)
    read, done = deployment.mailbox.read_heartbeat, []

    def read_late():
        if deployment.now_s >= 1.5 and not done:
            done.append(deployment.now_s)
            deployment.transport.advance(held_up_s)
            deployment._send()  # meanwhile the others went on
        return read()

    deployment.mailbox.read_heartbeat = read_late
    report = deployment.run(2.5, enable_after(deployment, 0.2))
    assert deployment.mode_at(2.4) == mode
    reasons = " ".join(str(why) for _, _, why in deployment.modes)
    assert "future" not in reasons and ("a command was 0.2" in reasons) == (mode == "fault")
    assert report.late_max_ms == pytest.approx(1000 * held_up_s, abs=5)


def test_stopping_the_loop_brings_the_robot_to_rest_first(tmp_path):
    deployment = moving(toy_robot(), tmp_path)
    deployment.run(2.0, enable_after(deployment, 0.2))
    times, way = deployment.positions()
    speed = np.diff(way, axis=0) * 100
    assert np.abs(speed[times[1:] < 2.0][-1]).max() > 0.05
    assert (speed[-1] == 0).all() and times[-1] <= 2.0 + deployment.robot.stopping_s + 0.02
    deployment.assert_within_limits()


def test_a_process_that_runs_at_half_its_speed_still_ends_with_the_robot_at_rest(tmp_path):
    deployment = Deployment(toy_robot(timeouts={"deadline_s": 30}), tmp_path)
    deployment.policy = lambda t: 3 * swing(t)
    engage = enable_after(deployment, 0.2)

    def world(t):
        engage(t)
        deployment.stall_s = 0.014 if t >= 1.7 else 0.0  # every second cycle is left out

    deployment.run(1.7, world)
    times, way = deployment.positions()
    assert np.abs(np.diff(way[times < 1.7], axis=0)[-1]).max() > 0.007
    assert times[-1] > 1.7 + deployment.robot.stopping_s and (way[-1] == way[-2]).all()


def test_trajectories_say_how_to_come_to_rest(tmp_path):
    command = {"type": TRAJECTORY, "topic": "/arm/joint_trajectory"}
    deployment = moving(toy_robot(command=command, timeouts={"tracking_s": 100}), tmp_path)
    deployment.run(2.0, enable_after(deployment, 0.2))
    longest = 0
    for (_, message), (_, following) in zip(deployment.commands[:-1], deployment.commands[1:], strict=True):
        assert message.joint_names == ["one", "two"]
        points = message.points
        ends = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in points]
        assert ends == sorted(set(ends)) and ends[0] == pytest.approx(0.01)
        assert np.abs(points[-1].velocities).max() == 0 or len(points) == 1
        assert len(points) == 1 or ends[-1] <= deployment.robot.stopping_s + 0.02
        assert np.abs(np.subtract(following.points[0].positions, points[0].positions)).max() < 0.011
        longest = max(longest, len(points))
    assert longest > 10


def test_a_base_is_driven_by_twists_and_stands_at_the_end(tmp_path):
    deployment = Deployment(toy_base(), tmp_path)
    deployment.policy = lambda t: np.ones((4, 1))
    deployment.run(3.0, enable_after(deployment, 0.2))
    speeds = np.array([message.linear.x for _, message in deployment.commands])
    assert speeds.max() == pytest.approx(0.5, abs=1e-6) and speeds[-1] == 0
    assert np.abs(np.diff(speeds)).max() * 100 <= 1 + 1e-6
    assert np.abs(np.diff(speeds, n=2)).max() * 100**2 <= 8 + 1e-6


def test_each_cycle_is_on_the_board_and_some_on_the_topic(tmp_path):
    deployment = moving(toy_robot(cameras={"front": CAMERA}), tmp_path)
    board = StatusBoard.create(tmp_path / "board")
    cycles = []
    world = enable_after(deployment, 0.2)

    def looking(t):
        world(t)
        record = StatusBoard.open(tmp_path / "board").read()
        if record:
            cycles.append(record["cycle"])

    deployment.run(1.0, looking, board=board)
    assert cycles == sorted(cycles) and len(set(cycles)) > 90
    record = StatusBoard.open(tmp_path / "board").read()
    assert record["robot"] == "toy" and set(record["ages_s"]) == {
        "front",
        "joint_states",
        "actions",
        "policy",
        "enable",
    }
    assert record["clamps"]["engage"] > 0
    assert 5 <= len(deployment.status) <= 12
    assert set(deployment.status[-1]["lateness_ms"]) == {"p50", "p99", "p99.9"}


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_limits_hold_whatever_happens(data, tmp_path_factory):
    """Any mixture of strange actions, measurements, switches, stops, resets and silence."""
    deployment = Deployment(
        toy_robot(command={"kind": data.draw(st.sampled_from(["joint_position", "joint_delta"]))}, engage_ramp_s=0.1),
        tmp_path_factory.mktemp("any"),
        seed=data.draw(st.integers(0, 1000)),
    )
    jitter = Faults(loss=0.1, delay_s=0.01, jitter_s=0.05, duplicates=0.1)
    deployment.transport.set_faults(deployment.robot.joint_states.name, jitter)
    number = st.one_of(st.floats(-1.5, 1.5), st.sampled_from([np.nan, np.inf, 1e300, 0.05]))
    event = st.tuples(
        st.sampled_from(["actions", "pose", "switch", "stop", "reset", "death", "joints"]), number, st.booleans()
    )
    events = data.draw(st.lists(event, min_size=5, max_size=14))

    def world(t):
        if t < 0.4:
            deployment.enabled = t >= 0.1
            return
        kind, value, flag = events[int((t - 0.4) / 0.1) % len(events)]
        if kind == "actions":
            deployment.policy = lambda t: np.full((3, 2), value)
        elif kind == "pose":
            deployment.pose = np.array([value, 0.0])
        elif kind == "switch":
            deployment.enabled = flag
        elif kind == "stop":
            deployment.pressed = flag
        elif kind == "reset":
            deployment.reset = True
        elif kind == "death":
            deployment.alive = flag
        else:
            deployment.joints = flag

    deployment.run(0.4 + 0.1 * len(events), world)
    if deployment.commands:
        deployment.assert_within_limits(outside=0.1)
