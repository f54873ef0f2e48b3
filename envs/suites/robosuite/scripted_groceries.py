"""Scripts for the PickPlace tasks: from the left bin over the wall into the right quarter of the right bin."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embodied.envs.suites.robosuite.scripted import STEEP, Scene, Steps, above, nearest_to_y
from embodied.envs.suites.robosuite.scripted_blocks import carry, grasp, let_go, step_back
from embodied.envs.suites.robosuite.tasks import GROCERIES

_FLOOR, _WALL = 0.82, 0.9  # heights in the bins, metres


class _Grocery(NamedTuple):
    """What has to be known to grasp one. Metres.

    below, top: from its origin down to its bottom and up to its top. grip: up to where it is held; at most 4 cm below
    the top, where the palm meets it. sides: which of its axes the fingers may close along. beside: from the middle of
    its quarter to where it is put: the far ones are at the end of the arm's reach.
    """

    below: float
    top: float
    grip: float
    sides: tuple[int, ...] = (0, 1)
    beside: tuple[float, float] = (0.0, 0.0)


_SHAPES = {
    "Milk": _Grocery(below=0.061, top=0.083, grip=0.055),
    "Bread": _Grocery(below=0.023, top=0.025, grip=0.0, beside=(-0.04, -0.03)),
    "Cereal": _Grocery(below=0.075, top=0.075, grip=0.045, sides=(1,)),
    "Can": _Grocery(below=0.04, top=0.04, grip=0.01, beside=(-0.053, -0.078)),
}
_TALLEST_FIRST = ("Cereal", "Milk", "Can", "Bread")  # an open hand that reaches for the bread would tip the others over


def place_grocery(name: str) -> Callable[[Scene], Steps]:
    """The script that brings one of them home."""

    def script(scene: Scene) -> Steps:
        return (yield from _place(scene, name))

    return script


def place_groceries(scene: Scene) -> Steps:
    """Bring them home one after the other."""
    for name in _TALLEST_FIRST:
        if not _at_home(scene, name):
            yield from step_back(scene)
            yield from _place(scene, name)
    return all(_at_home(scene, name) for name in GROCERIES)


def _place(scene: Scene, name: str) -> Steps:
    body, shape = f"{name}_main", _SHAPES[name]
    axes = scene.rotation(body).T
    sides = [axes[side] for side in shape.sides if abs(axes[side][2]) < STEEP]  # others point up or down: it has fallen
    if not sides:
        return False
    grip = shape.grip if axes[2][2] > STEEP else 0.0
    over = shape.top - grip + 0.05
    if not (yield from grasp(scene, lambda: above(scene.position(body), grip), nearest_to_y(*sides), over=over)):
        return False
    home = scene.simulation.library.target_bin_placements[GROCERIES.index(name), :2] + shape.beside
    high = _WALL + shape.below + 0.04
    low = max(_FLOOR + shape.below + 0.03, _WALL + 0.03 - shape.grip)  # the fingers open above the walls
    here = scene.position(body)
    for goal, within in (((*here[:2], high), 0.02), ((*home, high), 0.02), ((*home, low), 0.01)):
        if not (yield from carry(scene, body, np.array(goal), within=within, steps=120)):
            return False
    return (yield from let_go(scene, up=0.05, pace=0.4))


def _at_home(scene: Scene, name: str) -> bool:
    return not scene.simulation.library.not_in_bin(scene.position(f"{name}_main"), GROCERIES.index(name))
