"""Scripts for tasks of two arms: TwoArmLift, TwoArmPegInHole, TwoArmHandover."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import CLOSED, OPEN, Scene, Steps, above, downward, hold, move
from embodied.envs.suites.robosuite.scripted_blocks import grasp

_CRAWL = 0.3  # share of the full pace at which two hands move the same thing
_HOLE = np.array([0.1, 0.0, 0.0])  # metres: its middle in the plate's frame
_CLEAR, _THROUGH = 0.2, 0.06  # metres from the hole's middle to the peg's, whose half length is 0.13
_RAISED = 0.16  # metres that the pot is raised


def both(arms: tuple[Scene, Scene], first: Steps, second: Steps) -> Steps:
    """Run a script per arm side by side; one that is done stays where it is. Unsuccessful as soon as one of them is."""
    scripts = [first, second]
    done: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    grips = [[OPEN], [OPEN]]
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
    """Bring the peg in line with the hole, at a distance, and push it through; the plate is held still meanwhile."""
    plate = second.hand, second.hand_rotation
    for gap, within in ((_CLEAR, 0.02), (_THROUGH, 0.02)):
        for _ in range(100):
            position, rotation = _peg_pose(first, gap)
            distance, angle = first.misses(position, rotation)
            if distance < within and angle < 0.1:
                break
            yield np.concatenate([first.towards(position, rotation), second.towards(*plate)])
        else:
            return False
    return True


def _peg_pose(arm: Scene, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Of the hand, so that the peg points along the hole's axis, its middle `gap` metres before the hole's."""
    peg, hole = arm.rotation("peg_main")[:, 2], arm.rotation("hole_main")
    out = hole[:, 2] * np.sign(hole[:, 2] @ (arm.position(arm.base) - arm.position("hole_main")))
    turn = _shortest(peg, -out)
    middle = arm.position("hole_main") + hole @ _HOLE + gap * out
    return middle + turn @ (arm.hand - arm.position("peg_main")), turn @ arm.hand_rotation


def _shortest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The least rotation [3, 3] from one unit vector to another, which is not its opposite."""
    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    return Rotation.from_rotvec(axis * (angle / max(float(np.linalg.norm(axis)), 1e-9))).as_matrix()
