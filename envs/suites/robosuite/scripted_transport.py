"""Script for TwoArmTransport: uncover the hammer, hand it over and lay it into the other bin, once that is empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Scene, Steps, above, hold, move
from embodied.envs.suites.robosuite.scripted_blocks import carry, grasp, let_go
from embodied.envs.suites.robosuite.scripted_handover import exchange, take, wait
from embodied.envs.suites.robosuite.scripted_pair import both

_LID, _TRASH, _HAMMER = "transport_start_bin_lid_root", "trash_main", "payload_root"
_BINS = {name: f"transport_{name}_bin_root" for name in ("start", "target", "trash")}
_OVER = 0.16  # metres by which a hand or thing is over a bin's middle, 8 cm under its edge, or over what lies in it
_ASIDE = np.array([-0.4, 0.0, 0.0])  # metres from the start bin to where its lid is laid
_COVERS = 0.2  # metres from a bin's middle within which its lid covers it
_LAID = 0.06  # metres over the target bin's middle at which the hammer is let go
_PACE = 0.6


def transport(first: Scene, second: Scene) -> Steps:
    """Leaves out what is done already, where it begins again."""
    arms, library = (first, second), first.simulation.library.transport
    opened = np.linalg.norm((first.position(_LID) - first.position(_BINS["start"]))[:2]) > _COVERS
    mine = [*([] if opened else [_uncover]), lambda arm: take(arm, "payload")]
    others = [*([] if library.trash_in_trash_bin else [_empty]), wait]
    if not (yield from both(arms, _in_turn(first, mine), _in_turn(second, others))):
        return False
    if not (yield from exchange(first, second, "payload")):
        return False
    return (yield from both(arms, hold(first, first.hand_rotation, OPEN, 1), _lay(second)))


def _in_turn(arm: Scene, parts: Sequence[Callable[[Scene], Steps]]) -> Steps:
    for part in parts:
        if not (yield from part(arm)):
            return False
    return True


def _uncover(arm: Scene) -> Steps:
    """Lay the lid beside the bin."""
    handle = arm.simulation.data.geom("transport_start_bin_lid_handle")
    if not (yield from grasp(arm, lambda: handle.xpos.copy(), arm.closing(arm.rotation(_LID)[:, 0]))):
        return False
    here = arm.position(_LID)
    low = above(here + _ASIDE, -0.13)
    for goal in (above(here, 0.1), above(here + _ASIDE, 0.1), low):
        if not (yield from carry(arm, _LID, goal, within=0.025)):
            return False
    return (yield from let_go(arm))


def _empty(arm: Scene) -> Steps:
    """Throw the cube into the trash bin."""
    closing = arm.closing(*arm.rotation(_TRASH).T)
    if not (yield from grasp(arm, lambda: arm.position(_TRASH), closing, over=_OVER)):
        return False
    for goal in (above(arm.position(_TRASH), _OVER), above(arm.position(_BINS["trash"]), _OVER)):
        if not (yield from carry(arm, _TRASH, goal, within=0.03)):
            return False
    return (yield from let_go(arm, up=0.05))


def _lay(arm: Scene) -> Steps:
    """Bring the hammer over the target bin, as it is held, and down into it."""
    rotation, lag = arm.hand_rotation, arm.hand - arm.position(_HAMMER)
    target = arm.position(_BINS["target"])
    for height, within, steps in ((2 * _OVER, 0.04, 150), (_LAID, 0.02, 40)):  # the palm may meet the wall before
        goal = above(target + lag, height)
        yield from move(arm, lambda: (goal, rotation), CLOSED, within=within, turned=0.3, steps=steps, pace=_PACE)  # noqa: B023
    return (yield from hold(arm, rotation, OPEN, 10))
