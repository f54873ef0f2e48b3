"""Values that change while training; progress runs from 0 to 1, or steps count from 0."""

from __future__ import annotations

import math

from embodied.core.errors import unknown_name

KINDS = ("cosine", "linear", "constant")


def ramp(kind: str, start: float, end: float, at: float, of: float = 1.0) -> float:
    """The value at `at` of `of`: half a cosine or a line from `start` to `end`; `constant` stays at `start`."""
    at = min(max(at, 0), of)
    if kind == "constant":
        return start
    if kind == "linear":
        return start + (end - start) * at / of
    if kind == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * at / of))
    raise unknown_name("schedule", kind, KINDS)


def warmed_up(kind: str, step: int, *, warmup_steps: int, steps: int, final: float = 0.0) -> float:
    """A factor that rises linearly to 1 in `warmup_steps`, then follows `kind` to `final` at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return ramp(kind, 1.0, final, step - warmup_steps, max(1, steps - warmup_steps))
