"""What the geoms of a scene are for, found from the model alone: robot, objects, table, background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

_SHOWN_GROUPS = (0, 1, 2)  # MuJoCo's default view
_LARGE = 0.5  # of the table's largest half extent: what is larger in some direction is furniture
_WALL_HEIGHT = 0.3  # of the same: what is at least so high, and thin, is a wall
_WALL_THINNESS = 0.15  # of its second smallest side
_BULKY = 0.02  # of that half extent cubed: what has doors and at least so much volume is furniture
_REACH = 1.5  # of the robot's largest extent: objects further away are out of play


@dataclass(frozen=True, kw_only=True)
class SceneParts:
    """Numbers of visible geoms, int64, each in at most one part, and where the task happens.

    Args:
        robot: of kinematic trees with actuators, and what they are mounted on.
        objects: of trees without actuators, what those are hinged to, and smaller things that stand around.
        table: the surface that carries the objects, and furniture. The floor, where there is nothing else.
        background: other planes, and walls.
        points, radii: metres [N, 3] and [N]; balls around what the task is about: objects that the robot may reach and
            what they are hinged to, or the robot where there are none; and visible marks, such as goals.
        focus: metres [3]; the middle of what moves of them.
        low, high: metres [3]; the box of the surface that carries the objects; its top is `high[2]`.
        reach: metres; the largest extent of the robot.
        size: metres; half the width of the part of that surface which matters.
        on_floor: whether that surface is the floor.
    """

    robot: np.ndarray
    objects: np.ndarray
    table: np.ndarray
    background: np.ndarray
    points: np.ndarray
    radii: np.ndarray
    focus: np.ndarray
    low: np.ndarray
    high: np.ndarray
    reach: float
    size: float
    on_floor: bool


def scene_parts(model: mujoco.MjModel, data: mujoco.MjData) -> SceneParts:
    """Sort the geoms of a scene as it stands."""
    low, high, planes = geom_boxes(model, data)
    middle, half = (low + high) / 2, (high - low) / 2
    visible = _visible(model)
    robot_body, object_body = _bodies(model)
    robot = visible & robot_body[model.geom_bodyid]
    moved = visible & object_body[model.geom_bodyid] & ~robot
    hinged_to = moved & (model.body_treeid[model.geom_bodyid] < 0)
    static = visible & ~robot & ~moved & ~planes
    anchor = _in_play(low, high, robot, moved & ~hinged_to)
    focus = middle[anchor].mean(axis=0) if anchor.any() else np.array(model.stat.center)
    top = _carrier(focus, low, high, static)
    if top is None:
        floor = _floor(data, planes & visible, focus)
        table = np.isin(np.arange(model.ngeom), floor)
        walls = planes & visible & ~table
        size = float(min(model.stat.extent, 2.0))
        level = float(data.geom_xpos[floor[0], 2]) if len(floor) else float(low[anchor, 2].min(initial=focus[2]))
        box = np.array([*(focus[:2] - size), level]), np.array([*(focus[:2] + size), level])
    else:
        size = float(half[top, :2].max())
        bulky = hinged_to & (half.prod(axis=1) > _BULKY * size**3)
        built_in = _with_their_bodies(model, bulky, hinged_to)  # as an oven is, with its knobs
        static, moved = static | built_in, moved & ~built_in
        walls = static & _is_wall(half[:, 2], model.geom_aabb[:, 3:], size)
        walls = planes & visible | _with_their_bodies(model, walls, static)
        large = (static & ~walls & (half.max(axis=1) > _LARGE * size)) | built_in
        table = _with_their_bodies(model, large, static & ~walls)  # a table may be made of boards
        box = low[top], high[top]
    objects = moved | (static & ~table & ~walls)
    task, goal = _in_play(low, high, robot, moved), _markers(model, robot_body)
    return SceneParts(
        robot=np.flatnonzero(robot),
        objects=np.flatnonzero(objects),
        table=np.flatnonzero(table),
        background=np.flatnonzero(walls),
        points=np.concatenate([middle[task], data.site_xpos[goal]]),
        radii=np.concatenate([model.geom_rbound[task], model.site_size[goal].max(axis=1)]),
        focus=focus,
        low=box[0],
        high=box[1],
        reach=_extent(low, high, robot),
        size=size,
        on_floor=top is None,
    )


def geom_boxes(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the boxes around the geoms, metres in the world, [G, 3] each; and which geoms are planes, bool [G]."""
    import mujoco

    turns = data.geom_xmat.reshape(-1, 3, 3)
    middle = data.geom_xpos + np.einsum("gij,gj->gi", turns, model.geom_aabb[:, :3])
    half = np.einsum("gij,gj->gi", np.abs(turns), model.geom_aabb[:, 3:])
    return middle - half, middle + half, model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE


def _visible(model: mujoco.MjModel) -> np.ndarray:
    material = model.geom_matid
    alpha = model.geom_rgba[:, 3].copy()
    if model.nmat:  # a geom's own colour, where it has one, stands before its material's
        plain = (model.geom_rgba == np.array([0.5, 0.5, 0.5, 1], np.float32)).all(axis=1)
        alpha = np.where((material >= 0) & plain, model.mat_rgba[material, 3], alpha)
    guides = model.body_mocapid[model.geom_bodyid] >= 0  # handles for the one who moves things by hand
    return np.isin(model.geom_group, _SHOWN_GROUPS) & (alpha > 0) & ~guides


def _markers(model: mujoco.MjModel, robot_body: np.ndarray) -> np.ndarray:
    """The visible sites that are not on the robot, bool [sites]."""
    shown = np.isin(model.site_group, _SHOWN_GROUPS) & (model.site_rgba[:, 3] > 0)
    return shown & ~robot_body[model.site_bodyid]


def _bodies(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Which bodies belong to a robot, and which to something that it moves; bool [bodies] each."""
    tree = model.body_treeid  # -1 where nothing moves
    parent = model.body_parentid
    actuated = np.zeros(max(model.ntree, 1), bool)
    for body in _actuated_bodies(model):
        actuated[tree[body]] |= tree[body] >= 0
    moves = tree >= 0
    driven = moves & actuated[np.maximum(tree, 0)]
    passive = moves & ~driven
    # From the leaves up: what a body carries.
    carries_robot, carries_passive = driven.copy(), passive.copy()
    for body in range(model.nbody - 1, 0, -1):
        carries_robot[parent[body]] |= carries_robot[body]
        carries_passive[parent[body]] |= carries_passive[body]
    mount = carries_robot & ~carries_passive
    mount[0] = False
    for body in range(1, model.nbody):  # what stands on a mount is part of it
        mount[body] |= mount[parent[body]] and not moves[body]
    hinged_to = np.zeros(model.nbody, bool)
    hinged_to[parent[passive]] = True
    hinged_to[0] = False
    return driven | mount, passive | (hinged_to & ~driven & ~mount)


def _actuated_bodies(model: mujoco.MjModel) -> list[int]:
    import mujoco

    kind = mujoco.mjtTrn
    bodies: list[int] = []
    for actuator in range(model.nu):
        number = int(model.actuator_trnid[actuator, 0])
        match model.actuator_trntype[actuator]:
            case kind.mjTRN_JOINT | kind.mjTRN_JOINTINPARENT:
                bodies.append(int(model.jnt_bodyid[number]))
            case kind.mjTRN_BODY:
                bodies.append(number)
            case kind.mjTRN_SITE | kind.mjTRN_SLIDERCRANK:
                bodies.append(int(model.site_bodyid[number]))
            case kind.mjTRN_TENDON:
                bodies += _tendon_bodies(model, number)
    return bodies


def _tendon_bodies(model: mujoco.MjModel, tendon: int) -> list[int]:
    import mujoco

    bodies = []
    first = int(model.tendon_adr[tendon])
    for wrap in range(first, first + int(model.tendon_num[tendon])):
        number = int(model.wrap_objid[wrap])
        if model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_JOINT:
            bodies.append(int(model.jnt_bodyid[number]))
        elif model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_SITE:
            bodies.append(int(model.site_bodyid[number]))
    return bodies


def _carrier(focus: np.ndarray, low: np.ndarray, high: np.ndarray, static: np.ndarray) -> int | None:
    """The geom with the largest top among those that are under the focus and wider than high."""
    half = (high - low) / 2
    reach = half[:, :2].max(axis=1)
    under = (np.abs(focus[:2] - (low + high)[:, :2] / 2) <= 1.5 * half[:, :2]).all(axis=1)
    below = (high[:, 2] <= focus[2] + 0.25 * reach) & (high[:, 2] >= focus[2] - 2 * reach)
    flat = half[:, 2] < 0.5 * half[:, :2].min(axis=1)
    candidates = np.flatnonzero(static & under & below & flat)
    if not len(candidates):
        return None
    area = half[candidates, 0] * half[candidates, 1]
    return int(candidates[np.argmax(area)])


def _floor(data: mujoco.MjData, planes: np.ndarray, focus: np.ndarray) -> np.ndarray:
    """The highest level plane under the focus, int64 [1], or none, [0]."""
    level = planes & (data.geom_xmat[:, 8] > 0.9) & (data.geom_xpos[:, 2] <= focus[2] + 1e-3)
    found = np.flatnonzero(level)
    return found[[np.argmax(data.geom_xpos[found, 2])]] if len(found) else found


def _is_wall(half_heights: np.ndarray, half: np.ndarray, size: float) -> np.ndarray:
    """Whether geoms with these half heights and own half sides [G, 3] are thin and high enough, bool [G]."""
    sides = np.sort(half, axis=1)
    return (half_heights > _WALL_HEIGHT * size) & (sides[:, 0] < _WALL_THINNESS * sides[:, 1])


def _with_their_bodies(model: mujoco.MjModel, some: np.ndarray, among: np.ndarray) -> np.ndarray:
    """These geoms, and the others of their bodies; of the world only themselves. All bool [G]."""
    bodies = np.setdiff1d(model.geom_bodyid[some], [0])
    return some | (among & np.isin(model.geom_bodyid, bodies))


def _in_play(low: np.ndarray, high: np.ndarray, robot: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The moved geoms that the robot may reach, else the robot's; bool [G]. Suites put away what a task lacks."""
    if not robot.any() or not moved.any():
        return moved if moved.any() else robot
    middle = (low[robot].min(axis=0) + high[robot].max(axis=0)) / 2
    away = np.linalg.norm((low + high) / 2 - middle, axis=1)
    near = moved & (away < _REACH * _extent(low, high, robot))
    return near if near.any() else robot


def _extent(low: np.ndarray, high: np.ndarray, geoms: np.ndarray) -> float:
    """The longest side of the box around some geoms, bool [G]; infinite around none."""
    if not geoms.any():
        return float("inf")
    return float((high[geoms].max(axis=0) - low[geoms].min(axis=0)).max())
