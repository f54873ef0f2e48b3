"""Geoms of a scene that its model has not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.visuals.surfaces import Surface

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True, kw_only=True, eq=False)
class Prop:
    """A thing that is drawn and otherwise not there.

    Args:
        shape: name of a `mujoco.mjtGeom`.
        size: metres, as MuJoCo wants it for the shape.
        axes: [3, 3], its orientation.
        surface: its cover.
        height: metres from its foot to its middle.
        position: metres [3], of its middle.
    """

    shape: str
    size: tuple[float, float, float]
    axes: np.ndarray
    surface: Surface
    height: float
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def at(self, position: np.ndarray) -> Prop:
        return replace(self, position=position)

    def scaled(self, factor: float) -> Prop:
        """It and its distance from the origin, larger by a factor."""
        x, y, z = self.size
        size = factor * x, factor * y, factor * z
        return replace(self, size=size, height=factor * self.height, position=factor * self.position)

    def append(self, scene: mujoco.MjvScene, position: np.ndarray, rgba: np.ndarray, material: int) -> None:
        """Add it to a scene, unless that is full; `material` is the number that shows its picture, or -1."""
        import mujoco

        if scene.ngeom >= scene.maxgeom:
            return
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom,
            getattr(mujoco.mjtGeom, self.shape),
            np.array(self.size),
            position,
            self.axes.ravel(),
            rgba,
        )
        geom.category = mujoco.mjtCatBit.mjCAT_STATIC  # decoration would cast no shadow
        geom.matid = material
        geom.objtype, geom.objid, geom.segid = mujoco.mjtObj.mjOBJ_UNKNOWN, -1, scene.ngeom
        geom.transparent = bool(rgba[3] < 1)
        scene.ngeom += 1
