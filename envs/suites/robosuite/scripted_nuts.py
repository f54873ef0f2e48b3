"""Scripts for the NutAssembly tasks: hold a nut by its handle, turn it to fit its peg, and thread it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import atan2, cos, hypot, pi, sin

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import CLOSED, Scene, Steps, downward
from embodied.envs.suites.robosuite.scripted_blocks import grasp, let_go, step_back
from embodied.envs.suites.robosuite.tasks import NUTS

_PEGS = {"SquareNut": "peg1", "RoundNut": "peg2"}
_PEG_TOP = 0.95  # metres
_LEAST, _MOST = -2.0, 3.4  # radians by which the wrist can be turned from the robot's first pose
_AT_ONCE = 2.9  # radians by which the hand can be turned with certainty of the way round
# Ways to turn a nut that fits its peg; of the round one's, as many as are worth a thought.
_FITS = {"SquareNut": 4, "RoundNut": 24}
_HANDLE = 0.06  # metres from a nut's middle to its handle
_NEAR = 0.75  # metres from the robot's base where the arm is not stretched yet
_FAR = 100.0  # radians of turning that are better than a metre more


def thread_nut(name: str) -> Callable[[Scene], Steps]:
    """The script that brings one nut onto its peg."""

    def script(scene: Scene) -> Steps:
        return (yield from _thread(scene, name))

    return script


def thread_nuts(scene: Scene) -> Steps:
    """Bring both onto their pegs, one after the other."""
    for name in NUTS:
        if not _threaded(scene, name):
            yield from step_back(scene)
            yield from _thread(scene, name)
    return all(_threaded(scene, name) for name in NUTS)


def _thread(scene: Scene, name: str) -> Steps:
    body, handle = f"{name}_main", f"{name}_handle_site"
    peg = scene.position(_PEGS[name])
    closing, turn = plan_turn(name, scene.rotation(body)[:, 0], peg - scene.position("robot0_base"))
    if not (yield from grasp(scene, lambda: scene.site(handle), closing)):
        return False
    start = _yaw(scene.rotation(body)[:, 0])
    yaw = start + turn
    if name == "SquareNut":
        yaw = round(yaw / (pi / 2)) * pi / 2  # it turned a little when the fingers closed
    here = scene.position(body)
    # Half of the turn at first: a whole one may be more than half way round, and would go the other way.
    for goal, angle, within, turned in (
        ((*here[:2], _PEG_TOP + 0.1), (start + yaw) / 2, 0.03, 0.5),
        ((*peg[:2], _PEG_TOP + 0.1), yaw, 0.015, 0.1),
        ((*peg[:2], _PEG_TOP + 0.03), yaw, 0.006, 0.06),
        ((*peg[:2], _PEG_TOP - 0.02), yaw, 0.012, 0.5),
    ):
        if not (yield from _bring(scene, name, np.array(goal), angle, within=within, turned=turned)):
            return False
    return (yield from let_go(scene))


def plan_turn(name: str, handle: np.ndarray, peg: np.ndarray) -> tuple[np.ndarray, float]:
    """Along which direction [3] to close, and by how much to turn the nut then.

    For the least turn of the wrist, with the handle, and so the hand, not at the far side of the peg, where the arm
    would have to be all but straight: from there it does not come back.

    Args:
        name: of the nut.
        handle: the direction from its middle to its handle, [3].
        peg: where it goes as seen from the base of the robot, metres, [3].
    """
    yaw, steps = _yaw(handle), _FITS[name]
    across = np.array([-handle[1], handle[0], 0.0])
    plans = []
    for axis, step in product((across, -across), range(-steps, steps + 1)):
        fit = 2 * pi * step / steps  # of the nut on the peg
        wrist, turn = _difference(_yaw(axis), pi / 2), fit - yaw
        if _LEAST < wrist < _AT_ONCE and _LEAST < wrist + turn < _MOST:
            reach = hypot(peg[0] + _HANDLE * cos(fit), peg[1] + _HANDLE * sin(fit))
            plans.append((abs(turn) + 0.3 * abs(wrist) + _FAR * max(0.0, reach - _NEAR), turn, axis))
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
