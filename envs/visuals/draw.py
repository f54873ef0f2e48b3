"""From the options `visuals`, `shift` and `shift_strength` to the look of each episode."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.rendering import Appearance
from embodied.envs.simulation import Simulation
from embodied.envs.visuals.background import shift_background
from embodied.envs.visuals.cameras import shift_camera
from embodied.envs.visuals.colours import shift_objects, shift_robot, shift_table
from embodied.envs.visuals.corruptions import CORRUPTIONS
from embodied.envs.visuals.distractors import shift_distractors
from embodied.envs.visuals.lighting import shift_light
from embodied.envs.visuals.look import Draft, Key, Look
from embodied.envs.visuals.surfaces import Surface
from embodied.envs.visuals.varied import Ranges, vary

VISUALS = {"static": "the same look in every episode", "varied": "every episode draws its own look"}
ALL = "all"

Shift = Callable[[Draft, np.random.Generator, int], None]


def _corrupt(name: str, draft: Draft, rng: np.random.Generator, strength: int) -> None:
    draft.filters.append((list(CORRUPTIONS).index(name), CORRUPTIONS[name](rng, strength)))


# Cameras come before distractors, which must be in view.
_SHIFTS: dict[str, tuple[str, Shift]] = {
    "light": ("from another side, darker or brighter, warmer or colder", shift_light),
    "camera": ("moved around what it looks at", shift_camera),
    "table": ("colours and patterns of the table and furniture", shift_table),
    "objects": ("colours of what the task is about", shift_objects),
    "robot": ("colours of the robot", shift_robot),
    "background": ("colours and patterns of floor and walls, a room around the scene", shift_background),
    "distractors": ("things on the table that do not belong to the task", shift_distractors),
    "occlusion": ("dirt on the lens", partial(_corrupt, "occlusion")),
    "blur": ("out of focus, or a streak", partial(_corrupt, "blur")),
    "exposure": ("too dark or too bright", partial(_corrupt, "exposure")),
    "noise": ("of a sensor: read-out and photons", partial(_corrupt, "noise")),
    "jpeg": ("strong compression", partial(_corrupt, "jpeg")),
}
SHIFTS: dict[str, str] = {name: text for name, (text, _) in _SHIFTS.items()}


class Visuals(Protocol):
    """Draws the look of an episode."""

    def draw(self, seed: int, simulation: Simulation, cameras: Sequence[str]) -> Appearance:
        """The look of the episode of that seed, for these cameras; the same seed, the same look."""
        ...


class Wardrobe:
    """Draws looks; implements `Visuals`.

    Args:
        shifts: names, applied in the order of `SHIFTS`.
        strength: 1 to 5, of each.
        ranges: of what every episode draws anew; None for the task's own look.
    """

    def __init__(self, *, shifts: Sequence[str] = (), strength: int = 3, ranges: Ranges | None = None) -> None:
        self._shifts = [(name, apply) for name, (_, apply) in _SHIFTS.items() if name in shifts]
        self._strength, self._ranges = strength, ranges
        self._model: Callable[[], Any] = lambda: None
        self._originals: dict[Key, Surface] = {}

    def draw(self, seed: int, simulation: Simulation, cameras: Sequence[str]) -> Look:
        """The look of the episode of that seed; a shift draws the same with others beside it and at any strength."""
        if self._model() is not simulation.model:
            self._model, self._originals = weakref.ref(simulation.model), {}
        draft = Draft(simulation, cameras, self._originals)
        if self._ranges is not None:
            vary(draft, _generator(seed, "varied"), self._ranges)
        for name, apply in self._shifts:
            apply(draft, _generator(seed, name), self._strength)
        return draft.finished()


def make_visuals(*, visuals: str, shift: str | None, strength: int, ranges: Ranges | None = None) -> Visuals | None:
    """What draws the looks; None where every episode has the task's own.

    Args:
        visuals: `static` or `varied`.
        shift: names of `SHIFTS` joined with `+`, or `all` of them; None: none. On top of what varies.
        strength: 1 to 5.
        ranges: of `varied`; None: the default ones.

    Raises:
        UsageError: a name is unknown, or the strength not in 1 to 5.
    """
    if visuals not in VISUALS:
        raise unknown_name("visuals", visuals, VISUALS)
    if isinstance(strength, bool) or strength not in range(1, 6):
        raise UsageError(f"shift_strength must be 1 to 5, got {strength!r}")
    names = _shift_names(shift)
    if visuals == "static" and not names:
        return None
    varied = (ranges or Ranges()) if visuals == "varied" else None
    return Wardrobe(shifts=names, strength=strength, ranges=varied)


def _shift_names(shift: str | None) -> list[str]:
    if shift is None:
        return []
    names = [name.strip() for name in str(shift).split("+")]
    for name in names:
        if name not in (*SHIFTS, ALL):
            raise unknown_name("shift", name, (*SHIFTS, ALL))
        if names.count(name) > 1:
            raise UsageError(f"shift: {name} is there twice in {shift!r}: name each shift once")
    return list(SHIFTS) if ALL in names else names


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(name.encode())])
