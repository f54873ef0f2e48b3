"""The trajectory filter keeps every limit, whatever the target does, and follows as fast as the limits allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.core.errors import UsageError
from embodied.real_robot.safety.limits import Limits, stopping_time
from embodied.real_robot.safety.motion import advance, brake, is_resting, resting
from embodied.real_robot.safety.stopping import path

ROUNDING = 1e-6  # relative, of third differences of positions


def limits_of(count=1, *, low=-1.0, high=1.0, velocity=1.0, acceleration=4.0, jerk=40.0):
    full = {"low": low, "high": high, "velocity": velocity, "acceleration": acceleration, "jerk": jerk}
    return Limits(**{name: np.full(count, value) for name, value in full.items()},
                  step=np.full(count, np.inf), tracking=np.full(count, np.inf))  # fmt: skip


def assert_kept(positions, limits, period):
    """Differences of successive commands, from rest, are within the limits."""
    positions = np.concatenate([positions[:1]] * 3 + [positions])
    scale = np.abs(positions).max() + 1
    for order, limit in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        differences = np.abs(np.diff(positions, n=order, axis=0)) / period**order
        slack = limit * ROUNDING + 1e-14 * scale / period**order
        assert (differences <= limit + slack).all(), (order, differences.max(0), limit)
    assert (positions >= np.minimum(limits.low, positions[0])).all()
    assert (positions <= np.maximum(limits.high, positions[0])).all()


def follow(targets, rates, limits, period, start):
    motion, positions = resting(start), [np.asarray(start, float)]
    for target, rate in zip(targets, rates, strict=True):
        motion = advance(motion, target, rate, limits.inside(), period).motion
        positions.append(motion.position)
    return motion, np.array(positions)


@settings(max_examples=25, deadline=None)
@given(
    velocity=st.floats(0.05, 20), acceleration=st.floats(0.05, 200), jerk=st.floats(0.5, 1e4),
    period=st.sampled_from([0.002, 0.01, 0.05]), seed=st.integers(0, 2**32 - 1),
    style=st.sampled_from(["jumps", "noise", "ramps", "extremes"]),
)  # fmt: skip
def test_all_limits_hold_for_any_target(velocity, acceleration, jerk, period, seed, style):
    limits = limits_of(4, velocity=velocity, acceleration=acceleration, jerk=jerk)
    random = np.random.default_rng(seed)
    count = 200
    held = np.repeat(random.uniform(-2, 2, (count // 10, 4)), 10, axis=0)
    targets = {
        "jumps": held,
        "noise": random.normal(0, 0.5, (count, 4)),
        "ramps": np.cumsum(held, axis=0) * period,
        "extremes": random.choice([-1e6, -1.0, 0.0, 1.0, 1e6], (count, 4)),
    }[style]
    rates = random.choice([0.0, 1.0, -1.0], (count, 4)) * velocity
    motion, positions = follow(targets, rates, limits, period, random.uniform(-1, 1, 4))
    assert_kept(positions, limits, period)
    # From wherever it is, it comes to rest in the stated time, and keeps the limits on the way.
    way, bound = [*positions], stopping_time(limits.velocity, limits.acceleration, limits.jerk, period)
    for _ in range(round(bound / period)):
        motion = brake(motion, period)
        way.append(motion.position)
    assert is_resting(motion)
    assert_kept(np.array(way), limits, period)


def test_a_step_is_reached_exactly_in_near_the_shortest_time_without_overshoot():
    limits = limits_of()
    targets = np.full((400, 1), 0.5)
    motion, positions = follow(targets, 0 * targets, limits, 0.005, [0.0])
    # 0.5 at V = 1, A = 4, J = 40: at least d/V + V/A + A/J = 0.85 s
    arrived = 0.005 * np.argmax(np.abs(positions[:, 0] - 0.5) < 1e-9)
    assert 0.85 <= arrived < 0.95
    assert positions.max() <= 0.5 + 1e-9
    assert is_resting(motion) and motion.position[0] == pytest.approx(0.5, abs=1e-12)


def test_a_ramp_is_followed_without_lag():
    limits = limits_of()
    times = 0.005 * np.arange(1, 401)[:, None]
    _, positions = follow(-0.8 + 0.7 * times, np.full((400, 1), 0.7), limits, 0.005, [-0.8])
    assert np.abs(positions[200:, 0] - (-0.8 + 0.7 * times[199:, 0])).max() < 1e-9


def test_a_sine_within_the_limits_is_followed_closely():
    limits = limits_of()
    times = 0.005 * np.arange(1, 1201)[:, None]
    wanted, rate = 0.3 * np.sin(2 * times), 0.6 * np.cos(2 * times)
    _, positions = follow(wanted, rate, limits, 0.005, [0.0])
    assert np.abs(positions[400:] - wanted[399:]).max() < 1e-3


def test_a_start_outside_the_limits_never_goes_further_out():
    limits = limits_of(2)
    targets = np.concatenate([np.full((50, 2), 3.0), np.zeros((400, 2))])
    motion, positions = follow(targets, 0 * targets, limits, 0.005, [1.2, -1.3])
    assert positions[:, 0].max() <= 1.2 and positions[:, 1].min() >= -1.3
    assert motion.position == pytest.approx([0, 0], abs=1e-9)


def test_the_path_of_a_plan_is_what_braking_does_from_its_beginning_and_from_its_middle():
    limits = limits_of(2)
    targets = np.tile([0.9, -0.4], (60, 1))
    motion, _ = follow(targets, 0 * targets, limits, 0.005, [0.0, 0.3])
    for _ in range(3):
        way, speed = path(motion.stop, motion.position, motion.velocity, motion.acceleration, period_s=0.005)
        each, moving = motion, []
        for _ in range(len(way)):
            each = brake(each, 0.005)
            moving.append(each.position)
        assert np.allclose(way, moving, atol=1e-12)
        assert np.allclose(speed[-1], 0, atol=1e-12)
        for _ in range(len(way) // 4):
            motion = brake(motion, 0.005)


def test_it_says_what_was_limited():
    limits = limits_of(2)
    first = advance(resting([0.0, 0.0]), np.array([1.0, 0.0]), np.zeros(2), limits.inside(), 0.005)
    assert first.limited[:3].tolist() == [[True, False]] * 3


def test_the_same_inputs_give_the_same_commands():
    targets = np.random.default_rng(1).uniform(-1, 1, (100, 3))
    runs = [follow(targets, 0 * targets, limits_of(3), 0.01, np.zeros(3))[1] for _ in range(2)]
    assert (runs[0] == runs[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"velocity": 0.0}, "limits.velocity must be positive"),
        ({"jerk": np.inf}, "limits.jerk must be finite"),
        ({"low": 1.0}, "limits.low must be below"),
    ],
)
def test_limits_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        limits_of(**change)
