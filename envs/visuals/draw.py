"""From the options `visuals`, `shift` and `shift_strength` to the look of each episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.rendering import Appearance
from embodied.envs.simulation import Simulation

VISUALS = {"static": "the same look in every episode", "varied": "every episode draws its own look"}
SHIFTS: dict[str, str] = {}


class Visuals(Protocol):
    """Draws the look of an episode."""

    def draw(self, seed: int, simulation: Simulation, cameras: Sequence[str]) -> Appearance:
        """The look of the episode of that seed, for these cameras; the same seed, the same look."""
        ...


def make_visuals(*, visuals: str, shift: str | None, strength: int) -> Visuals | None:
    """What draws the looks; None where every episode has the task's own.

    Raises:
        UsageError: a name is unknown, or the strength not in 1 to 5.
    """
    if visuals not in VISUALS:
        raise unknown_name("visuals", visuals, VISUALS)
    if strength not in range(1, 6):
        raise UsageError(f"shift_strength must be 1 to 5, got {strength!r}")
    if visuals == "static" and shift is None:
        return None
    raise unknown_name("shift", str(shift), SHIFTS)
