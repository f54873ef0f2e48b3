"""The chain as a whole: each stage, its order and its counts, and all limits for any sequence of inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_robots import toy_base, toy_robot

from embodied.real_robot.safety.chain import STAGES, Reference, begin, engage, follow, halt, refusal, settings_of

ZERO = np.zeros(2)


def reference(one, two=0.0, rate=(0.0, 0.0)):
    return Reference(np.array([one, two], float), np.array(rate, float))


def started(robot, pose=(0.0, 0.0)):
    chain = settings_of(robot)
    return chain, engage(begin(chain, np.array(pose)))


def counted(clamps):
    return {stage for stage, row in zip(STAGES, clamps, strict=True) if row.any()}


def test_the_stages_stand_in_the_stated_order():
    assert STAGES == (
        "finite", "shape", "engage", "position", "workspace", "step", "velocity", "acceleration", "jerk", "braking",
        "tracking",
    )  # fmt: skip


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_followed(bad):
    chain, state = started(toy_robot(engage_ramp_s=0))
    after, clamps, _ = follow(chain, state, ZERO, reference(bad))
    assert counted(clamps) == {"finite"}
    assert (after.motion.position == 0).all()


def test_a_wrong_shape_is_not_followed():
    chain, state = started(toy_robot(engage_ramp_s=0))
    after, clamps, _ = follow(chain, state, ZERO, Reference(np.ones(3), np.zeros(3)))
    assert counted(clamps) == {"shape"}
    assert (after.motion.position == 0).all()


def test_the_ramp_leads_from_the_pose_to_the_target():
    chain, state = started(toy_robot(engage_ramp_s=1.0))
    positions = []
    for _ in range(150):
        state, clamps, _ = follow(chain, state, state.motion.position, reference(0.2))
        positions.append(state.motion.position[0])
    halfway = 0.2 * 0.5  # of a smooth step after half its time
    assert positions[49] == pytest.approx(halfway, abs=5e-3)
    assert np.abs(np.diff(positions)).max() / 0.01 < 0.2 * 1.5 * 1.1  # its steepest slope
    assert positions[-1] == pytest.approx(0.2, abs=1e-6)
    assert "engage" not in counted(clamps)


@pytest.mark.parametrize(
    ("pose", "target", "reason"),
    [
        ((0.0, 0.0), reference(0.1, 0.21), "two is away from the first target by 0.21 (limit 0.2)"),
        ((1.15, 0.0), reference(1.0), "one stands outside its position limits by 0.15 (limit 0.1)"),
        ((0.0, 0.0), None, "there is no valid first target"),
        ((0.0, 0.0), reference(np.nan), "there is no valid first target"),
        ((0.0, 0.0), reference(0.1, 0.1), None),
        ((1.05, 0.0), reference(1.0), None),
    ],
)
def test_engaging_is_refused_with_a_reason(pose, target, reason):
    chain = settings_of(toy_robot())
    assert refusal(chain, begin(chain, np.array(pose)), np.array(pose), target) == reason


def test_a_robot_that_was_moved_while_held_is_not_engaged():
    chain = settings_of(toy_robot())
    reason = refusal(chain, begin(chain, ZERO), np.array([0.4, 0.0]), reference(0.4))
    assert reason == "one is away from the last command by 0.4 (limit 0.3)"


def test_targets_stay_in_the_position_limits_and_near_the_measured_position():
    chain, state = started(toy_robot(engage_ramp_s=0, timeouts={"tracking_s": 100}))
    for _ in range(400):
        state, clamps, _ = follow(chain, state, ZERO, reference(5.0))
    assert {"position", "step"} <= counted(clamps)
    assert state.motion.position[0] == pytest.approx(0.5, abs=1e-6)  # the step from the measured 0


def test_an_arm_that_does_not_follow_trips_after_its_time():
    chain, state = started(toy_robot(engage_ramp_s=0))
    trips = []
    for _ in range(200):
        state, _, trip = follow(chain, state, ZERO, reference(0.5))
        trips.append(trip)
    first = next(i for i, trip in enumerate(trips) if trip)
    assert trips[first].startswith("one is 0.") and trips[first].endswith("away from its command (limit 0.3)")
    assert all(trips[first:])


def test_relative_axes_integrate_their_velocity_and_do_not_wind_up():
    robot = toy_robot(command={"kind": "joint_delta"}, engage_ramp_s=0, timeouts={"tracking_s": 100})
    chain, state = started(robot)
    for _ in range(100):
        state, _, _ = follow(chain, state, state.motion.position, reference(0.3))
    assert state.motion.position[0] == pytest.approx(0.3, abs=0.02)
    for _ in range(500):  # against the limit
        state, clamps, _ = follow(chain, state, state.motion.position, reference(0.9))
    assert "position" in counted(clamps)
    for _ in range(30):
        state, _, _ = follow(chain, state, state.motion.position, reference(-0.9))
    assert state.motion.position[0] < 0.95


def test_a_velocity_robot_comes_to_a_stand_when_nothing_is_wanted():
    robot = toy_base()
    chain = settings_of(robot)
    for stopping in (follow, halt):
        state = engage(begin(chain, np.full(1, np.nan)))
        nan, speeds = np.full(1, np.nan), []
        for _ in range(150):
            state, _, _ = follow(chain, state, nan, Reference(np.ones(1), np.zeros(1)))
            speeds.append(state.motion.position[0])
        assert speeds[-1] == pytest.approx(0.5, abs=1e-6)
        for _ in range(round(robot.stopping_s * 100)):
            state, *_ = follow(chain, state, nan, None) if stopping is follow else halt(chain, state, nan)
            speeds.append(state.motion.position[0])
        assert speeds[-1] == pytest.approx(0, abs=1e-9)
        assert np.abs(np.diff(speeds)).max() / 0.01 <= 1.0 + 1e-6
        assert np.abs(np.diff(speeds, n=2)).max() / 0.01**2 <= 8.0 + 1e-6


strange = st.one_of(st.floats(-2, 2), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0]))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["joint_position", "joint_delta"]))
def test_the_limits_hold_for_any_inputs(data, kind):
    """Targets, rates and measurements of any value, halts and missing references in between."""
    chain, state = started(toy_robot(command={"kind": kind}, timeouts={"tracking_s": 100}))
    positions = [ZERO] * 4
    pairs = st.tuples(strange, strange)
    steps = data.draw(st.lists(st.tuples(pairs, pairs, pairs, st.integers(0, 5), st.integers(1, 30)), max_size=10))
    for value, rate, measured, action, count in steps:
        for _ in range(count):
            if action == 0:
                state, *_ = halt(chain, state, np.array(measured))
            else:
                wanted = None if action == 1 else Reference(np.array(value), np.array(rate))
                state, *_ = follow(chain, state, np.array(measured), wanted)
            positions.append(state.motion.position)
    way = np.array(positions)
    limits = chain.limits
    assert (np.abs(way) <= 1).all()
    for order, limit in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        assert (np.abs(np.diff(way, n=order, axis=0)) / 0.01**order <= limit * (1 + 1e-6)).all()
