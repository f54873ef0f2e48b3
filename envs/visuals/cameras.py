"""Where the cameras are, and moving them around what they look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.rendering import free_camera
from embodied.envs.simulation import Camera, Simulation
from embodied.envs.visuals.parts import SceneParts

if TYPE_CHECKING:
    import mujoco

    from embodied.envs.visuals.look import Draft

AZIMUTH_DEG, ELEVATION_DEG = 4.0, 2.0  # per strength
DISTANCE = 0.03  # of the distance, per strength
AIM = 0.02  # of half the table's width, per strength
_MOUNTED = 0.4  # of all that, for a camera on something that moves: it sits close to what it sees
_INSIDE = 0.92  # of half the picture: what was within stays within
_SHRINKS = 12  # times that a move is made smaller by a fifth, until the view is free


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A camera in the world.

    Args:
        position: metres [3].
        axes: [3, 3]; columns are the picture's right, its up, and from the scene to the camera.
        fovy: vertical field of view, degrees.
        distance: metres to what it looks at.
        mounted: whether it sits on something that moves.
    """

    position: np.ndarray
    axes: np.ndarray
    fovy: float
    distance: float
    mounted: bool

    @property
    def look_at(self) -> np.ndarray:
        return self.position - self.distance * self.axes[:, 2]

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Which points, metres [N, 3], are within a square picture, a little off its border; bool [N]."""
        x, y, back = ((points - self.position) @ self.axes).T
        edge = _INSIDE * np.tan(np.radians(self.fovy) / 2) * -back
        return (back < 0) & (np.abs(x) < edge) & (np.abs(y) < edge)


def view_of(simulation: Simulation, camera: Camera, parts: SceneParts) -> View:
    """A camera as it stands, looking at the depth of the scene's focus."""
    import mujoco

    model, data = simulation.model, simulation.data
    if camera.name:
        number = model.camera(camera.name).id
        position, axes = data.cam_xpos[number].copy(), data.cam_xmat[number].reshape(3, 3).copy()
        fixed = int(model.cam_mode[number]) == mujoco.mjtCamLight.mjCAMLIGHT_FIXED.value  # else it follows from afar
        fovy, mounted = float(model.cam_fovy[number]), fixed and model.body_treeid[model.cam_bodyid[number]] >= 0
    else:
        free = free_camera(model, data, camera)
        position, mounted, fovy = np.array(camera.position), False, float(camera.fovy or model.vis.global_.fovy)
        axes = _upright(position - np.array(free.lookat))
    to_focus = parts.focus - position
    distance = float(-axes[:, 2] @ to_focus)
    if distance < 0.5 * np.linalg.norm(to_focus):  # it looks elsewhere
        distance = max(_first_hit(simulation, position, -axes[:, 2]), 0.2 * parts.size)
    return View(position=position, axes=axes, fovy=fovy, distance=distance, mounted=bool(mounted))


def orbit(view: View, *, azimuth: float, elevation: float, distance: float, aim: np.ndarray) -> View:
    """The view from elsewhere on a sphere around what it looks at.

    Args:
        view: from where.
        azimuth, elevation: degrees; about the vertical (about the picture's up, for a camera that looks straight down)
            and about the picture's horizontal.
        distance: a factor.
        aim: metres [2], right and up in the picture; moves camera and aim together.
    """
    steep = abs(view.axes[2, 2]) > 0.9
    vertical = view.axes[:, 1] if steep else np.array([0.0, 0.0, 1.0])
    axes = _turn(vertical, azimuth) @ view.axes
    axes = _turn(axes[:, 0], elevation) @ axes
    look_at = view.look_at + axes[:, :2] @ aim
    reach = distance * view.distance
    return replace(view, position=look_at + reach * axes[:, 2], axes=axes, distance=reach)


def move_cameras(draft: Draft, *, azimuth: float, elevation: float, distance: float, aim: np.ndarray) -> None:
    """Move every camera alike, less where it would lose what the task is about or look through a wall.

    Args:
        draft: of a look.
        azimuth, elevation: degrees.
        distance: the change, as a fraction.
        aim: [2], fractions of half the table's width.
    """
    for camera, view in draft.views.items():
        share = _MOUNTED if view.mounted else 1.0
        seen = view.sees(draft.parts.points)
        free = _is_free(draft, view)
        for _ in range(_SHRINKS):
            moved = orbit(
                view,
                azimuth=share * azimuth,
                elevation=share * elevation,
                distance=1 + share * distance,
                aim=share * draft.parts.size * aim,
            )
            if moved.sees(draft.parts.points)[seen].all() and (_is_free(draft, moved) or not free):
                draft.views[camera] = moved
                break
            share *= 0.8


def shift_camera(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """Cameras around what they look at, in a direction of the episode's."""
    around, aside = rng.uniform(0, 2 * np.pi, 2)
    move_cameras(
        draft,
        azimuth=strength * AZIMUTH_DEG * np.cos(around),
        elevation=strength * ELEVATION_DEG * np.sin(around),
        distance=strength * DISTANCE * rng.choice([-1, 1]),
        aim=strength * AIM * np.array([np.cos(aside), np.sin(aside)]),
    )


@dataclass(frozen=True, eq=False)
class Move:
    """A change of pose in the camera's own frame, so that it also holds for a camera that moves."""

    turn: np.ndarray  # [3, 3]
    step: np.ndarray  # metres [3]

    @classmethod
    def between(cls, old: View, new: View) -> Move:
        return cls(old.axes.T @ new.axes, old.axes.T @ (new.position - old.position))

    def apply(self, scene: mujoco.MjvScene) -> None:
        """Move the eyes of the scene, and the light at the camera with them."""
        for eye in scene.camera:
            forward, up = np.array(eye.forward), np.array(eye.up)
            axes = np.stack([np.cross(forward, up), up, -forward], axis=1)
            eye.pos = eye.pos + axes @ self.step
            axes = axes @ self.turn
            eye.up, eye.forward = axes[:, 1], -axes[:, 2]
        for light in scene.lights[: scene.nlight]:
            if light.headlight:
                light.pos, light.dir = scene.camera[0].pos, scene.camera[0].forward


def _turn(axis: np.ndarray, degrees: float) -> np.ndarray:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _upright(back: np.ndarray) -> np.ndarray:
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= max(float(np.linalg.norm(right)), 1e-9)
    return np.stack([right, np.cross(back, right), back], axis=1)


def _is_free(draft: Draft, view: View) -> bool:
    """Whether no floor, wall or table is between the camera and what it looks at."""
    import mujoco

    geom = np.zeros(1, np.int32)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    model, data = draft.simulation.model, draft.simulation.data
    start = view.position
    hit = mujoco.mj_ray(model, data, start, -view.axes[:, 2], groups, 1, -1, geom)
    solid = np.isin(geom[0], np.concatenate([draft.parts.background, draft.parts.table]))
    below = view.position[2] < draft.floor + 0.02 * draft.parts.size
    return not below and not (solid and 0 <= hit < 0.5 * view.distance)


def _first_hit(simulation: Simulation, start: np.ndarray, direction: np.ndarray) -> float:
    import mujoco

    geom = np.zeros(1, np.int32)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    return float(mujoco.mj_ray(simulation.model, simulation.data, start, direction, groups, 1, -1, geom))
