"""Scripts for the NutAssembly tasks: hold a nut by its handle, turn it to fit its peg, and thread it."""

from __future__ import annotations

from collections.abc import Callable
from math import atan2, pi

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import CLOSED, Scene, Steps, downward
from embodied.envs.suites.robosuite.scripted_blocks import grasp, let_go
from embodied.envs.suites.robosuite.tasks import NUTS

_PEGS = {"SquareNut": "peg1", "RoundNut": "peg2"}
_PEG_TOP = 0.95  # metres
_LEAST, _MOST = -1.9, 2.8  # radians by which the wrist can be turned from the robot's first pose
_SIDEWAYS = 1.8  # radians: the yaw of a round nut's handle that points just a little back to the robot


def thread_nut(name: str) -> Callable[[Scene], Steps]:
    """The script that brings one nut onto its peg."""

    def script(scene: Scene) -> Steps:
        return (yield from _thread(scene, name))

    return script


def thread_nuts(scene: Scene) -> Steps:
    """Bring both onto their pegs, one after the other."""
    for name in NUTS:
        if not _threaded(scene, name):
            yield from _thread(scene, name)
    return all(_threaded(scene, name) for name in NUTS)


def _thread(scene: Scene, name: str) -> Steps:
    body, handle = f"{name}_main", f"{name}_handle_site"
    closing, turn = plan_turn(name, scene.rotation(body)[:, 0])
    if not (yield from grasp(scene, lambda: scene.site(handle), closing)):
        return False
    yaw = _yaw(scene.rotation(body)[:, 0]) + turn
    if name == "SquareNut":
        yaw = round(yaw / (pi / 2)) * pi / 2  # it turned a little when the fingers closed
    here, peg = scene.position(body), scene.position(_PEGS[name])
    for goal, within, turned in (
        ((*here[:2], _PEG_TOP + 0.1), 0.03, 3.0),
        ((*peg[:2], _PEG_TOP + 0.1), 0.015, 0.1),
        ((*peg[:2], _PEG_TOP + 0.03), 0.006, 0.06),
        ((*peg[:2], _PEG_TOP - 0.02), 0.012, 0.5),
    ):
        if not (yield from _bring(scene, name, np.array(goal), yaw, within=within, turned=turned)):
            return False
    return (yield from let_go(scene))


def plan_turn(name: str, handle: np.ndarray) -> tuple[np.ndarray, float]:
    """Along which direction [3] to close, and by how much to turn the nut then, for the least turn of the wrist.

    On the peg the handle must not point away from the robot: the hand would have to be out of its reach.

    Args:
        name: of the nut.
        handle: the direction from its middle to its handle, [3].
    """
    yaw = _yaw(handle)
    if name == "SquareNut":
        turns = [_difference(wanted, yaw) for wanted in (pi / 2, pi, -pi / 2)]
    elif abs(yaw) > _SIDEWAYS:
        turns = [0.0]
    else:
        turns = [_difference(wanted, yaw) for wanted in (_SIDEWAYS, -_SIDEWAYS)]
    across = np.array([-handle[1], handle[0], 0.0])
    plans = [
        (abs(turn) + 0.3 * abs(wrist), turn, axis)
        for axis in (across, -across)
        if _LEAST < (wrist := _difference(_yaw(axis), pi / 2)) < _MOST
        for turn in turns
        if _LEAST < wrist + turn < _MOST
    ]
    _, turn, closing = min(plans, key=lambda plan: plan[0])
    return closing, turn


def _bring(scene: Scene, name: str, goal: np.ndarray, yaw: float, *, within: float, turned: float) -> Steps:
    """Bring the middle of the nut to a place and turn it about the vertical."""
    body, handle = f"{name}_main", f"{name}_handle_site"
    for _ in range(80):
        way = goal - scene.position(body)
        missing = _difference(yaw, _yaw(scene.rotation(body)[:, 0]))
        if np.linalg.norm(way) < within and abs(missing) < turned:
            return True
        if np.linalg.norm(scene.site(handle) - scene.hand) > 0.04:
            return False
        # The nut turns about the hand and its middle is moved by that; at the next step the way says how far.
        rotation = Rotation.from_euler("z", missing).as_matrix() @ downward(scene.hand_rotation[:, 0])
        yield scene.towards(scene.hand + way, rotation, CLOSED)
    return False


def _threaded(scene: Scene, name: str) -> bool:
    return bool(scene.simulation.library.on_peg(scene.position(f"{name}_main"), NUTS.index(name)))


def _yaw(axis: np.ndarray) -> float:
    return atan2(axis[1], axis[0])


def _difference(wanted: float, found: float) -> float:
    """From one angle to another, in (-pi, pi]."""
    return -((found - wanted + pi) % (2 * pi) - pi)
