"""What the scripts for robosuite's tasks share: an arm that is led from pose to pose, and the expert that runs one.

A script is a generator of actions. It looks at the scene anew at each step, so noise on the actions does not carry it
away, and begins again when it loses what it holds. Units: metres and radians, world frame; rotations are matrices whose
columns are the axes of the gripper: x along which the fingers close, z where they point.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from embodied.envs.suites.robosuite.simulation import RobosuiteSimulation

OPEN, CLOSED = -1.0, 1.0
STEEP = 0.75  # sine of the angle above which an axis points up or down; of three axes at most one does
Steps = Generator[np.ndarray, None, bool]
Pose = tuple[np.ndarray, np.ndarray]
_REACH, _TURN = 0.05, 0.5  # what an action of 1 asks for, metres and radians
# Shares of an error that an action asks to close within its 50 ms; the controller achieves about a quarter of it.
_POSITION_GAIN, _ROTATION_GAIN = 2.0, 1.5


class Scene:
    """The privileged state of a simulation, and what one of its arms has to do to get somewhere.

    Args:
        simulation: after a reset.
        arm: its number.
    """

    def __init__(self, simulation: RobosuiteSimulation, arm: int = 0) -> None:
        self.simulation = simulation
        self._hand = simulation.hands[arm]
        self._bodies: dict[str, int] = {}
        self.base = f"robot{arm}_base"
        control = simulation.library.robots[arm].part_controllers["right"]
        # Columns: the axes along which the arm is told to move and turn.
        self._frame = np.eye(3) if control.input_ref_frame == "world" else self.rotation(self.base)

    def position(self, body: str) -> np.ndarray:
        """Of a body, [3]."""
        return self.simulation.data.xpos[self._number(body)].copy()

    def rotation(self, body: str) -> np.ndarray:
        """Of a body, [3, 3]."""
        return self.simulation.data.xmat[self._number(body)].reshape(3, 3).copy()

    def joint(self, name: str) -> float:
        """Angle or displacement of a joint."""
        return float(self.simulation.data.joint(name).qpos[0])

    def site(self, name: str) -> np.ndarray:
        """Position of a site, [3]."""
        return self.simulation.data.site(name).xpos.copy()

    def anchor(self, joint: str) -> np.ndarray:
        """A point on the axis of a hinge, [3]."""
        return self.simulation.data.joint(joint).xanchor.copy()

    def _number(self, body: str) -> int:
        if body not in self._bodies:
            self._bodies[body] = self.simulation.model.body(body).id
        return self._bodies[body]

    @property
    def hand(self) -> np.ndarray:
        """Where the point between the fingers is, [3]."""
        return self.simulation.data.site_xpos[self._hand.site].copy()

    @property
    def hand_rotation(self) -> np.ndarray:
        return self.simulation.data.site_xmat[self._hand.site].reshape(3, 3).copy()

    @property
    def dirt(self) -> np.ndarray:
        """Where there is some left on Wipe's table, [K, 2]."""
        return self.simulation.dirt

    def towards(
        self, position: np.ndarray, rotation: np.ndarray, grip: float | None = None, *, pace: float = 1.0
    ) -> np.ndarray:
        """The action float32 [7], or [6] without a gripper, that leads to a pose; at most `pace` of each way."""
        turn = self._frame.T @ Rotation.from_matrix(rotation @ self.hand_rotation.T).as_rotvec()
        move = self._frame.T @ (position - self.hand) * (_POSITION_GAIN / _REACH)
        action = np.clip(np.concatenate([move, turn * (_ROTATION_GAIN / _TURN)]), -pace, pace)
        return np.append(action, [] if grip is None else grip).astype(np.float32)

    def closing(self, *axes: np.ndarray) -> np.ndarray:
        """Of several axes [3], the one along which this arm closes its fingers most easily; see `nearest_to_y`."""
        base = self.rotation(self.base)
        return base @ nearest_to_y(*(base.T @ axis for axis in axes))

    def misses(self, position: np.ndarray, rotation: np.ndarray) -> tuple[float, float]:
        """How far the hand is from a pose: metres, radians."""
        turn = Rotation.from_matrix(rotation @ self.hand_rotation.T).magnitude()
        return float(np.linalg.norm(position - self.hand)), float(turn)


def move(
    scene: Scene,
    goal: Callable[[], Pose],
    grip: float | None,
    *,
    within: float = 0.01,
    turned: float = 0.1,
    steps: int = 80,
    pace: float = 1.0,
) -> Steps:
    """Go to a pose that may move; returns whether the hand came within the tolerances in that many steps."""
    for _ in range(steps):
        position, rotation = goal()
        distance, angle = scene.misses(position, rotation)
        if distance < within and angle < turned:
            return True
        yield scene.towards(position, rotation, grip, pace=pace)
    return False


def hold(scene: Scene, rotation: np.ndarray, grip: float | None, steps: int) -> Steps:
    """Stay where the hand is while the fingers move."""
    position = scene.hand
    for _ in range(steps):
        yield scene.towards(position, rotation, grip)
    return True


def downward(closing: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of a hand that points down and whose x axis has the direction, in the plane, of a vector."""
    x = np.array([closing[0], closing[1], 0.0])
    x /= np.linalg.norm(x)
    z = np.array([0.0, 0.0, -1.0])
    return np.stack([x, np.cross(z, x), z], axis=1)


def nearest_to_y(*axes: np.ndarray) -> np.ndarray:
    """Of several axes, in either direction, the one that turns the hand least: in the robot's first pose it is y.

    Those that point up or down are left out; not all may.
    """
    level = [axis / np.linalg.norm(axis[:2]) for axis in axes if abs(axis[2]) < STEEP * np.linalg.norm(axis)]
    axis = max(level, key=lambda axis: abs(axis[1]))
    return axis if axis[1] >= 0 else -axis


def above(position: np.ndarray, height: float) -> np.ndarray:
    """That many metres higher."""
    return position + np.array([0.0, 0.0, height])


class ScriptedExpert:
    """Runs a script, from its beginning at each reset and again when it ends without success; then it rests.

    Args:
        simulation: of the task, which is only read.
        script: takes a scene for each arm.
    """

    def __init__(self, simulation: RobosuiteSimulation, script: Callable[..., Steps]) -> None:
        self._simulation, self._script = simulation, script
        self._actions = self._repeat()

    def reset(self, seed: int) -> None:
        self._actions = self._repeat()

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        return next(self._actions)

    def _repeat(self) -> Iterator[np.ndarray]:
        arms = [Scene(self._simulation, arm) for arm in range(len(self._simulation.hands))]
        action = np.zeros(len(self._simulation.spec.action), np.float32)
        action[list(self._simulation.spec.gripper)] = OPEN
        while True:
            for action in self._script(*arms):
                yield action
            yield self._rest(arms, action)
            while self._simulation.library._check_success():
                yield self._rest(arms, action)

    def _rest(self, arms: list[Scene], action: np.ndarray) -> np.ndarray:
        """The action that keeps the arms where they are and the fingers as they were told last."""
        grips = [[float(action[index])] for index in self._simulation.spec.gripper] or [[]] * len(arms)
        parts = [arm.towards(arm.hand, arm.hand_rotation, *grip) for arm, grip in zip(arms, grips, strict=True)]
        return np.concatenate(parts)
