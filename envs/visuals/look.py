"""The look of an episode: drafted by shifts one after the other, then worn by every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.simulation import Camera, Simulation
from embodied.envs.visuals.cameras import Move, View, view_of
from embodied.envs.visuals.corruptions import Filter
from embodied.envs.visuals.lighting import Light
from embodied.envs.visuals.parts import SceneParts, scene_parts
from embodied.envs.visuals.props import Prop
from embodied.envs.visuals.surfaces import SLOTS, Projection, Surface, has_coordinates, material_of, surface_of, upload

if TYPE_CHECKING:
    import mujoco

Key = tuple[float, ...]  # what surfaces of a model depend on
_HEADROOM = 0.25  # of half the table's width, above it: what hangs higher is not on the table
_ROOM = 0.3  # of the far clipping plane: half the width of the room around everything


class Draft:
    """A look in the making.

    Args:
        simulation: just reset; only read.
        cameras: that will be asked for, by name.
        originals: surfaces of the same model, remembered from draft to draft.

    Attributes:
        parts: of the scene.
        floor: metres; the height of the lowest level plane, or minus infinity.
        views: where each camera stands by now.
        props: what is added to the scene.
        room: its sides, a cube of half side 1 around the camera; empty for none.
        filters: of frames, with their places in the order.
    """

    def __init__(self, simulation: Simulation, cameras: Sequence[str], originals: dict[Key, Surface]) -> None:
        self.simulation = simulation
        self.parts: SceneParts = scene_parts(simulation.model, simulation.data)
        self.floor = self._floor()
        used = [simulation.spec.cameras[name] for name in cameras]
        self._before: dict[Camera, View] = {camera: view_of(simulation, camera, self.parts) for camera in used}
        self.views = dict(self._before)
        self.props: list[Prop] = []
        self.room: list[Prop] = []
        self.filters: list[tuple[int, Filter]] = []
        self._surfaces: dict[int, Surface] = {}
        self._originals = originals
        self._light: Light | None = None

    def change_light(self, light: Light) -> None:
        self._light = light if self._light is None else self._light.then(light)

    def cover(
        self, geoms: np.ndarray, *, amount: float, picture: np.ndarray | None = None, colour: np.ndarray | None = None
    ) -> None:
        """Mix the present surfaces of geoms, int64 [N], with a picture or a colour; see `Surface.mixed`."""
        mixed: dict[int, Surface] = {}
        for geom in geoms.tolist():
            present = self._surface(geom)
            if id(present) not in mixed:
                mixed[id(present)] = present.mixed(amount=amount, picture=picture, colour=colour)
            self._surfaces[geom] = mixed[id(present)]

    def top_at(self, point: np.ndarray) -> float | None:
        """The height of the table at a place, metres [2]; None where something stands on it, or it is not there."""
        import mujoco

        parts, geom = self.parts, np.zeros(1, np.int32)
        start = np.array([*point, parts.high[2] + _HEADROOM * parts.size])
        groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
        model, data = self.simulation.model, self.simulation.data
        distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), groups, 1, -1, geom)
        return float(start[2] - distance) if distance >= 0 and geom[0] in parts.table else None

    def finished(self) -> Look:
        """The look, with everything that does not change from frame to frame worked out."""
        room = self._fitted_room()
        surfaces = [*self._surfaces.values(), *(prop.surface for prop in [*self.props, *room])]
        slots, pictures = _assign(surfaces)
        return Look(
            paints={geom: _Paint.of(surface, slots) for geom, surface in self._surfaces.items()},
            pictures=pictures,
            moves={camera: Move.between(self._before[camera], view) for camera, view in self._moved().items()},
            light=self._light,
            focus=self.parts.focus,
            eyes={camera: view.position for camera, view in self.views.items()},
            period=2 * self.parts.size if self.parts.on_floor else 0.0,
            props=[(prop, _Paint.of(prop.surface, slots)) for prop in self.props],
            room=[(prop, _Paint.of(prop.surface, slots)) for prop in room],
            filters=[step for _, step in sorted(self.filters, key=lambda pair: pair[0])],
        )

    def _surface(self, geom: int) -> Surface:
        import mujoco

        if geom in self._surfaces:
            return self._surfaces[geom]
        model = self.simulation.model
        is_plane = int(model.geom_type[geom]) == mujoco.mjtGeom.mjGEOM_PLANE.value
        key = (is_plane, has_coordinates(model, geom), int(model.geom_matid[geom]), *model.geom_rgba[geom].tolist())
        if key not in self._originals:
            self._originals[key] = surface_of(model, geom)
        return self._originals[key]

    def _moved(self) -> dict[Camera, View]:
        return {camera: view for camera, view in self.views.items() if view is not self._before[camera]}

    def _fitted_room(self) -> list[Prop]:
        model = self.simulation.model
        half = _ROOM * float(model.vis.map.zfar * model.stat.extent)
        return [prop.scaled(half) for prop in self.room]

    def _floor(self) -> float:
        import mujoco

        model, data = self.simulation.model, self.simulation.data
        planes = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (data.geom_xmat[:, 8] > 0.9)
        return float(data.geom_xpos[planes, 2].min(initial=np.inf)) if planes.any() else -np.inf


@dataclass(frozen=True, eq=False)
class _Paint:
    rgba: np.ndarray
    material: int  # that has the picture; -1: none, the rgba alone counts
    explicit: bool

    @classmethod
    def of(cls, surface: Surface, slots: Mapping[int, int]) -> _Paint:
        material, rgba = slots.get(id(surface), -1), surface.rgba
        if surface.picture is not None and material < 0:  # all slots are taken
            rgba = rgba * np.array([*surface.picture.mean(axis=(0, 1)) / 255, 1], np.float32)
        return cls(rgba, material, surface.projection is Projection.EXPLICIT)


def _assign(surfaces: Sequence[Surface]) -> tuple[dict[int, int], list[Surface]]:
    """Materials of the surfaces with pictures, by identity, and those surfaces in the order of their slots."""
    materials: dict[int, int] = {}
    pictures: list[Surface] = []
    for surface in surfaces:
        if surface.picture is not None and id(surface) not in materials and len(pictures) < SLOTS // 2:
            materials[id(surface)] = material_of(len(pictures))
            pictures.append(surface)
    return materials, pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """The look of one episode; implements `rendering.Appearance`."""

    paints: Mapping[int, _Paint]
    pictures: list[Surface]
    moves: Mapping[Camera, Move]
    light: Light | None
    focus: np.ndarray
    eyes: Mapping[Camera, np.ndarray]
    period: float  # metres
    props: Sequence[tuple[Prop, _Paint]]
    room: Sequence[tuple[Prop, _Paint]]
    filters: Sequence[Filter] = field(default_factory=list)

    def upload(self, context: mujoco.MjrContext) -> None:
        if self.pictures:
            upload(context, self.pictures)

    def dress(self, scene: mujoco.MjvScene, camera: Camera, *, still: bool) -> None:
        import mujoco

        if camera in self.moves:
            self.moves[camera].apply(scene)
        if self.light is not None:
            self.light.apply(scene, self.focus)
        if self.paints:
            is_geom = mujoco.mjtObj.mjOBJ_GEOM.value
            for geom in scene.geoms[: scene.ngeom]:
                if geom.objtype == is_geom and (paint := self.paints.get(geom.objid)):
                    geom.rgba[:] = paint.rgba
                    geom.matid, geom.texcoord = paint.material, paint.explicit
        if still and (self.props or self.room):
            self._furnish(scene, camera)

    def _furnish(self, scene: mujoco.MjvScene, camera: Camera) -> None:
        """Add the clutter, which repeats itself for a camera that travels over the floor, and the room."""
        import mujoco

        eye = (scene.camera[0].pos + scene.camera[1].pos) / 2
        travelled = np.zeros(3)
        if self.period:
            travelled[:2] = self.period * np.round((eye - self.eyes[camera])[:2] / self.period)
        for prop, paint in self.props:
            prop.append(scene, prop.position + travelled, paint.rgba, paint.material)
        sky = bool(scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX])
        for prop, paint in self.room:
            rgba = paint.rgba
            if not sky:  # over black, dark is as good as see-through, and cheaper
                rgba = np.array([*rgba[:3] * rgba[3], 1], np.float32)
            prop.append(scene, eye + prop.position, rgba, paint.material)

    def finish(self, frame: np.ndarray) -> np.ndarray:
        for step in self.filters:
            frame = step(frame)
        return frame
