"""Script for ToolHang: stand the hook's rod into the stand, then lower a ring of the wrench over the hook and let go.

The rod has 1 mm of play in the stand, so what is led to its place is the thing that is held and not the hand. The hook
points towards the robot in the end, the hand that puts it there to the left and down. The ring goes over the upright
end of the hook with the wrench level, which then dips, is let go and falls till it hangs by the ring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.envs.suites.robosuite.scripted import (
    CLOSED,
    OPEN,
    STEEP,
    Pose,
    Scene,
    Steps,
    above,
    downward,
    hold,
    move,
)

_FRAME, _TIP, _TOOL, _RING = "frame_root", "frame_tip_site", "tool_root", "tool_hole1_center"
_GRIP = np.array([0.04375, 0.0, 0.05])  # metres: where the rod is held, in the hook's frame
_LEAN = np.radians(30)  # from the hand's axis to a plane across the rod: the hand points down by this in the end
_TOOL_LEAN = np.radians(30)  # from the hand's axis to the wrench's normal: near the robot the arm needs the room
_OVER = 0.1  # metres from which a hand comes straight
_RAISED = 1.2  # metres: height of the hand at which the rod turns over everything
_DEEP = 0.015  # metres from the tip to the middle of the stand's base, within which it is at the bottom
_UPRIGHT = np.eye(3)  # the hook's rotation in the stand
_INWARDS = 0.00375  # metres from the hook's end to the middle of its upright part
_CLEAR, _ON = 0.035, 0.0085  # metres over the hook's axis: of a ring above its end, and of one that lies on it
_DIP = np.radians(60)  # of the wrench, when it is let go: from less it does not fall
_BEHIND, _REST = 0.0085, 0.0075  # metres from the hook's end, and over its axis, to where the ring leans
_RADIUS = 0.0105  # metres, of the ring's hole
_FLIGHT = 1.14  # metres: height at which the wrench is turned
_LOST = 0.04  # metres by which what is held may slip
_PACE, _CRAWL = 0.6, 0.3


def hang_tool(scene: Scene) -> Steps:
    """Leaves out the hook where it stands already."""
    if not scene.simulation.library._check_frame_assembled() and not (yield from _mount(scene)):
        return False
    return (yield from _hang(scene))


def _mount(scene: Scene) -> Steps:
    """Stand the hook into the stand."""
    if scene.rotation(_FRAME)[2, 1] > -STEEP:  # it does not lie as at the start
        return False
    rotation = _rod_grasp(scene)
    if not (yield from _seize(scene, lambda: _rod(scene), rotation)):
        return False
    top = np.array([*scene.hand[:2], _RAISED])
    yield from move(scene, lambda: (top, rotation), CLOSED, within=0.03, turned=0.3, pace=_PACE)
    hole, bottom = _hole(scene)
    for height, within, turned, pace in ((0.05, 0.02, 0.15, _PACE), (0.015, 0.0035, 0.04, _CRAWL)):
        if not (yield from _bring(scene, _FRAME, _TIP, (above(hole, height), _UPRIGHT), within, turned, pace)):
            return False
    deep = np.array([*hole[:2], bottom])
    yield from _bring(scene, _FRAME, _TIP, (deep, _UPRIGHT), _DEEP, 0.2, _CRAWL)
    rotation = scene.hand_rotation
    back = scene.hand - _OVER * rotation[:, 2]
    yield from hold(scene, rotation, OPEN, 6)
    for place in (back, np.array([*back[:2], _RAISED])):
        yield from move(scene, lambda: (place, rotation), OPEN, within=0.03, turned=0.5, steps=40, pace=_PACE)  # noqa: B023
    return bool(scene.simulation.library._check_frame_assembled())


def _rod(scene: Scene) -> np.ndarray:
    """Where the fingers close, [3]: a little high, for the table is in their way."""
    return above(scene.position(_FRAME) + scene.rotation(_FRAME) @ _GRIP, 0.004)


def _rod_grasp(scene: Scene) -> np.ndarray:
    """The rotation [3, 3] of a hand that closes on the rod of the hook as it lies there."""
    frame = scene.rotation(_FRAME)
    x = frame[:, 0] * np.sign(frame[:, 0] @ scene.closing(frame[:, 0]))
    z = np.cos(_LEAN) * frame[:, 1] - np.sin(_LEAN) * frame[:, 2]
    return np.stack([x, np.cross(z, x), z], axis=1)


def _seize(scene: Scene, place: Callable[[], np.ndarray], rotation: np.ndarray) -> Steps:
    """Come along the hand's axis and close."""

    def before() -> Pose:
        return place() - _OVER * rotation[:, 2], rotation

    if not (yield from move(scene, before, OPEN, within=0.015, steps=120, pace=_PACE)):
        return False
    if not (yield from move(scene, lambda: (place(), rotation), OPEN, within=0.012, steps=40, pace=_PACE)):
        return False
    return (yield from hold(scene, rotation, CLOSED, 10))


def _hole(scene: Scene) -> tuple[np.ndarray, float]:
    """The middle of the stand's opening, [3], and the height of the middle of its base."""
    data, model = scene.simulation.data, scene.simulation.model
    walls = [data.geom(f"stand_wall{number}").xpos for number in range(4)]
    middle = np.mean(walls, axis=0)
    return above(middle, float(model.geom("stand_wall0").size[2])), float(data.geom("stand_base").xpos[2])


def _hang(scene: Scene) -> Steps:
    """Lower the ring over the hook's end and let go."""
    # Past the robot's first pose: the straight way to the grasp turns the wrist nearly half round, and may go wrong.
    high, first = np.array([*scene.hand[:2], _RAISED]), downward(np.array([0.0, 1.0, 0.0]))
    yield from move(scene, lambda: (high, first), OPEN, within=0.1, turned=0.5, pace=_PACE)
    tool = scene.rotation(_TOOL)
    if abs(tool[2, 2]) < STEEP:  # it does not lie flat
        return False
    if not (yield from _seize(scene, lambda: scene.position(_TOOL), _tool_grasp(scene))):
        return False
    start, end = _yaw(tool[:, 0]), _yaw(_outwards(scene))
    end = start + (end - start + np.pi) % (2 * np.pi) - np.pi
    here, goal = np.array([*scene.site(_RING)[:2], _FLIGHT]), _ring_place(scene, 0.0)
    goal[2] = _FLIGHT
    for share, place in ((0.0, here), (0.5, here), (1.0, goal)):
        level = _level(start + share * (end - start), tool[2, 2])
        if not (yield from _bring(scene, _TOOL, _RING, (place, level), 0.03, 0.2, _PACE)):
            return False
    for height, within in ((_CLEAR, 0.004), (_ON, 0.003)):
        pose = _ring_place(scene, height), _level(end, tool[2, 2])
        if not (yield from _bring(scene, _TOOL, _RING, pose, within, 0.15, _CRAWL)):
            return False
    for dip in (_DIP / 2, _DIP):  # as far as the ring lets it
        pose = _dipped(scene, dip), _level(end, tool[2, 2], dip)
        yield from _bring(scene, _TOOL, _RING, pose, 0.01, 0.15, _CRAWL, steps=25)
    rotation = scene.hand_rotation
    yield from hold(scene, rotation, OPEN, 15)
    top = scene.hand - _OVER * rotation[:, 2]
    return (yield from move(scene, lambda: (top, rotation), OPEN, within=0.03, turned=0.5, pace=_PACE))


def _tool_grasp(scene: Scene) -> np.ndarray:
    """The rotation [3, 3] of a hand that closes across the wrench and whose palm leans over its ring."""
    tool = scene.rotation(_TOOL)
    x = tool[:, 1] * np.sign(tool[:, 1] @ scene.closing(tool[:, 1]))
    z = -np.cos(_TOOL_LEAN) * tool[:, 2] * np.sign(tool[2, 2]) + np.sin(_TOOL_LEAN) * tool[:, 0]
    return np.stack([x, np.cross(z, x), z], axis=1)


def _outwards(scene: Scene) -> np.ndarray:
    """Along the hook to its end, [3]."""
    way = scene.site("frame_hang_site") - scene.site("frame_intersection_site")
    return way / np.linalg.norm(way)


def _ring_place(scene: Scene, height: float) -> np.ndarray:
    """For the ring's middle, around the upright end of the hook and this much over the hook's axis, [3]."""
    return above(scene.site("frame_hang_site") - _INWARDS * _outwards(scene), height)


def _dipped(scene: Scene, dip: float) -> np.ndarray:
    """For the middle of a ring that leans on the hook, behind its upright end, [3]."""
    out = _BEHIND - _RADIUS * np.cos(dip)
    return above(scene.site("frame_hang_site") - out * _outwards(scene), _REST - _RADIUS * np.sin(dip))


def _level(yaw: float, up: float, dip: float = 0.0) -> np.ndarray:
    """The rotation [3, 3] of a wrench that lies in a direction, on the side on which it lay, and dips by an angle."""
    y = np.array([-np.sin(yaw), np.cos(yaw), 0.0]) * np.sign(up)
    x = np.array([np.cos(dip) * np.cos(yaw), np.cos(dip) * np.sin(yaw), -np.sin(dip)])
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _yaw(axis: np.ndarray) -> float:
    return float(np.arctan2(axis[1], axis[0]))


def _bring(
    scene: Scene, body: str, site: str, goal: Pose, within: float, turned: float, pace: float, *, steps: int = 120
) -> Steps:
    """Bring a site of what is held to a place, and what is held to a rotation."""
    place, rotation = goal
    reach = float(np.linalg.norm(scene.site(site) - scene.hand))
    for _ in range(steps):
        turn, point = rotation @ scene.rotation(body).T, scene.site(site)
        if np.linalg.norm(place - point) < within and Rotation.from_matrix(turn).magnitude() < turned:
            return True
        if abs(float(np.linalg.norm(point - scene.hand)) - reach) > _LOST:
            return False
        yield scene.towards(place + turn @ (scene.hand - point), turn @ scene.hand_rotation, CLOSED, pace=pace)
    return False
