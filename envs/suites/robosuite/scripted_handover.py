"""Script for TwoArmHandover: one arm takes the hammer near its head, the other by the end of its handle."""

from __future__ import annotations

import numpy as np

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Pose, Scene, Steps, above, hold, move
from embodied.envs.suites.robosuite.scripted_blocks import grasp
from embodied.envs.suites.robosuite.scripted_pair import both

_MEETING = np.array([0.0, 0.0, 1.42])  # metres: half way between the robots; lower, the wrists would have to bend more
_FROM_END = 0.03  # metres of the handle, at either of its ends, that lie under a hand
_BEFORE = 0.15  # metres from the handle at which the second hand waits
_APART = 0.1  # metres by which the first hand draws back
_LOST = 0.08  # metres between hand and handle
_PACE = 0.6


def hand_over(first: Scene, second: Scene) -> Steps:
    """Both hands point at each other when they meet, and the handle lies across between them."""
    arms = first, second
    waiting = _facing(second)
    ready = _MEETING - _BEFORE * waiting[:, 2]
    wait = move(second, lambda: (ready, waiting), OPEN, within=0.03, turned=0.2, steps=120, pace=_PACE)
    if not (yield from both(arms, _take(first), wait)):
        return False
    if not (yield from both(arms, _keep(first), _reach(second, waiting))):
        return False
    if np.linalg.norm(_grip(first, 1) - first.hand) > _LOST:
        return False
    return (yield from both(arms, _withdraw(first), hold(second, waiting, CLOSED, 20)))


def _take(arm: Scene) -> Steps:
    """From the table, and up to where the hands meet."""
    across = np.cross(arm.rotation("hammer_root")[:, 2], (0.0, 0.0, 1.0))
    if not (yield from grasp(arm, lambda: _grip(arm, 1), arm.closing(across))):
        return False
    top, down = above(arm.hand, 0.15), arm.hand_rotation
    yield from move(arm, lambda: (top, down), CLOSED, within=0.03, turned=0.5, pace=_PACE)
    forward = _facing(arm)
    yield from move(arm, lambda: (_MEETING, forward), CLOSED, within=0.02, turned=0.15, steps=150, pace=_PACE)
    return bool(np.linalg.norm(_grip(arm, 1) - arm.hand) < _LOST)


def _keep(arm: Scene) -> Steps:
    return (yield from hold(arm, arm.hand_rotation, CLOSED, 1))


def _reach(arm: Scene, rotation: np.ndarray) -> Steps:
    """For the end of the handle, from in front of it."""

    def before() -> Pose:
        return _grip(arm, -1) - _BEFORE / 2 * rotation[:, 2], rotation

    if not (yield from move(arm, before, OPEN, within=0.015, steps=100)):
        return False
    if not (yield from move(arm, lambda: (_grip(arm, -1), rotation), OPEN, within=0.012, pace=_PACE)):
        return False
    return (yield from hold(arm, rotation, CLOSED, 10))


def _withdraw(arm: Scene) -> Steps:
    rotation = arm.hand_rotation
    back = arm.hand - _APART * rotation[:, 2]
    yield from hold(arm, rotation, OPEN, 5)
    return (yield from move(arm, lambda: (back, rotation), OPEN, within=0.03, turned=0.5))


def _grip(arm: Scene, end: int) -> np.ndarray:
    """The point [3] of the handle that is held at its end by the head, 1, or at the other, -1."""
    handle = arm.simulation.data.geom("hammer_handle")
    half = arm.simulation.library.hammer.handle_length / 2
    return np.asarray(handle.xpos + end * (half - _FROM_END) * handle.xmat.reshape(3, 3)[:, 2])


def _facing(arm: Scene) -> np.ndarray:
    """The rotation [3, 3] of a hand that points away from its base and closes up and down, turned as little as can be.

    What it holds lies across then. (Upright, the library would now and then take the arc cosine of more than 1.)
    """
    base = arm.rotation(arm.base)
    y, z = base[:, 1] * np.sign(base[:, 1] @ arm.hand_rotation[:, 1] + 1e-9), base[:, 0]
    return np.stack([np.cross(y, z), y, z], axis=1)
