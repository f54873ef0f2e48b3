"""Script for Door: grasp the handle from the front, press it down, pull the door by it."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Scene, Steps, hold, move

_PRESSED = 1.1  # radians of the handle at which the latch is out of the frame
_LEAD = 0.3  # radians by which the goal is ahead of the handle, on its circle
_LOST = 0.06  # metres between hand and handle


def open_door(scene: Scene) -> Steps:
    """Until it stands open, unless the handle slips out of the hand."""
    for distance, within in ((0.12, 0.02), (0.0, 0.012)):
        if not (
            yield from move(
                scene,
                lambda: (scene.site("Door_handle") - distance * _inwards(scene), _grip(scene)),  # noqa: B023
                OPEN,
                within=within,
            )
        ):
            return False
    yield from hold(scene, _grip(scene), CLOSED, 10)
    for _ in range(60):
        if scene.joint("Door_latch_joint") > _PRESSED or _lost(scene):
            break
        yield _turned(scene, scene.position("Door_latch"), _inwards(scene))
    for _ in range(80):
        if _lost(scene):
            return False
        yield _turned(scene, scene.anchor("Door_hinge"), np.array([0.0, 0.0, 1.0]))
    return True


def _turned(scene: Scene, centre: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The action that leads the handle along its circle about an axis."""
    handle, turn = scene.site("Door_handle"), Rotation.from_rotvec(_LEAD * axis)
    goal = centre + turn.apply(handle - centre)
    return scene.towards(scene.hand + (goal - handle), turn.as_matrix() @ _grip(scene), CLOSED)


def _grip(scene: Scene) -> np.ndarray:
    """The rotation [3, 3] of a hand that points into the door and whose fingers are above and below the handle."""
    x, z = -scene.rotation("Door_latch")[:, 2], _inwards(scene)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _inwards(scene: Scene) -> np.ndarray:
    """The direction, [3], of the handle's axis, into the door; about it the handle turns down."""
    return scene.rotation("Door_latch")[:, 1]


def _lost(scene: Scene) -> bool:
    return bool(np.linalg.norm(scene.hand - scene.site("Door_handle")) > _LOST)
