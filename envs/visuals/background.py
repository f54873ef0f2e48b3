"""Floor, walls, and what is behind everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.visuals.colours import cover
from embodied.envs.visuals.patterns import draw_texture
from embodied.envs.visuals.props import Prop
from embodied.envs.visuals.surfaces import Surface

if TYPE_CHECKING:
    from embodied.envs.visuals.look import Draft

AMOUNT = 0.2  # the share of the new look, per strength


def shift_background(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """Floor and walls in other colours and patterns, and a room around where there is nothing."""
    redecorate(draft, rng, amount=AMOUNT * strength, contrast=0.8)


def redecorate(draft: Draft, rng: np.random.Generator, *, amount: float, contrast: float) -> None:
    """As `colours.cover`; the room becomes visible by that amount."""
    cover(draft, draft.parts.background, rng, amount=amount, contrast=contrast)
    draft.room = room(rng, alpha=amount, contrast=contrast)


def room(rng: np.random.Generator, *, alpha: float, contrast: float) -> list[Prop]:
    """The six sides of a cube of half side 1 around the origin, walls alike; `alpha` in [0, 1], their opacity."""
    rgba = np.array([1, 1, 1, alpha], np.float32)
    wall, ceiling = (Surface(rgba=rgba, picture=draw_texture(rng, 128, contrast=contrast)) for _ in range(2))
    sides = []
    for axis in range(3):
        size = [1.0, 1.0, 1.0]
        size[axis] = 0.01
        for sign in (-1, 1):
            position = np.zeros(3)
            position[axis] = sign
            sides.append(
                Prop(
                    shape="mjGEOM_BOX",
                    size=(size[0], size[1], size[2]),
                    axes=np.eye(3),
                    surface=ceiling if axis == 2 else wall,
                    height=0.0,
                    position=position,
                )
            )
    return sides
