"""The part of a picture that stands still is drawn once; what moves is put over it, pixel by pixel, by its depth.

Half of the work in a scene is the room, the table and the base of the robot. The result is the picture that drawing all
at once gives, as long as nothing is see-through: that would have to be blended with what lies behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.view_frustum import ViewFrustum

if TYPE_CHECKING:
    import mujoco

# Fields of the model that a picture of the standing parts depends on.
_LOOK = (
    ("geom", ("rgba", "size", "matid", "group", "dataid")),
    ("site", ("rgba", "size", "matid", "group")),
    ("mat", ("rgba", "texid", "texrepeat", "emission", "specular", "shininess")),
    ("light", ("active", "diffuse", "ambient", "specular", "attenuation", "cutoff", "exponent", "directional")),
)


class StillSigns:
    """Tells whether the standing parts of a scene, its lights and its camera are as they were."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._look = [getattr(model, f"{kind}_{name}") for kind, names in _LOOK for name in names]
        self._headlight = model.vis.headlight
        self._fovy = model.cam_fovy
        still = (model.body_weldid == 0) & (model.body_mocapid[model.body_rootid] < 0)  # what mjCAT_STATIC means
        self._geoms = np.flatnonzero(still[model.geom_bodyid])
        self._sites = np.flatnonzero(still[model.site_bodyid])

    def read(self, data: mujoco.MjData, view: mujoco.MjvCamera) -> tuple[bytes, bytes]:
        """Of the camera, and of the rest: equal bytes, equal picture of the standing parts."""
        head = self._headlight
        arrays = [
            *self._look,
            data.geom_xpos[self._geoms],
            data.geom_xmat[self._geoms],
            data.site_xpos[self._sites],
            data.site_xmat[self._sites],
            data.light_xpos,
            data.light_xdir,
            head.ambient,
            head.diffuse,
            head.specular,
        ]
        rest = b"".join([array.tobytes() for array in arrays]) + bytes([head.active])
        number = view.fixedcamid
        if number >= 0:
            pose = data.cam_xpos[number].tobytes() + data.cam_xmat[number].tobytes()
            return pose + self._fovy[number].tobytes(), rest
        return np.array((*view.lookat, view.distance, view.azimuth, view.elevation)).tobytes(), rest


@dataclass
class StillLayer:
    """What is known of one camera's standing picture.

    Args:
        signs: of `StillSigns`; this holds for no others.
        frustum: of the camera.
        opaque: nothing see-through has come into view yet.
        frame, depth: the picture, uint8 [H, W, 3] and float32 [H, W] in [0, 1], bottom up; nearer is larger, and 0 is
            nothing. None: not drawn yet.
    """

    signs: tuple[bytes, bytes]
    frustum: ViewFrustum
    opaque: bool = True
    frame: np.ndarray | None = None
    depth: np.ndarray | None = None


def put_over(layer: StillLayer, frame: np.ndarray, depth: np.ndarray, *, turned: bool) -> np.ndarray:
    """The layer with what moves in front of it, uint8 [H, W, 3], upright, or turned by 180 degrees; memory of its own.

    Args:
        layer: drawn.
        frame, depth: of what moves, like the layer's.
        turned: whether by 180 degrees.
    """
    assert layer.frame is not None and layer.depth is not None
    whole = layer.frame.copy()
    nearer = np.flatnonzero((depth >= layer.depth) & (depth > 0))
    _pixels(whole)[nearer] = _pixels(frame)[nearer]
    return upright(whole, turned=turned)


def upright(frame: np.ndarray, *, turned: bool) -> np.ndarray:
    """A copy of a frame that is bottom up, uint8 [H, W, 3], the right way round; or turned by 180 degrees."""
    if not turned:
        return np.ascontiguousarray(frame[::-1])
    height, width, _ = frame.shape
    mirrored = np.ascontiguousarray(_pixels(frame).reshape(height, width)[:, ::-1])
    return mirrored.view(np.uint8).reshape(height, width, 3)


def _pixels(frame: np.ndarray) -> np.ndarray:
    """A view of contiguous uint8 [H, W, 3] as one element per pixel: three bytes at a time move twice as fast."""
    return frame.reshape(-1).view("V3")
