"""Which geoms a camera cannot see: those are left out before their vertices are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import hypot
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

_NO_GROUP = 5  # of geoms and sites: not drawn by `MjvOption`'s defaults


class ViewFrustum:
    """What the camera of a scene sees, as planes.

    Args:
        scene: after `mjv_updateScene` (and `Appearance.dress`), for its camera.
        aspect: width over height of the picture.
    """

    def __init__(self, scene: mujoco.MjvScene, *, aspect: float) -> None:
        left, right = scene.camera  # of a stereo pair; the picture is taken from between
        self._eye = (left.pos + right.pos.astype(np.float64)) / 2
        middle = (left.frustum_center + right.frustum_center) / 2
        half = left.frustum_width or (left.frustum_top - left.frustum_bottom) / 2 * aspect
        bottom, top, near = left.frustum_bottom, left.frustum_top, left.frustum_near
        self._open = bool(left.orthographic)  # a box then: not worth planes of its own
        # Normals that point outwards, in the camera's frame (right, up, forward).
        normals = np.array(
            [
                _unit(near, 0.0, -(middle + half)),
                _unit(-near, 0.0, middle - half),
                _unit(0.0, near, -top),
                _unit(0.0, -near, bottom),
                (0.0, 0.0, -1.0),
            ]
        )
        (x, y, z), (u, v, w) = left.forward.tolist(), left.up.tolist()
        aside = (y * w - z * v, z * u - x * w, x * v - y * u)  # forward x up
        self._outwards = normals @ np.array((aside, (u, v, w), (x, y, z)))  # (planes, xyz)

    def hides(self, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Which spheres are out of the picture altogether, bool [G]; metres [G, 3] and [G], 0 for endless ones."""
        if self._open:
            return np.zeros(len(radii), bool)
        outside = self._outwards @ (centres - self._eye).T  # (planes, G)
        return (outside.max(axis=0) > 1.01 * radii) & (radii > 0)


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    length = hypot(x, y, z)
    return x / length, y / length, z / length


@contextmanager
def without(model: mujoco.MjModel, hidden: np.ndarray) -> Iterator[None]:
    """While this lasts, a scene that is made of the model has neither these geoms, bool [G], nor unseen sites.

    Sites of negative opacity draw nothing, and take as long as others: robosuite switches its markers off that way.
    """
    unseen = (model.site_rgba[:, 3] < 0) & (model.site_matid < 0)
    geom_group, site_group = model.geom_group.copy(), model.site_group.copy()
    model.geom_group[hidden] = _NO_GROUP
    model.site_group[unseen] = _NO_GROUP
    try:
        yield
    finally:
        model.geom_group[:] = geom_group
        model.site_group[:] = site_group
