"""A trajectory filter: follows any target as fast as the limits allow, and never breaks one.

Legend: N axes; C alternatives; h period, s. Symbols as in `stopping`.

Limits of position, velocity, acceleration and jerk conflict when they are clamped one after the other: an arm at
full speed cannot stop at a position limit it is just reaching. So every command carries a plan to rest which keeps all
limits. A new command is taken only if such a plan exists behind it; otherwise the last plan goes on by one period,
which is always possible. By induction no input whatever can lead to a command outside the limits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from embodied.real_robot.safety.limits import Limits
from embodied.real_robot.safety.stopping import Stop, at_rest, judge, next_jerk, plan_stop, rest_of, travelled

_GRID = np.linspace(0.0, 1.0, 9)[:, None]  # of jerks between the smallest and the largest, [C, 1]
_SHARES = np.linspace(0.0, 0.875, 8)[:, None]  # of the last plan's jerk in a compromise, [C, 1]
STAGES = ("velocity", "acceleration", "jerk", "braking")


class Motion(NamedTuple):
    """The last command, float64 [N] each, and the plan to rest behind it."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    stop: Stop


class Advance(NamedTuple):
    """A command, and what had to be limited on the way to the target: bool [4, N], in the order of `STAGES`."""

    motion: Motion
    limited: np.ndarray


def resting(position: np.ndarray) -> Motion:
    """At rest at `position` [N]."""
    position = np.array(position, np.float64)
    zero = np.zeros_like(position)
    return Motion(position, zero, zero, at_rest(len(position)))


def brake(motion: Motion, period_s: float) -> Motion:
    """One period further along the plan to rest."""
    last = motion.stop.first + motion.stop.hold + motion.stop.last <= 1
    moved = _moved(motion, next_jerk(motion.stop, motion.acceleration, period_s=period_s), period_s)
    # The end is exactly at rest but for rounding, which must not add up over hours.
    velocity, acceleration = np.where(last, 0.0, moved.velocity), np.where(last, 0.0, moved.acceleration)
    position = np.where(last, motion.position, moved.position)
    return Motion(position, velocity, acceleration, rest_of(motion.stop))


def is_resting(motion: Motion) -> bool:
    """Whether every axis is at rest and stays so by itself."""
    return not (motion.velocity.any() or motion.acceleration.any())


def advance(motion: Motion, target: np.ndarray, rate: np.ndarray, limits: Limits, period_s: float) -> Advance:
    """The next command on the way to a moving target.

    A position outside the limits, where a robot may stand at the start, is allowed to stay but not to go further out.

    Args:
        target: where to be at the next command, finite, [N].
        rate: its velocity, finite, [N].
        limits: already `inside`.
    """
    largest, jerk = limits.acceleration, limits.jerk
    low = np.maximum(-jerk, (-largest - motion.acceleration) / period_s)
    high = np.minimum(jerk, (largest - motion.acceleration) / period_s)
    wanted = _wanted_jerk(motion, target, rate, low, high, limits, period_s)
    planned = next_jerk(motion.stop, motion.acceleration, period_s=period_s)
    tried = _moved(motion, wanted + _SHARES * (planned - wanted), period_s)  # (C, N)
    stop, keeps = _ways_to_rest(motion, tried, limits, period_s)
    found, choice = keeps.any(0), keeps.argmax(0)  # the first, nearest to what is wanted
    braked = brake(motion, period_s)
    axis = np.arange(limits.count)

    def pick(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(found, new[choice, axis], old)

    chosen = Motion(
        pick(tried.position, braked.position),
        pick(tried.velocity, braked.velocity),
        pick(tried.acceleration, braked.acceleration),
        Stop(*map(pick, stop, braked.stop)),
    )
    return Advance(chosen, _limited(motion, target, limits, period_s, braking=~found | (choice > 0)))


def _moved(motion: Motion, jerk: np.ndarray, period_s: float) -> Motion:
    acceleration = motion.acceleration + period_s * jerk
    velocity = motion.velocity + period_s * acceleration
    return Motion(motion.position + period_s * velocity, velocity, acceleration, motion.stop)


def _ways_to_rest(motion: Motion, tried: Motion, limits: Limits, period_s: float) -> tuple[Stop, np.ndarray]:
    """Plans to rest from alternatives [C, N], and which of them keep all limits."""
    stop = plan_stop(
        tried.velocity, tried.acceleration, largest=limits.acceleration, jerk=limits.jerk, period_s=period_s
    )
    below = tried.position - np.minimum(limits.low, motion.position)
    above = np.maximum(limits.high, motion.position) - tried.position
    keeps = judge(
        stop,
        tried.velocity,
        tried.acceleration,
        largest=limits.acceleration,
        jerk=limits.jerk,
        speed=limits.velocity,
        room_below=below,
        room_above=above,
        period_s=period_s,
    )
    here = (np.abs(tried.velocity) <= limits.velocity) & (np.abs(tried.acceleration) <= limits.acceleration)
    return stop, keeps & here & (below >= 0) & (above >= 0)


def _wanted_jerk(
    motion: Motion,
    target: np.ndarray,
    rate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    limits: Limits,
    period_s: float,
) -> np.ndarray:
    """The jerk after which coming to rest, seen from the moving target, ends at the target."""
    h = period_s
    grid = low + _GRID * (high - low)  # (C, N)
    tried = _moved(motion, grid, h)
    velocity = tried.velocity - rate
    stop = plan_stop(velocity, tried.acceleration, largest=limits.acceleration, jerk=limits.jerk, period_s=h)
    miss = tried.position - target + travelled(stop, velocity, tried.acceleration, period_s=h)  # (C, N), rising
    at = np.clip((miss < 0).sum(0) - 1, 0, len(grid) - 2)
    axis = np.arange(limits.count)
    below, above = miss[at, axis], miss[at + 1, axis]
    share = np.clip(-below / np.where(above == below, 1.0, above - below), 0.0, 1.0)
    coarse = grid[at, axis] + share * (grid[at + 1, axis] - grid[at, axis])
    # Three jerks that end exactly at the target and with it, where they are small enough: (e, de, a) -> 0.
    error, drift = motion.position + h * rate - target, motion.velocity - rate
    a1, v1 = (-error / h - drift) / h, -error / h
    a2 = -v1 / h
    near = np.maximum(np.abs(a1 - motion.acceleration), np.maximum(np.abs(a2 - a1), np.abs(a2))) <= limits.jerk * h
    near &= np.maximum(np.abs(a1), np.abs(a2)) <= limits.acceleration
    return np.where(near, (a1 - motion.acceleration) / h, coarse)


def _limited(motion: Motion, target: np.ndarray, limits: Limits, period_s: float, *, braking: np.ndarray) -> np.ndarray:
    """What a plain clamp of each stage would have done to the target, bool [4, N]."""
    velocity = (target - motion.position) / period_s
    fast = np.abs(velocity) > limits.velocity
    acceleration = (np.clip(velocity, -limits.velocity, limits.velocity) - motion.velocity) / period_s
    hard = np.abs(acceleration) > limits.acceleration
    clipped = np.clip(acceleration, -limits.acceleration, limits.acceleration)
    sudden = np.abs(clipped - motion.acceleration) > limits.jerk * period_s
    return np.stack([fast, hard, sudden, braking])
