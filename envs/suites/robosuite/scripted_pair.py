"""Scripts for two arms: how they move side by side; TwoArmLift and TwoArmPegInHole."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Scene, Steps, above, move
from embodied.envs.suites.robosuite.scripted_blocks import grasp

_BRISK, _CRAWL = 0.6, 0.3  # shares of the full pace for a long way, and for two hands that move the same thing
_HOLE = np.array([0.1, 0.0, 0.0])  # metres: its middle in the plate's frame
_HOLE_PLACE = np.array([0.0, 0.04, 1.05])  # metres: where the plate is held
_CLEAR, _THROUGH = 0.17, 0.06  # metres from the hole's middle to the peg's, whose half length is 0.13
_EITHER = 1e-3  # decides where a hand would have to turn as far either way
_RAISED = 0.16  # metres that the pot is raised


def both(arms: tuple[Scene, Scene], first: Steps, second: Steps) -> Steps:
    """Run a script per arm side by side; one that is done stays where it is. Unsuccessful as soon as one of them is."""
    scripts = [first, second]
    done: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    grips = [[OPEN] if arm.simulation.spec.gripper else [] for arm in arms]
    while True:
        parts = []
        for number, (arm, script) in enumerate(zip(arms, scripts, strict=True)):
            if number not in done:
                try:
                    action = next(script)
                except StopIteration as end:
                    if not end.value:
                        return False
                    done[number] = arm.hand, arm.hand_rotation
                else:
                    grips[number] = [float(grip) for grip in action[6:]]
            if number in done:
                action = arm.towards(*done[number], *grips[number])
            parts.append(action)
        if len(done) == len(arms):
            return True
        yield np.concatenate(parts)


def lift_pot(first: Scene, second: Scene) -> Steps:
    """Grasp both handles and raise them at the same pace."""
    arms = first, second
    if not (yield from both(arms, _grasp_handle(first, "pot_handle0"), _grasp_handle(second, "pot_handle1"))):
        return False
    return (yield from both(arms, _raise(first), _raise(second)))


def _grasp_handle(arm: Scene, handle: str) -> Steps:
    outwards = arm.rotation("pot_root")[:, 1]
    return (yield from grasp(arm, lambda: arm.site(handle), arm.closing(outwards)))


def _raise(arm: Scene) -> Steps:
    top, rotation = above(arm.hand, _RAISED), arm.hand_rotation
    return (yield from move(arm, lambda: (top, rotation), CLOSED, within=0.02, turned=0.5, pace=_CRAWL))


def insert_peg(first: Scene, second: Scene) -> Steps:
    """Turn the plate to the peg, bring the peg in line with the hole, and push it through.

    The library says success, and an episode ends, when the peg's tip is within a centimetre of the hole.
    """
    towards, plate = facing(first), facing(second)
    clear = _HOLE_PLACE - (_CLEAR + np.linalg.norm(first.position("peg_main") - first.hand)) * towards[:, 2]
    behind = _HOLE_PLACE - np.linalg.norm(_hole(second) - second.hand) * plate[:, 2]
    ahead, plate_ahead = _go(first, clear, towards), _go(second, behind, plate)
    if not (yield from both((first, second), ahead, plate_ahead)):
        return False
    holding = second.hand
    for _ in range(100):
        position, rotation = _peg_pose(first)
        if first.misses(position, rotation)[0] < 0.02:
            return True
        yield np.concatenate([first.towards(position, rotation, pace=_BRISK), second.towards(holding, plate)])
    return False


def _go(arm: Scene, place: np.ndarray, rotation: np.ndarray) -> Steps:
    goal = place, rotation
    return (yield from move(arm, lambda: goal, None, within=0.03, turned=0.15, steps=120, pace=_BRISK))


def _hole(arm: Scene) -> np.ndarray:
    """The middle of the hole, [3]."""
    return arm.position("hole_main") + arm.rotation("hole_main") @ _HOLE


def _peg_pose(arm: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Of the hand, so that the peg lies along the hole's axis, its middle a little before the hole's."""
    normal = arm.rotation("hole_main")[:, 2]
    out = normal * np.sign(normal @ (arm.hand - _hole(arm)))
    turn = shortest(arm.rotation("peg_main")[:, 2], -out)
    return _hole(arm) + _THROUGH * out + turn @ (arm.hand - arm.position("peg_main")), turn @ arm.hand_rotation


def shortest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The least rotation [3, 3] from one unit vector to another, which is not its opposite."""
    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    return Rotation.from_rotvec(axis * (angle / max(float(np.linalg.norm(axis)), 1e-9))).as_matrix()


def facing(arm: Scene) -> np.ndarray:
    """The rotation [3, 3] of a hand that points half down and half away from its base, turned as little as can be.

    What it holds lies across then, and the hands of two arms that face each other are at a right angle.
    """
    base = arm.rotation(arm.base)
    y, z = base[:, 1] * np.sign(base[:, 1] @ arm.hand_rotation[:, 1] + _EITHER), (base[:, 0] - base[:, 2]) / np.sqrt(2)
    return np.stack([np.cross(y, z), y, z], axis=1)
