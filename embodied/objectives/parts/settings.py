"""Settings that several methods have, checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from embodied.core.errors import UsageError


def pair(name: str, given: Sequence[float]) -> tuple[float, float]:
    """A setting that must be two numbers.

    Raises:
        UsageError: it is not.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise UsageError(f"{name} must be two numbers, got {given}")
    return float(given[0]), float(given[1])


def area_range(name: str, given: Sequence[float]) -> tuple[float, float]:
    """A setting that must be the least and the largest area of a crop, as shares of the image's.

    Raises:
        UsageError: it is not.
    """
    least, most = pair(name, given)
    if not 0 < least <= most <= 1:
        raise UsageError(f"{name} must be two shares of the image's area, 0 < least <= most <= 1, got {[least, most]}")
    return least, most


def share(name: str, value: float) -> float:
    """A setting that must be a share in (0, 1).

    Raises:
        UsageError: it is not.
    """
    if not 0 < value < 1:
        raise UsageError(f"{name} must be in (0, 1), got {value}")
    return value


def kept_share(name: str, mask_ratio: float, patches: int) -> float:
    """A share of removed patches that leaves at least one of so many.

    Raises:
        UsageError: it does not.
    """
    if int(patches * (1 - share(name, mask_ratio))) < 1:
        raise UsageError(f"{name} {mask_ratio} leaves none of {patches} patches: lower it, or take smaller patches")
    return mask_ratio


def block_sizes(mask_ratio: float, min_block: int | None, *, patches: int, reference: int) -> tuple[int, int]:
    """How many patches a method with BEiT's blocks hides at most, and a block at least.

    Args:
        mask_ratio: share of hidden patches.
        min_block: patches in a block; None: in proportion to `reference` of 14 x 14, the papers' grid.
        patches: in all.
        reference: the paper's.

    Raises:
        UsageError: nothing would be hidden, or no such block fits.
    """
    count = int(patches * share("mask_ratio", mask_ratio))
    if count < 1:
        raise UsageError(f"mask_ratio {mask_ratio} hides none of {patches} patches: raise it")
    smallest = min(count, scaled_block(patches, reference)) if min_block is None else min_block
    if not 1 <= smallest <= count:
        raise UsageError(f"min_block must be from 1 to the {count} patches that are hidden, got {smallest}")
    return count, smallest


def scaled_block(patches: int, reference: int) -> int:
    """The smallest block for a grid of `patches`, in proportion to `reference` patches on the papers' 14 x 14."""
    return max(1, round(reference * patches / 196))


def at_least(least: int, **sizes: int) -> None:
    """Settings that must be whole numbers from `least` on.

    Raises:
        UsageError: one is not.
    """
    if any(int(size) != size or size < least for size in sizes.values()):
        names, values = ([*each] for each in (sizes, map(str, sizes.values())))
        kind = "a whole number" if len(names) == 1 else "whole numbers"
        raise UsageError(f"{_and(names)} must be {kind} of at least {least}, got {_and(values)}")


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
