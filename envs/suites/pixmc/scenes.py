"""What stands around a robot, compiled: a table, a light, a front camera and the things of a task. Metres."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

from embodied.envs.suites.pixmc.assembly import assemble
from embodied.envs.suites.pixmc.robots import ROBOTS

if TYPE_CHECKING:
    import mujoco

CONTROL_HZ = 30
SUBSTEPS = 12  # of 2.8 ms
FRONT, CUBE, GOAL, CABINET, DRAWER, HANDLE = "front", "cube", "goal", "cabinet", "drawer", "handle"
CUBE_HALF = 0.025
GOAL_RADIUS = 0.05
DRAWER_TRAVEL = 0.25
HANDLE_HEIGHT = 0.3
HANDLE_REACH = 0.07  # from the drawer's front to the axis of its handle
_WALLS = (  # seen from inside only, so none hides the scene from a camera outside
    ("wall_back", (-1.5, 0, 1.5), (0.5, 0.5, 0.5, 0.5)),
    ("wall_far", (2.5, 0, 1.5), (0.5, -0.5, -0.5, 0.5)),
    ("wall_left", (0, 2.0, 1.5), (0.7071, 0.7071, 0, 0)),
    ("wall_right", (0, -2.0, 1.5), (0.7071, -0.7071, 0, 0)),
)
_WALL_RGBA = (0.78, 0.77, 0.72, 1)
_TABLE_RGBA, _FLOOR_RGBA = (0.62, 0.66, 0.7, 1), (0.25, 0.27, 0.3, 1)
_CUBE_RGBA, _GOAL_RGBA = (0.85, 0.12, 0.12, 1), (0.1, 0.75, 0.25, 1)
_WOOD_RGBA, _DRAWER_RGBA, _HANDLE_RGBA = (0.55, 0.38, 0.22, 1), (0.8, 0.62, 0.38, 1), (0.1, 0.25, 0.8, 1)
_TABLE_VIEW = ((1.35, -0.85, 0.85), (0.33, 0.0, 0.22))  # of the front camera: position and what it looks at
_CABINET_VIEW = ((0.2, -1.45, 0.8), (0.45, 0.0, 0.3))


@cache
def _compiled(robot: str, goal: str) -> mujoco.MjModel:
    import mujoco

    spec = assemble(ROBOTS[robot])
    spec.modelname = f"{robot}-{goal}"
    spec.option.timestep = 1 / (CONTROL_HZ * SUBSTEPS)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST  # stiff actuators stay stable at this time step
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10  # what is held does not creep
    _add_room(spec, *(_CABINET_VIEW if goal == "cabinet" else _TABLE_VIEW))
    _THINGS[goal](spec)
    return spec.compile()


def load_scene(robot: str, goal: str) -> mujoco.MjModel:
    """A model of one's own: it is compiled once in a process, and copied.

    Raises:
        MissingExtraError: robosuite is not installed.
    """
    return copy(_compiled(robot, goal))


def _add_room(spec: mujoco.MjSpec, eye: tuple[float, float, float], target: tuple[float, float, float]) -> None:
    import mujoco
    import numpy as np

    world = spec.worldbody
    spec.visual.headlight.ambient = [0.4] * 3
    spec.visual.headlight.diffuse = [0.3] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.visual.map.znear = 0.01
    spec.stat.extent = 1.0  # so that the clipping planes do not depend on the scene
    spec.stat.center = [0.4, 0.0, 0.2]
    world.add_light(name="lamp", pos=[0.3, -0.6, 2.0], dir=[0.1, 0.3, -1.0], diffuse=[0.45] * 3, directional=True)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    world.add_geom(name="floor", type=plane, pos=[0, 0, -0.7], size=[3, 3, 0.1], rgba=_FLOOR_RGBA)
    for name, pos, quat in _WALLS:
        world.add_geom(
            name=name, type=plane, pos=pos, quat=quat, size=[3, 3, 0.1], rgba=_WALL_RGBA, contype=0, conaffinity=0
        )
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.4, 0, -0.025],
        size=[0.65, 0.7, 0.025],
        rgba=_TABLE_RGBA,
        friction=[0.8, 0.01, 0.0005],
    )
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    axes = np.column_stack([right, np.cross(right, forward), -forward])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, axes.ravel())
    world.add_camera(name=FRONT, pos=eye, quat=quaternion, fovy=48)


def _add_goal(spec: mujoco.MjSpec, **shape: Any) -> None:
    """Something to see and not to touch."""
    body = spec.worldbody.add_body(name=GOAL, mocap=True)
    body.add_geom(name=GOAL, rgba=_GOAL_RGBA, contype=0, conaffinity=0, mass=0, **shape)


def _add_cube(spec: mujoco.MjSpec) -> None:
    import mujoco

    body = spec.worldbody.add_body(name=CUBE, pos=[0.5, 0, CUBE_HALF])
    body.add_freejoint(name=CUBE)
    body.add_geom(
        name=CUBE,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[CUBE_HALF] * 3,
        mass=0.1,
        rgba=_CUBE_RGBA,
        condim=4,
        friction=[1.0, 0.01, 0.0005],
    )


def _reach(spec: mujoco.MjSpec) -> None:
    import mujoco

    _add_goal(spec, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.03, 0, 0])


def _move(spec: mujoco.MjSpec) -> None:
    import mujoco

    _add_cube(spec)
    _add_goal(spec, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[GOAL_RADIUS, 0.001, 0])


def _cabinet(spec: mujoco.MjSpec) -> None:
    """A cabinet that stands on the table, its origin below the middle of its front, which faces the robot (-x)."""
    import mujoco

    box = mujoco.mjtGeom.mjGEOM_BOX
    cabinet = spec.worldbody.add_body(name=CABINET, pos=[0.8, 0, 0])
    for pos, size in (
        ((0.15, 0.16, 0.2), (0.15, 0.01, 0.2)),
        ((0.15, -0.16, 0.2), (0.15, 0.01, 0.2)),
        ((0.15, 0, 0.41), (0.15, 0.17, 0.01)),
        ((0.15, 0, 0.1), (0.15, 0.15, 0.1)),
        ((0.29, 0, 0.3), (0.01, 0.15, 0.1)),
    ):
        cabinet.add_geom(type=box, pos=pos, size=size, rgba=_WOOD_RGBA)
    drawer = cabinet.add_body(name=DRAWER, pos=[0, 0, HANDLE_HEIGHT])
    drawer.add_joint(
        name=DRAWER,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1, 0, 0],
        limited=True,
        range=[0, DRAWER_TRAVEL],
        damping=10,
        frictionloss=2,
    )
    for pos, size in (
        ((0.01, 0, 0), (0.01, 0.145, 0.095)),
        ((0.14, 0.13, -0.02), (0.12, 0.005, 0.06)),
        ((0.14, -0.13, -0.02), (0.12, 0.005, 0.06)),
        ((0.14, 0, -0.08), (0.12, 0.13, 0.005)),
    ):
        drawer.add_geom(type=box, pos=pos, size=size, rgba=_DRAWER_RGBA, density=300)
    for y in (-0.08, 0.08):
        drawer.add_geom(
            type=box, pos=[-HANDLE_REACH / 2, y, 0], size=[HANDLE_REACH / 2, 0.006, 0.006], rgba=_HANDLE_RGBA
        )
    drawer.add_geom(
        name=HANDLE,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[-HANDLE_REACH, -0.08, 0, -HANDLE_REACH, 0.08, 0],
        size=[0.009, 0, 0],
        rgba=_HANDLE_RGBA,
        condim=4,
    )
    drawer.add_site(name=HANDLE, pos=[-HANDLE_REACH, 0, 0], size=[0.005] * 3, group=4)


_THINGS = {"reach": _reach, "cabinet": _cabinet, "pick": _add_cube, "move": _move}
