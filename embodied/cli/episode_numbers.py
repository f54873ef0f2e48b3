"""Which episodes a user means: `7`, `0:100`, `[0:10,15,-1]`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from omegaconf import ListConfig

from embodied.core.errors import UsageError

_NUMBER, _RANGE = re.compile(r"-?\d+"), re.compile(r"(-?\d*):(-?\d*)")


def episode_numbers(value: object, count: int, *, setting: str = "episodes") -> list[int]:
    """The numbers, ascending and each once.

    Args:
        value: a number, a range as Python slices have it, or several of these in a list or between commas.
        count: how many episodes there are; negative numbers count from the end.
        setting: where the value stands, for messages.

    Raises:
        UsageError: it is none of these, or names an episode that is not there.
    """
    parts = list(value) if isinstance(value, (list, tuple, ListConfig)) else str(value).strip("[] ").split(",")
    numbers = {number for part in parts for number in _numbers(str(part).strip(), count, setting)}
    if not numbers:
        raise UsageError(f"{setting}={value} names no episode: there are {count}, counted from 0")
    return sorted(numbers)


def _numbers(part: str, count: int, setting: str) -> Iterable[int]:
    if found := _RANGE.fullmatch(part):
        start, stop = (int(side) if side else None for side in found.groups())
        return range(count)[start:stop]
    if not _NUMBER.fullmatch(part):
        raise UsageError(f"{setting}: {part!r} is no episode number; write 7, 0:100 or '[0:10,15,-1]'")
    number = int(part)
    if not -count <= number < count:
        raise UsageError(f"{setting}: there is no episode {number}, only 0 to {count - 1}")
    return (number % count,)
