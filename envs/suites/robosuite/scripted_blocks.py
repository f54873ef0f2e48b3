"""Scripts for tasks in which things are grasped from above, carried and let go: Lift, Stack, PickPlace, NutAssembly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embodied.envs.suites.robosuite.scripted import (
    CLOSED,
    OPEN,
    Scene,
    Steps,
    above,
    downward,
    hold,
    move,
    nearest_to_y,
)

_LOST = 0.05  # metres that a held thing may slip before the script begins again
_STOPPED_SHORT = 0.03  # metres from the place, when the palm meets a wall, at which the fingers still reach
# Where the hand passes between two things: on the straight way the arm would stretch and the wrist turn till they stop.
_BETWEEN = np.array([-0.05, -0.1, 1.05])
# Angle of the elbow, rad, at which the Panda is longest. Pulled back from beyond, it bends the wrong way, to its limit,
# and stays there.
_STRAIGHT = -0.47


def lift(scene: Scene) -> Steps:
    """Grasp the cube and raise it."""
    axes = scene.rotation("cube_main").T
    if not (yield from grasp(scene, lambda: scene.position("cube_main"), nearest_to_y(*axes))):
        return False
    return (yield from carry(scene, "cube_main", above(scene.position("cube_main"), 0.1)))


def stack(scene: Scene) -> Steps:
    """Put the red cube on the green one."""
    red, green = "cubeA_main", "cubeB_main"
    axes = scene.rotation(red).T
    if not (yield from grasp(scene, lambda: scene.position(red), nearest_to_y(*axes))):
        return False
    height = 0.02 + 0.025  # half of either cube
    for gap, within in ((0.08, 0.02), (0.004, 0.006)):
        if not (yield from carry(scene, red, above(scene.position(green), height + gap), within=within)):
            return False
    return (yield from let_go(scene))


def grasp(scene: Scene, place: Callable[[], np.ndarray], closing: np.ndarray, *, over: float = 0.08) -> Steps:
    """Open, go above a place, down to it, and close.

    Args:
        scene: where.
        place: where the fingers close.
        closing: the horizontal direction of the hand's x axis, along which they do.
        over: height above it from which the hand goes down.
    """
    rotation = downward(closing)
    if not (yield from move(scene, lambda: (above(place(), over), rotation), OPEN, within=0.01)):
        return False
    arrived = yield from move(scene, lambda: (place(), rotation), OPEN, within=0.01, steps=25)
    if not arrived and scene.misses(place(), rotation)[0] > _STOPPED_SHORT:
        return False
    return (yield from hold(scene, rotation, CLOSED, 10))


def carry(scene: Scene, body: str, goal: np.ndarray, *, within: float = 0.015, steps: int = 80) -> Steps:
    """Bring what is held to a place, without turning it; unsuccessful when it slips out of the hand."""
    rotation, grip = downward(scene.hand_rotation[:, 0]), scene.position(body) - scene.hand

    def slipped() -> bool:
        return bool(np.linalg.norm(scene.position(body) - scene.hand - grip) > _LOST)

    for _ in range(steps):
        way = goal - scene.position(body)
        if np.linalg.norm(way) < within:
            return True
        if slipped():
            return False
        yield scene.towards(scene.hand + way, rotation, CLOSED)
    return False


def let_go(scene: Scene, *, up: float = 0.1, pace: float = 1.0) -> Steps:
    """Open the hand and raise it."""
    rotation = downward(scene.hand_rotation[:, 0])
    yield from hold(scene, rotation, OPEN, 4)
    top = above(scene.hand, up)
    yield from move(scene, lambda: (top, rotation), OPEN, within=0.03, turned=1.0, steps=20, pace=pace)
    return True


def step_back(scene: Scene) -> Steps:
    """Come near the robot, with the wrist about as in its first pose."""
    rotation = downward(np.array([0.0, 1.0, 0.0]))
    for _ in range(2):
        yield from _bend(scene)
        if (yield from move(scene, lambda: (_BETWEEN, rotation), OPEN, within=0.08, turned=0.5, steps=120, pace=0.4)):
            return True
    return False


def _bend(scene: Scene) -> Steps:
    """Stretch an arm that is past straight, from where the elbow bends the right way again."""
    way = scene.hand - scene.position(scene.base)
    away = np.array([way[0], way[1], 0.0]) * (0.1 / np.linalg.norm(way[:2]))
    for _ in range(20):
        if scene.joint("robot0_joint4") < _STRAIGHT:
            return True
        yield scene.towards(scene.hand + away, scene.hand_rotation, OPEN)
    return False
