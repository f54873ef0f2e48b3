"""What each axis of a robot may do, as arrays.

Legend: N axes. An axis is a joint, a direction of the hand, the gripper, or a component of a velocity.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from embodied.core.errors import UsageError

_INSIDE = 1e-9  # plans keep this relative distance to limits, so that rounding never crosses one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of N axes, float64 [N] each; rad, or m for sliding axes, and s. Infinite = none.

    Attributes:
        low, high: soft position limits.
        velocity, acceleration, jerk: largest absolute value between successive commands, all positive.
        step: how far a target may be from the measured position.
        tracking: how far a command may be from the measured position before the robot counts as not following.
    """

    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    step: np.ndarray
    tracking: np.ndarray

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            object.__setattr__(self, name, np.array(getattr(self, name), np.float64))
        for name in ("high", "velocity", "acceleration", "jerk", "step", "tracking"):
            values = getattr(self, name)
            if values.shape != self.low.shape or values.ndim != 1:
                raise UsageError(f"limits.{name}: expected one value for each of the {self.low.shape} axes")
            if name != "high" and not (values > 0).all():
                raise UsageError(f"limits.{name} must be positive, got {values.tolist()}")
        if not (self.low < self.high).all():
            raise UsageError(f"limits.low must be below limits.high, got {self.low.tolist()} and {self.high.tolist()}")
        for name in ("velocity", "acceleration", "jerk"):
            if not np.isfinite(getattr(self, name)).all():
                raise UsageError(f"limits.{name} must be finite, got {getattr(self, name).tolist()}")

    @property
    def count(self) -> int:
        """N."""
        return len(self.low)

    def inside(self) -> Limits:
        """The same, a hair tighter."""
        margin = _INSIDE * np.where(np.isfinite(self.high - self.low), self.high - self.low, 0.0)
        shrink = 1 - _INSIDE
        return Limits(
            low=self.low + margin,
            high=self.high - margin,
            velocity=self.velocity * shrink,
            acceleration=self.acceleration * shrink,
            jerk=self.jerk * shrink,
            step=self.step,
            tracking=self.tracking,
        )


def stopping_time(velocity: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray, period_s: float) -> float:
    """The longest time, s, from any motion within limits [N] to rest, when a command goes out each `period_s`.

    Acceleration away from rest must end first, A/J, then the speed that it led to must go, V/A + A/J; and each phase
    is rounded up to whole periods.
    """
    longest = float(np.max(velocity / acceleration + 2 * acceleration / jerk, initial=0.0))
    return longest + 5 * period_s
