"""A robot as a MuJoCo specification: the library's arm and hand put together, drawn coarsely, driven by position."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.core.errors import MissingExtraError
from embodied.envs.suites.pixmc.meshes import coarse_mesh, hull_points
from embodied.envs.suites.pixmc.robots import HAND, Robot

if TYPE_CHECKING:
    import mujoco

DRAWN_GROUP, COLLISION_GROUP = 1, 3  # MuJoCo draws groups 0 to 2
GRIP, WRIST = "grip", "wrist"
_HULL_VERTICES = 32  # of collision meshes: the files' have up to thousands, which only costs time
_GRID_M = 0.002  # to which their vertices are rounded
_ARM_CELL_M, _HAND_CELL_M = 0.012, 0.004  # detail of what is drawn
_FINGER_FRICTION = (1.5, 0.02, 0.0005)


def robosuite_assets() -> Path:
    """The folder of robosuite's model files; robosuite itself, which is slow to import, stays out.

    Raises:
        MissingExtraError: robosuite is not installed.
    """
    found = find_spec("robosuite")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("robosuite", "robosuite")
    return Path(found.submodule_search_locations[0]) / "models" / "assets"


def assemble(robot: Robot) -> mujoco.MjSpec:
    """The robot with its base at the origin, position actuators in the order of its joints, grip site and wrist camera.

    Raises:
        MissingExtraError: robosuite is not installed.
    """
    import mujoco

    assets = robosuite_assets()
    arm = mujoco.MjSpec.from_file(str(assets / robot.arm))
    hand = mujoco.MjSpec.from_file(str(assets / robot.hand))
    for part, colours, cell_m in ((arm, robot.colours[:-1], _ARM_CELL_M), (hand, robot.colours[-1:], _HAND_CELL_M)):
        _keep_mechanics(part)
        _simplify(part, colours, cell_m)
    flange = arm.body("right_hand").add_frame(quat=robot.hand_quat)
    arm.attach(hand, prefix=HAND, frame=flange)
    arm.body("right_hand").add_camera(
        name=WRIST, pos=robot.camera_pos, quat=_quaternion(robot.camera_axes), fovy=robot.camera_fovy
    )
    arm.body(robot.grip_body).add_site(
        name=GRIP, pos=robot.grip_pos, quat=_quaternion(robot.grip_axes), size=[0.005] * 3, group=COLLISION_GROUP + 1
    )
    for body in arm.bodies:
        body.gravcomp = 1.0  # controllers of real arms compensate their weight; ours then holds still
    for side in robot.fingers:
        for name in side:
            for geom in arm.body(name).geoms:
                geom.condim, geom.friction, geom.priority = 4, _FINGER_FRICTION, 1
    _drive(arm, robot)
    return arm


def _keep_mechanics(part: mujoco.MjSpec) -> None:
    """Take away the library's actuators, sensors, markers, cameras, looks and drawn-only geoms."""
    drawn = [geom for geom in part.geoms if not geom.contype and not geom.conaffinity]
    for element in (*drawn, *part.actuators, *part.sensors, *part.sites, *part.cameras):
        element.delete()
    used = {geom.meshname for geom in part.geoms}
    for mesh in list(part.meshes):
        if mesh.name not in used:
            mesh.delete()
    for geom in part.geoms:
        geom.material = ""
    for material in list(part.materials):
        material.delete()


def _simplify(part: mujoco.MjSpec, colours: tuple[tuple[float, float, float], ...], cell_m: float) -> None:
    """Collide with the convex hulls of the collision meshes, hidden, and draw coarse copies of the meshes for that."""
    import mujoco

    folder = Path(part.modelfiledir) / part.meshdir
    files = {mesh.name: folder / mesh.file for mesh in part.meshes}
    for mesh in list(part.meshes):
        fine = files[mesh.name]
        pretty = fine.with_name(f"{fine.stem}_vis{fine.suffix}")
        mesh.file, mesh.uservert, mesh.maxhullvert = "", hull_points(fine, grid_m=_GRID_M).ravel(), _HULL_VERTICES
        vertices, triangles = coarse_mesh(pretty if pretty.exists() else fine, cell_m=cell_m)
        part.add_mesh(
            name=f"{mesh.name}_drawn",
            uservert=vertices.ravel(),
            userface=triangles.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # merging vertices may open the surface
        )
    for number, geom in enumerate(list(part.geoms)):
        geom.group = COLLISION_GROUP
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        geom.parent.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=f"{geom.meshname}_drawn",
            pos=geom.pos,
            quat=geom.quat,
            rgba=[*colours[number % len(colours)], 1],
            contype=0,
            conaffinity=0,
            group=DRAWN_GROUP,
            mass=0,
        )


def _drive(spec: mujoco.MjSpec, robot: Robot) -> None:
    """A position actuator per joint: force = stiffness * (target - position) - damping * velocity, limited."""
    import mujoco

    for joint, stiffness, damping, force, armature in zip(
        robot.joints, robot.stiffness, robot.damping, robot.force, robot.armature, strict=True
    ):
        gain, bias = [0.0] * 10, [0.0] * 10
        gain[0], bias[1], bias[2] = stiffness, -stiffness, -damping
        spec.add_actuator(
            name=joint,
            target=joint,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gaintype=mujoco.mjtGain.mjGAIN_FIXED,
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
            gainprm=gain,
            biasprm=bias,
            forcelimited=True,
            forcerange=[-force, force],
        )
        spec.joint(joint).armature = armature


def _quaternion(axes: tuple[float, ...]) -> Any:
    import mujoco
    import numpy as np

    x = np.array(axes[:3]) / np.linalg.norm(axes[:3])
    y = np.array(axes[3:]) - x * np.dot(x, axes[3:])
    y /= np.linalg.norm(y)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.column_stack([x, y, np.cross(x, y)]).ravel())
    return quaternion
