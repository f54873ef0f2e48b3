"""Colours and textures of the table, the objects and the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.visuals.patterns import draw_colour, draw_texture

if TYPE_CHECKING:
    from embodied.envs.visuals.look import Draft

TABLE, OBJECTS, ROBOT = 0.2, 0.15, 0.15  # the share of the new look, per strength
_SIDE = 128  # pixels
_GROUPS = 6  # looks at most for the geoms of one part; a scene may have dozens of materials


def shift_table(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """The surface that carries the task, and furniture, in other colours and patterns."""
    cover(draft, draft.parts.table, rng, amount=TABLE * strength, contrast=0.8)


def shift_objects(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """What the task is about, and what stands around, in other colours; the robot, where there is nothing else."""
    geoms = draft.parts.objects
    tint(draft, geoms if len(geoms) else draft.parts.robot, rng, amount=OBJECTS * strength)


def shift_robot(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """The robot in another colour."""
    tint(draft, draft.parts.robot, rng, amount=ROBOT * strength)


def cover(draft: Draft, geoms: np.ndarray, rng: np.random.Generator, *, amount: float, contrast: float) -> None:
    """Mix each material's look with a picture of its own.

    Args:
        draft: of a look.
        geoms: numbers, int64 [N].
        rng: draws the pictures, and the same number of times whatever the amount.
        amount: in [0, 1]; the share of the new look.
        contrast: in [0, 1]; of the pictures.
    """
    for number, group in enumerate(_by_material(draft, geoms)):
        if number < _GROUPS:
            picture = draw_texture(rng, _SIDE, contrast=contrast)
        draft.cover(group, amount=amount, picture=picture)


def tint(draft: Draft, geoms: np.ndarray, rng: np.random.Generator, *, amount: float) -> None:
    """Mix each material's look with a colour of its own; arguments as of `cover`."""
    for number, group in enumerate(_by_material(draft, geoms)):
        if number < _GROUPS:
            colour = draw_colour(rng)
        draft.cover(group, amount=amount, colour=colour)


def _by_material(draft: Draft, geoms: np.ndarray) -> list[np.ndarray]:
    """The geoms that share material and colour together, in the order of the model."""
    model = draft.simulation.model
    groups: dict[tuple[float, ...], list[int]] = {}
    for geom in geoms:
        key = (float(model.geom_matid[geom]), *model.geom_rgba[geom].tolist())
        groups.setdefault(key, []).append(int(geom))
    return [np.array(group) for group in groups.values()]
