"""The four things to do: where their objects start, what is worth how much, when they are done.

Worth w is in [0, 1]; the reward of a step is w - 1, a cost: an episode ends when its task is done, and a positive
reward would pay for putting that off. near(d) = 1 - tanh(3 d), d in metres, is 1 at the place and 0.46 at 20 cm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embodied.envs.suites.pixmc.assembly import GRIP
from embodied.envs.suites.pixmc.robots import Robot
from embodied.envs.suites.pixmc.scenes import CABINET, CUBE, CUBE_HALF, DRAWER, GOAL, GOAL_RADIUS, HANDLE

if TYPE_CHECKING:
    import mujoco

REACH_DISTANCE = 0.05
LIFT_HEIGHT = 0.1
MOVE_DISTANCE = GOAL_RADIUS
OPENING = 0.2
_APART = 0.15  # at least, from where a thing starts to where it shall be
_REACH_LOW, _REACH_HIGH = np.array([-0.1, -0.25, 0.05]), np.array([0.1, 0.25, 0.3])  # x from the robot's workspace
_TABLE_LOW, _TABLE_HIGH = np.array([-0.1, -0.2]), np.array([0.1, 0.2])
_CABINET_LOW, _CABINET_HIGH = np.array([0.75, -0.12]), np.array([0.82, 0.12])
_AXES = tuple(f"{axis}_axis.{part}" for axis in "xz" for part in "xyz")
_OFFSET = ("dx", "dy", "dz", "distance")


def near(distance: float) -> float:
    """1 at the place, falling to 0: see above."""
    return 1.0 - float(np.tanh(3.0 * distance))


class Goal(Protocol):
    """Something to do in a scene.

    `names` are those of `state`; `horizon` (by default) and `horizon_limit` are steps.
    """

    horizon: int
    horizon_limit: int
    names: tuple[str, ...]

    def place(self, random: np.random.Generator) -> None:
        """Put the things where an episode starts; the robot stands at its start already."""
        ...

    def state(self) -> list[np.ndarray]:
        """Everything about the things: arrays that are `names` long in all."""
        ...

    def worth(self) -> float:
        """How far things are, in [0, 1]."""
        ...

    def reached(self) -> bool:
        """Whether things are as they should be at this moment."""
        ...


def offset(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """From one point to another and how far that is, [4]."""
    way = end - start
    return np.append(way, np.linalg.norm(way))


def pose_axes(rotation: np.ndarray) -> np.ndarray:
    """The x and z axes of a rotation matrix given as [9] row by row; [6]."""
    return rotation.reshape(3, 3)[:, [0, 2]].T.ravel()


class Reach:
    """Bring the point between the fingers to within 5 cm of a ball in the air. w = near(d)."""

    horizon, horizon_limit = 150, 200
    names = ("goal.x", "goal.y", "goal.z", *(f"grip_to_goal.{part}" for part in _OFFSET))

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: Robot) -> None:
        self._data, self._robot = data, robot
        self._grip = data.site(GRIP).xpos
        self._ball = model.body(GOAL).mocapid[0]

    def place(self, random: np.random.Generator) -> None:
        centre = np.array([self._robot.workspace_x, 0.0, 0.0])
        while True:
            ball = centre + random.uniform(_REACH_LOW, _REACH_HIGH)
            if np.linalg.norm(ball - self._grip) >= _APART:
                break
        self._data.mocap_pos[self._ball] = ball

    def state(self) -> list[np.ndarray]:
        ball = self._data.mocap_pos[self._ball]
        return [ball, offset(self._grip, ball)]

    def worth(self) -> float:
        return near(self._distance())

    def reached(self) -> bool:
        return self._distance() < REACH_DISTANCE

    def _distance(self) -> float:
        return float(np.linalg.norm(self._data.mocap_pos[self._ball] - self._grip))


class Cabinet:
    """Open a drawer by 20 cm. w = 0.4 near(grip to handle) + 0.6 min(opening / 20 cm, 1)."""

    horizon, horizon_limit = 200, 500
    names = (
        *(f"handle.{part}" for part in "xyz"),
        "drawer.opening",
        "drawer.speed",
        *(f"grip_to_handle.{part}" for part in _OFFSET),
    )

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: Robot) -> None:
        self._model, self._data = model, data
        self._grip, self._handle = data.site(GRIP).xpos, data.site(HANDLE).xpos
        self._drawer = data.joint(DRAWER)
        self._cabinet = model.body(CABINET).id

    def place(self, random: np.random.Generator) -> None:
        self._model.body_pos[self._cabinet, :2] = random.uniform(_CABINET_LOW, _CABINET_HIGH)

    def state(self) -> list[np.ndarray]:
        return [self._handle, self._drawer.qpos, self._drawer.qvel, offset(self._grip, self._handle)]

    def worth(self) -> float:
        opened = min(max(float(self._drawer.qpos[0]) / OPENING, 0.0), 1.0)
        return 0.4 * near(float(np.linalg.norm(self._handle - self._grip))) + 0.6 * opened

    def reached(self) -> bool:
        return bool(self._drawer.qpos[0] >= OPENING)


class Pick:
    """Lift a cube by 10 cm. w = 0.3 near(grip to cube) + 0.2 held + 0.5 min(lift / 10 cm, 1).

    held is 1 while both sides of the hand touch the cube. An episode goes on when the cube has fallen off the table: to
    end it would spare costs.
    """

    horizon, horizon_limit = 200, 500
    names = (
        *(f"cube.{part}" for part in (*"xyz", *_AXES, "vx", "vy", "vz", "wx", "wy", "wz")),
        *(f"grip_to_cube.{part}" for part in _OFFSET),
    )

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: Robot) -> None:
        self._data, self._robot = data, robot
        self._grip, self._cube, self._joint = data.site(GRIP).xpos, data.body(CUBE), data.joint(CUBE)
        self._cube_geom = model.geom(CUBE).id
        sides = [[model.body(name).id for name in side] for side in robot.fingers]
        self._sides = [np.isin(model.geom_bodyid, side) for side in sides]

    def place(self, random: np.random.Generator) -> None:
        self._put(self._somewhere(random), random.uniform(0, np.pi / 2))

    def _somewhere(self, random: np.random.Generator) -> np.ndarray:
        return np.array([self._robot.workspace_x, 0.0]) + random.uniform(_TABLE_LOW, _TABLE_HIGH)

    def _put(self, place: np.ndarray, yaw: float) -> None:
        self._joint.qpos = [*place, CUBE_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]

    def state(self) -> list[np.ndarray]:
        cube = self._cube
        return [cube.xpos, pose_axes(cube.xmat), self._joint.qvel, offset(self._grip, cube.xpos)]

    def worth(self) -> float:
        lifted = min(max(self._lift() / LIFT_HEIGHT, 0.0), 1.0)
        return 0.3 * self._nearness() + 0.2 * float(self.held()) + 0.5 * lifted

    def reached(self) -> bool:
        return self._lift() >= LIFT_HEIGHT

    def held(self) -> bool:
        """Whether both sides of the hand touch the cube."""
        pairs = self._data.contact.geom
        others = pairs[(pairs == self._cube_geom).any(axis=1)]
        return all(bool(side[others].any()) for side in self._sides)

    def _lift(self) -> float:
        return float(self._cube.xpos[2]) - CUBE_HALF

    def _nearness(self) -> float:
        return near(float(np.linalg.norm(self._cube.xpos - self._grip)))


class Move(Pick):
    """Bring a cube to within 5 cm of the middle of a disc on the table. w = 0.3 near(grip to cube) + 0.7 near(d)."""

    horizon, horizon_limit = 250, 500
    names = (*Pick.names, "goal.x", "goal.y", "goal.z", *(f"cube_to_goal.{part}" for part in _OFFSET))

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: Robot) -> None:
        super().__init__(model, data, robot)
        self._disc = model.body(GOAL).mocapid[0]

    def place(self, random: np.random.Generator) -> None:
        super().place(random)
        while True:
            disc = self._somewhere(random)
            if np.linalg.norm(disc - self._joint.qpos[:2]) >= _APART:
                break
        self._data.mocap_pos[self._disc] = [*disc, 0.001]

    def state(self) -> list[np.ndarray]:
        return [*super().state(), self._target(), offset(self._cube.xpos, self._target())]

    def worth(self) -> float:
        return 0.3 * self._nearness() + 0.7 * near(self._distance())

    def reached(self) -> bool:
        return self._distance() < MOVE_DISTANCE

    def _target(self) -> np.ndarray:
        """The cube's middle when it stands on the middle of the disc."""
        return np.array([*self._data.mocap_pos[self._disc, :2], CUBE_HALF])

    def _distance(self) -> float:
        return float(np.linalg.norm(self._target() - self._cube.xpos))


GOALS: dict[str, Callable[[mujoco.MjModel, mujoco.MjData, Robot], Goal]] = {
    "reach": Reach,
    "cabinet": Cabinet,
    "pick": Pick,
    "move": Move,
}
