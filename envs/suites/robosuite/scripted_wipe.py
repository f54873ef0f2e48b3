"""Script for Wipe: press the sponge on the table and take it along the dirt."""

from __future__ import annotations

import numpy as np

from embodied.envs.suites.robosuite.scripted import Scene, Steps, downward, move

_TABLE = 0.9  # height of its top, metres
_PRESS = 0.008  # metres by which the goal is below the table: the controller turns them into a force
_ROTATION = downward(np.array([0.0, 1.0, 0.0]))


def wipe(scene: Scene) -> Steps:
    """Always to the nearest dirt that is left, until none is."""
    first = _nearest(scene)
    yield from move(scene, lambda: (np.array([*first, _TABLE + 0.06]), _ROTATION), None, within=0.02)
    yield from move(scene, lambda: (np.array([*first, _TABLE]), _ROTATION), None, within=0.01, steps=20)
    while len(scene.dirt):
        yield scene.towards(np.array([*_nearest(scene), _TABLE - _PRESS]), _ROTATION, None)
    return True


def _nearest(scene: Scene) -> np.ndarray:
    """Position [2] of the dirt that is nearest to the sponge."""
    dirt = scene.dirt
    return dirt[np.linalg.norm(dirt - scene.hand[:2], axis=1).argmin()]
