"""Frames of a MuJoCo scene, without what costs time and with whatever changes its look."""

from __future__ import annotations

import atexit
import weakref
from contextlib import nullcontext
from math import atan2, degrees, hypot
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from embodied.core.errors import unknown_name
from embodied.envs.coarse_meshes import coarse_meshes
from embodied.envs.simulation import Camera
from embodied.envs.still_layer import StillLayer, StillSigns, put_over, upright
from embodied.envs.view_frustum import ViewFrustum, without

if TYPE_CHECKING:
    import mujoco

Quality = Literal["lean", "lean+", "full"]
_MAX_GEOMS = 10_000  # in a scene, as in MuJoCo's own renderer
_STILL, _MOVING, _ALL = 1, 6, 7  # bits of mjtCatBit: static, dynamic, decoration


def check_quality(quality: str) -> None:
    """Refuse a name that is no `Quality`."""
    if quality not in get_args(Quality):
        raise unknown_name("render", quality, get_args(Quality))


class Appearance(Protocol):
    """How an episode looks; `visuals` makes them. Physics never sees one."""

    def upload(self, context: mujoco.MjrContext) -> None:
        """Bring the look's own textures into a GL context, which is current."""
        ...

    def dress(self, scene: mujoco.MjvScene, camera: Camera, *, still: bool) -> None:
        """Change geoms, lights and the camera of a scene that was just made from the simulation's state, and add geoms.

        A scene may hold a part of the geoms only, so they are known by `objtype` and `objid`. Each is changed in the
        same way in every frame of an episode, and so are the lights and a camera that stands still.

        Args:
            scene: to be changed.
            camera: that it is seen from.
            still: whether the parts that stand still are in it; what is added belongs to them.
        """
        ...

    def finish(self, frame: np.ndarray) -> np.ndarray:
        """The frame that is observed, uint8 [H, W, 3], from the rendered one."""
        ...


class FrameRenderer:
    """Frames of a MuJoCo model, from any of its cameras with one GL context.

    `lean` leaves out shadows, reflections, anti-aliasing, sky and haze, and gives to the last bit what MuJoCo's own
    renderer gives without those; what is out of the picture is not worked on, and what stands still is drawn once.
    `lean+` takes coarser meshes, too. `full` is the library's look.

    Args:
        model: its visual options are changed for `lean`; give every renderer a model of its own.
        height, width: pixels.
        quality: one of these.
    """

    def __init__(self, model: mujoco.MjModel, *, height: int, width: int, quality: Quality = "lean") -> None:
        import mujoco

        check_quality(quality)
        self._lean = quality != "full"
        self._model, self._mujoco = model, mujoco
        self._fovy = float(model.vis.global_.fovy)
        _set_size(model, height, width, lean=self._lean)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._frame = np.empty((height, width, 3), np.uint8)
        self._depth = np.empty((height, width), np.float32)
        self._gl: Any = mujoco.GLContext(width, height)
        self._gl.make_current()
        with coarse_meshes(model, max(height, width)) if quality == "lean+" else nullcontext():
            self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        # At exit too, and before MuJoCo's own exit function ends the GL library (registered above, so run later):
        # a renderer that nobody closed would complain loudly.
        atexit.register(_close_if_alive, weakref.ref(self))
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        if self._lean:
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
                self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        self._views: dict[str, mujoco.MjvCamera] = {}
        self._signs = StillSigns(model)
        self._layers: dict[Camera, StillLayer] = {}
        self._appearance: Appearance | None = None
        self._terrain = model.hfield_data.copy()

    def render(self, data: mujoco.MjData, camera: Camera, appearance: Appearance | None = None) -> np.ndarray:
        """The present picture, uint8 [height, width, 3], in memory of its own."""
        self._gl.make_current()
        self._put_on(appearance)
        self._follow_terrain()
        view = self._view(data, camera)
        if self._lean:
            frame = self._lean_frame(data, camera, view)
        else:
            self._compose(data, camera, view, _ALL, None)
            self._draw(self._frame)
            frame = upright(self._frame, turned=camera.flip)
        return frame if appearance is None else appearance.finish(frame)

    def close(self) -> None:
        """Give the GL context back; again does no harm."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def _lean_frame(self, data: mujoco.MjData, camera: Camera, view: mujoco.MjvCamera) -> np.ndarray:
        signs = self._signs.read(data, view)
        layer = self._layers.get(camera)
        if layer is None or layer.signs != signs:  # seen for the first time: what moves never stays longer
            if layer is not None and layer.signs[0] == signs[0]:
                frustum: ViewFrustum | None = layer.frustum
            else:  # what an appearance does to the camera shows only once the scene is made
                frustum = self._frustum(data, view) if self._appearance is None else None
            self._compose(data, camera, view, _ALL, frustum)
            self._layers[camera] = StillLayer(signs, frustum or self._scene_frustum())
        elif layer.opaque and (frame := self._layered_frame(data, camera, view, layer)) is not None:
            return frame
        else:
            self._compose(data, camera, view, _ALL, layer.frustum)
        self._draw(self._frame)
        return upright(self._frame, turned=camera.flip)

    def _layered_frame(self, data: mujoco.MjData, camera: Camera, view: Any, layer: StillLayer) -> np.ndarray | None:
        """The frame, with the standing parts drawn once; None when something see-through is in view."""
        if layer.frame is None:
            self._compose(data, camera, view, _STILL, layer.frustum)
            layer.opaque = self._is_opaque()
            if not layer.opaque:
                return None
            layer.frame, layer.depth = np.empty_like(self._frame), np.empty_like(self._depth)
            self._draw(layer.frame, layer.depth)
        self._compose(data, camera, view, _MOVING, layer.frustum)
        layer.opaque = self._is_opaque()
        if not layer.opaque:
            return None
        self._draw(self._frame, self._depth)
        return put_over(layer, self._frame, self._depth, turned=camera.flip)

    def _put_on(self, appearance: Appearance | None) -> None:
        if appearance is self._appearance:
            return
        self._layers.clear()
        if appearance is not None:
            appearance.upload(self._context)
        self._appearance = appearance

    def _follow_terrain(self) -> None:
        """Tasks may draw a new one for an episode; the context has a copy."""
        if not self._terrain.size or np.array_equal(self._terrain, self._model.hfield_data):
            return
        self._layers.clear()
        for number in range(self._model.nhfield):
            self._mujoco.mjr_uploadHField(self._model, self._context, number)
        self._terrain[:] = self._model.hfield_data

    def _view(self, data: mujoco.MjData, camera: Camera) -> mujoco.MjvCamera:
        if not camera.name:
            self._model.vis.global_.fovy = self._fovy if camera.fovy is None else camera.fovy  # of free cameras only
            return free_camera(self._model, data, camera)
        if camera.name not in self._views:
            view = self._mujoco.MjvCamera()
            view.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = self._model.camera(camera.name).id
            self._views[camera.name] = view
        return self._views[camera.name]

    def _compose(self, data: mujoco.MjData, camera: Camera, view: Any, parts: int, frustum: ViewFrustum | None) -> None:
        """Make the scene of these parts, without what is outside of the frustum."""
        model, update = self._model, self._mujoco.mjv_updateScene
        if frustum is None:
            update(model, data, self._option, None, view, parts, self._scene)
        else:
            with without(model, frustum.hides(data.geom_xpos, model.geom_rbound)):
                update(model, data, self._option, None, view, parts, self._scene)
        if self._appearance is not None:
            self._appearance.dress(self._scene, camera, still=bool(parts & _STILL))

    def _draw(self, frame: np.ndarray, depth: np.ndarray | None = None) -> None:
        """Bottom up, into the arrays."""
        self._mujoco.mjr_render(self._rect, self._scene, self._context)
        self._mujoco.mjr_readPixels(frame, depth, self._rect, self._context)

    def _frustum(self, data: mujoco.MjData, view: mujoco.MjvCamera) -> ViewFrustum:
        self._mujoco.mjv_updateCamera(self._model, data, view, self._scene)
        return self._scene_frustum()

    def _scene_frustum(self) -> ViewFrustum:
        return ViewFrustum(self._scene, aspect=self._rect.width / self._rect.height)

    def _is_opaque(self) -> bool:
        scene = self._scene
        if scene.nskin or scene.nflex:  # in every part of the scene, whether they move or not
            return False
        return all([geom.rgba[3] >= 1 for geom in scene.geoms[: scene.ngeom]])


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
    return view


def _set_size(model: mujoco.MjModel, height: int, width: int, *, lean: bool) -> None:
    """The off-screen buffer: for `lean` no larger than the picture, without shadow map and samples."""
    screen = model.vis.global_
    screen.offwidth = max(width, 1 if lean else screen.offwidth)
    screen.offheight = max(height, 1 if lean else screen.offheight)
    if lean:
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0


def _close_if_alive(reference: weakref.ref[FrameRenderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
