"""Frames of a MuJoCo scene, without what costs time and with whatever changes its look."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from math import atan2, degrees, hypot
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from embodied.core.errors import unknown_name
from embodied.envs.simulation import Camera

if TYPE_CHECKING:
    import mujoco

Quality = Literal["lean", "lean+", "full"]


def check_quality(quality: str) -> None:
    """Refuse a name that is no `Quality`."""
    if quality not in get_args(Quality):
        raise unknown_name("render", quality, get_args(Quality))


class Appearance(Protocol):
    """How an episode looks; `visuals` makes them. Physics never sees one.

    Attributes:
        textures: numbers of the model's textures whose `tex_data` has changed and must go to the GL context.
    """

    textures: Sequence[int]

    def dress(self, scene: mujoco.MjvScene) -> None:
        """Change geoms, lights and the camera of a scene that was just made from the simulation's state."""
        ...

    def finish(self, frame: np.ndarray) -> np.ndarray:
        """The frame that is observed, uint8 [H, W, 3], from the rendered one."""
        ...


class FrameRenderer:
    """Frames of a MuJoCo model, from any of its cameras with one GL context.

    Args:
        model: its visual options are changed for `lean`; give every renderer a model of its own.
        height, width: pixels.
        quality: `lean` leaves out shadows, reflections, anti-aliasing, sky and haze; `full` is the library's look.
    """

    def __init__(self, model: mujoco.MjModel, *, height: int, width: int, quality: Quality = "lean") -> None:
        import mujoco

        check_quality(quality)
        lean = quality != "full"
        self._model = model
        self._uploaded: Appearance | None = None
        model.vis.global_.offwidth = max(width, 1 if lean else model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, 1 if lean else model.vis.global_.offheight)
        if lean:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        self._renderer: Any = mujoco.Renderer(model, height, width)
        # At exit too, and before MuJoCo's own exit function ends the GL library (registered above, so run later):
        # a renderer that nobody closed would complain loudly.
        atexit.register(_close_if_alive, weakref.ref(self))
        if lean:
            flags = self._renderer.scene.flags
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
                flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False

    def render(self, data: mujoco.MjData, camera: Camera, appearance: Appearance | None = None) -> np.ndarray:
        """The present picture, uint8 [height, width, 3], in memory of its own."""
        view: Any = camera.name or free_camera(self._model, data, camera)
        self._renderer.update_scene(data, camera=view)
        if appearance is not None:
            self._upload(appearance)
            appearance.dress(self._renderer.scene)
        frame = self._renderer.render()
        frame = np.ascontiguousarray(frame[::-1, ::-1]) if camera.flip else frame.copy()
        return frame if appearance is None else appearance.finish(frame)

    def _upload(self, appearance: Appearance) -> None:
        if appearance is self._uploaded:
            return
        import mujoco

        self._renderer._gl_context.make_current()
        for texture in appearance.textures:
            mujoco.mjr_uploadTexture(self._model, self._renderer._mjr_context, texture)
        self._uploaded = appearance

    def close(self) -> None:
        """Give the GL context back; again does no harm."""
        self._renderer.close()


def free_camera(model: mujoco.MjModel, data: mujoco.MjData, camera: Camera) -> mujoco.MjvCamera:
    """A camera that the model has not: at a position in the world, looking at a body, upright."""
    import mujoco

    assert camera.position is not None and camera.target, camera
    target = data.xpos[model.body(camera.target).id]
    x, y, z = target - np.asarray(camera.position)
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    view.lookat[:] = target
    view.distance = float(np.sqrt(x * x + y * y + z * z))
    view.azimuth = degrees(atan2(y, x))
    view.elevation = degrees(atan2(z, hypot(x, y)))
    if camera.fovy is not None:
        model.vis.global_.fovy = camera.fovy  # of free cameras only
    return view


def _close_if_alive(reference: weakref.ref[FrameRenderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
