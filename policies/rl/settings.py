"""What an agent's settings may be: checked when they are made, before an environment or a run folder is."""

from __future__ import annotations

from math import isfinite
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.rl.schedules import SHAPES


def check_whole(settings: object, *names: str, least: int = 1) -> None:
    """These settings count something.

    Raises:
        UsageError: one is no whole number, or less than `least`.
    """
    for name in names:
        value: Any = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"policy.{name} must be a whole number of at least {least}, got {value!r}")


def check_positive(settings: object, *names: str, zero: bool = False) -> None:
    """These settings are positive numbers, or 0 if that is allowed.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        value: Any = getattr(settings, name)
        if not _is_number(value) or value < 0 or (value == 0 and not zero):
            raise UsageError(f"policy.{name} must be a number {'of at least' if zero else 'above'} 0, got {value!r}")


def check_shares(settings: object, *names: str) -> None:
    """These settings are shares.

    Raises:
        UsageError: one is not in (0, 1].
    """
    for name in names:
        value: Any = getattr(settings, name)
        if not _is_number(value) or not 0 < value <= 1:
            raise UsageError(f"policy.{name} must be in (0, 1], got {value!r}")


def check_widths(settings: object, name: str) -> None:
    """This setting lists widths of layers.

    Raises:
        UsageError: one is no whole number, or less than 1.
    """
    widths = list(getattr(settings, name))
    if not all(isinstance(width, int) and not isinstance(width, bool) and width >= 1 for width in widths):
        raise UsageError(f"policy.{name} must be a list of whole numbers of at least 1, got {widths}")


def check_schedule(shape: str) -> None:
    """Raises UsageError: there is no such shape of the learning rate."""
    if shape not in SHAPES:
        raise unknown_name("policy.schedule", str(shape), SHAPES)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
