"""Coming to rest within limits, in closed form, in whole periods.

Legend: N axes; leading axes of arrays are alternatives that are judged together; h period, s.

A command follows from the last one by a jerk j held for one period: a' = a + h j, v' = v + h a', p' = p + h v'.
Differences of successive commands are therefore exactly v', a' and j, which is what limits are about.
A plan to rest has three phases: the acceleration goes in `first` equal steps to `peak`, stays for `hold` periods, and
goes back to zero in `last` equal steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_ROUNDING = 1e-9  # of durations in periods
_TINY = 1e-300


class Stop(NamedTuple):
    """A plan to rest from (v, a): `first`, `hold`, `last` periods (whole numbers as float64) and `peak` acceleration.

    Arrays [..., N].
    """

    first: np.ndarray
    hold: np.ndarray
    last: np.ndarray
    peak: np.ndarray


def at_rest(count: int) -> Stop:
    """The plan of `count` axes that are at rest already."""
    return Stop(np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count))


def plan_stop(
    velocity: np.ndarray, acceleration: np.ndarray, *, largest: np.ndarray, jerk: np.ndarray, period_s: float
) -> Stop:
    """A quick way to rest: the time-optimal durations rounded up to periods, then the peak that ends exactly at rest.

    Args:
        largest, jerk: of acceleration and its rate [N]; met in nearly all cases, to be judged by `judge`.
    """
    after = velocity + acceleration * np.abs(acceleration) / (2 * jerk)  # speed once the acceleration is gone
    sign = np.where(after < 0, -1.0, 1.0)
    v, a = sign * velocity, sign * acceleration
    area = jerk * v + 0.5 * a * a
    peak = np.minimum(np.sqrt(np.maximum(area, 0.0)), largest)
    hold_s = np.maximum(area - peak * peak, 0.0) / np.maximum(jerk * peak, _TINY)
    per_period = jerk * period_s
    first = np.maximum(np.ceil((a + peak) / per_period - _ROUNDING), 1.0)
    # Rounding up the first phase loses braking where the brakes are on already: one more period makes up for it.
    hold = np.ceil(hold_s / period_s - _ROUNDING) + (a < 0)
    last = np.maximum(np.ceil(peak / per_period - _ROUNDING), 1.0)
    exact = -(velocity / period_s + 0.5 * acceleration * (first - 1)) / (0.5 * (first + last) + hold)
    return Stop(first, hold, last, exact)


def judge(
    plan: Stop,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    *,
    largest: np.ndarray,
    jerk: np.ndarray,
    speed: np.ndarray,
    room_below: np.ndarray,
    room_above: np.ndarray,
    period_s: float,
) -> np.ndarray:
    """Whether a plan keeps the limits from its first command to its last, bool [..., N].

    The acceleration changes sign once at most, in the first phase; the speed is extreme there, at the start or at
    the end, and the position at the end or where the speed changes sign.

    Args:
        largest, jerk, speed: limits of acceleration, its rate, and velocity [N].
        room_below, room_above: how far the position may still go.
    """
    first, _, last, peak = plan
    h, change = period_s, peak - acceleration
    turn = np.where(acceleration * peak < 0, np.floor(acceleration * first / np.where(change == 0, 1.0, -change)), 0.0)
    turn_v = velocity + h * (turn * acceleration + change * turn * (turn + 1) / (2 * first))
    end = travelled(plan, velocity, acceleration, period_s=h)
    astray = np.where(velocity * turn_v < 0, velocity * turn * h, 0.0)  # no less than it goes before it turns back
    per_period = jerk * h
    keeps: np.ndarray = (
        (np.abs(peak) <= largest)
        & (np.abs(change) <= per_period * first)
        & (np.abs(peak) <= per_period * last)
        & (np.abs(turn_v) <= speed)
        & (np.minimum(np.minimum(end, astray), 0.0) >= -room_below)
        & (np.maximum(np.maximum(end, astray), 0.0) <= room_above)
    )
    return keeps


def path(
    plan: Stop, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, *, period_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities [K, N] at the K commands of a plan, the start excluded; K = 1 where all is at rest."""
    count = max(1, int(np.max(plan.first + plan.hold + plan.last)))
    k = np.arange(1.0, count + 1)[:, None]
    rising = acceleration + (plan.peak - acceleration) * k / np.maximum(plan.first, 1.0)
    after = k - plan.first - plan.hold
    falling = plan.peak * np.clip(1 - after / np.maximum(plan.last, 1.0), 0.0, 1.0)
    # A plan that has begun may have no first phase left; then the acceleration is the peak or on its way to zero.
    begun = acceleration * np.clip(1 - k / np.maximum(plan.last, 1.0), 0.0, 1.0)
    falling = np.where(plan.first + plan.hold > 0, falling, begun)
    a = np.where(k <= plan.first, rising, np.where(after <= 0, plan.peak, falling))
    v = velocity + period_s * np.cumsum(a, axis=0)
    return position + period_s * np.cumsum(v, axis=0), v


def travelled(plan: Stop, velocity: np.ndarray, acceleration: np.ndarray, *, period_s: float) -> np.ndarray:
    """How far a plan goes from its start to rest, [..., N]."""
    first, hold, last, peak = plan
    h, change = period_s, peak - acceleration
    v1 = velocity + h * (first * acceleration + 0.5 * change * (first + 1))
    way1 = first * velocity + h * (first + 1) * (0.5 * acceleration * first + change * (first + 2) / 6)
    way2 = hold * v1 + h * peak * hold * (hold + 1) / 2
    v2 = v1 + h * peak * hold
    way3 = last * v2 + h * peak * (last + 1) * (last / 2 - (last + 2) / 6)
    result: np.ndarray = h * (way1 + way2 + way3)
    return result


def next_jerk(plan: Stop, acceleration: np.ndarray, *, period_s: float) -> np.ndarray:
    """The jerk [N] with which a plan goes on from where it is; zero when it is over."""
    to_peak = (plan.peak - acceleration) / np.maximum(plan.first, 1.0)
    to_zero = -acceleration / np.maximum(plan.last, 1.0)
    change = np.where(plan.first > 0, to_peak, np.where(plan.hold > 0, 0.0, np.where(plan.last > 0, to_zero, 0.0)))
    result: np.ndarray = change / period_s
    return result


def rest_of(plan: Stop) -> Stop:
    """The plan one period later."""
    first = np.maximum(plan.first - 1, 0.0)
    hold = np.where(plan.first > 0, plan.hold, np.maximum(plan.hold - 1, 0.0))
    last = np.where(plan.first + plan.hold > 0, plan.last, np.maximum(plan.last - 1, 0.0))
    return Stop(first, hold, last, plan.peak)
