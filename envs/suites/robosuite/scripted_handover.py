"""Script for TwoArmHandover: one arm takes the hammer near its head, the other by the end of its handle."""

from __future__ import annotations

from functools import partial

import numpy as np

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Pose, Scene, Steps, above, hold, move
from embodied.envs.suites.robosuite.scripted_blocks import grasp
from embodied.envs.suites.robosuite.scripted_pair import both, facing, shortest

_MEETING = np.array([0.0, 0.0, 1.12])  # metres: half way between the robots
_FROM_END = 0.03  # metres of the handle, at either of its ends, that lie under a hand
_BEFORE, _NEARER = 0.15, 0.075  # metres from the handle at which the second hand waits, and from which it goes straight
_APART = 0.1  # metres by which the first hand draws back
_OVER, _RAISED = 0.16, 0.25  # metres: above the edge of a bin that the hammer lies in, before and after
_LOST, _THERE = 0.08, 0.03  # metres from the place to hold: farther a hand has lost the handle, nearer it has it
_TRIES = 3
_PACE = 0.6


def hand_over(first: Scene, second: Scene) -> Steps:
    """Take the hammer and hand it over."""
    if not (yield from both((first, second), take(first, "hammer"), wait(second))):
        return False
    return (yield from exchange(first, second, "hammer"))


def take(arm: Scene, name: str) -> Steps:
    """Grasp a hammer from above and bring it to where the hands meet."""
    across = np.cross(arm.rotation(f"{name}_root")[:, 2], (0.0, 0.0, 1.0))
    if not (yield from grasp(arm, lambda: _grip(arm, name, 1), arm.closing(across), over=_OVER)):
        return False
    top, down = above(arm.hand, _RAISED), arm.hand_rotation
    yield from move(arm, lambda: (top, down), CLOSED, within=0.03, turned=0.5, pace=_PACE)
    yield from _meet(arm)
    return _holds(arm, name)


def _meet(arm: Scene) -> Steps:
    """Hold out what was taken."""
    forward = facing(arm)
    return (yield from move(arm, lambda: (_MEETING, forward), CLOSED, within=0.02, turned=0.15, steps=150, pace=_PACE))


def wait(arm: Scene) -> Steps:
    """Come to where the other hand will be met."""
    rotation = facing(arm)
    place = _MEETING - _BEFORE * rotation[:, 2]
    return (yield from move(arm, lambda: (place, rotation), OPEN, within=0.03, turned=0.2, steps=120, pace=_PACE))


def exchange(first: Scene, second: Scene, name: str) -> Steps:
    """From `take` and `wait` on: the hands meet from either side of the handle, which lies across between them.

    At a right angle to each other, so each closes on two of the four sides of the handle.
    """
    arms = first, second
    for _ in range(_TRIES):
        reached = yield from both(arms, hold(first, first.hand_rotation, CLOSED, 1), _reach(second, name))
        if not _holds(first, name):
            return False
        if reached:
            return (yield from both(arms, _withdraw(first), hold(second, second.hand_rotation, CLOSED, 20)))
        yield from both(arms, _meet(first), _withdraw(second))
    return False


def _reach(arm: Scene, name: str) -> Steps:
    """For the end of the handle, from in front of it."""

    def across() -> np.ndarray:
        """The hand's rotation [3, 3]: the handle may have turned between the other hand's fingers."""
        straight, handle = facing(arm), arm.simulation.data.geom(f"{name}_handle").xmat.reshape(3, 3)[:, 2]
        return shortest(straight[:, 1], handle * np.sign(handle @ straight[:, 1])) @ straight

    def before(gap: float) -> Pose:
        rotation = across()
        return _grip(arm, name, -1) - gap * rotation[:, 2], rotation

    # To the side first: straight from where it waits it would run into the other hand, broader than `_NEARER`.
    for gap, within in ((_BEFORE, 0.03), (_NEARER, 0.015)):
        if not (yield from move(arm, partial(before, gap), OPEN, within=within)):
            return False
    yield from move(arm, partial(before, 0.0), OPEN, within=0.012, steps=40, pace=_PACE)
    yield from hold(arm, arm.hand_rotation, CLOSED, 10)
    return bool(np.linalg.norm(_grip(arm, name, -1) - arm.hand) < _THERE)


def _withdraw(arm: Scene) -> Steps:
    rotation = arm.hand_rotation
    back = arm.hand - _APART * rotation[:, 2]
    yield from hold(arm, rotation, OPEN, 5)
    return (yield from move(arm, lambda: (back, rotation), OPEN, within=0.03, turned=0.5))


def _grip(arm: Scene, name: str, end: int) -> np.ndarray:
    """The point [3] of the handle that is held at its end by the head, 1, or at the other, -1."""
    handle = arm.simulation.data.geom(f"{name}_handle")
    half = arm.simulation.model.geom(f"{name}_handle").size[2]
    return np.asarray(handle.xpos + end * (half - _FROM_END) * handle.xmat.reshape(3, 3)[:, 2])


def _holds(arm: Scene, name: str) -> bool:
    return bool(np.linalg.norm(_grip(arm, name, 1) - arm.hand) < _LOST)
