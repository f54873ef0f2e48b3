"""What the geoms of a scene are covered with, and textures of our own beside those of the model.

A MuJoCo GL context has room for 1,000 textures and 1,000 materials, whatever its model has. Ours take the last places,
so that any geom, textured or not, may be given any picture, and nothing of the model is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import mujoco

SLOTS = 48  # textures of ours in a context, two for each surface
_FIRST_TEXTURE = 1000 - SLOTS
_FIRST_MATERIAL = 960 - SLOTS  # the last material is the sky's
_SIDE = 128  # pixels of a texture


class Projection(Enum):
    """How a texture comes onto a geom."""

    CUBE = "cube"  # from six sides
    FLAT = "flat"  # along the geom's x and y
    EXPLICIT = "explicit"  # by the mesh's own coordinates


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The cover of one or several geoms.

    Args:
        rgba: float32 [4]; multiplies the texture.
        picture: uint8 [128, 128, 3], or None.
        projection: how the picture comes onto the geom.
        repeat: repetitions of a flat picture along x and y.
        uniform: whether `repeat` counts per length unit of the scene instead of per geom.
    """

    rgba: np.ndarray
    picture: np.ndarray | None = None
    projection: Projection = Projection.CUBE
    repeat: tuple[float, float] = (1.0, 1.0)
    uniform: bool = False

    def mixed(self, *, amount: float, picture: np.ndarray | None = None, colour: np.ndarray | None = None) -> Surface:
        """Between this surface (amount 0) and one with that picture, uint8 [H, W, 3], or colour, float [3] (1)."""
        target = np.ones(3, np.float32) if colour is None else colour
        rgb = (1 - amount) * self.rgba[:3] + amount * target
        rgba = np.array([*rgb, self.rgba[3]], np.float32)
        if picture is None and self.picture is None:
            return replace(self, rgba=rgba)
        white = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
        if picture is None:  # the old picture fades, until only the colour is left
            picture = white
        old, new = self.picture, resized(picture)
        if old is None:  # its colour, as a picture
            old = (255 * np.clip(self.rgba[:3], 0, 1)).astype(np.uint8)[None, None]
            rgba = np.array([1, 1, 1, self.rgba[3]], np.float32)
        blend = (1 - amount) * old.astype(np.float32) + amount * new
        return replace(self, rgba=rgba, picture=np.broadcast_to(blend, white.shape).astype(np.uint8))


def resized(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, 3] at the size of our textures."""
    if picture.shape[:2] == (_SIDE, _SIDE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX))


def surface_of(model: mujoco.MjModel, geom: int) -> Surface:
    """What a geom of the model is covered with; one face stands for all six of a cube."""
    import mujoco

    material, rgba = int(model.geom_matid[geom]), model.geom_rgba[geom].copy()
    is_plane = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE
    bare = Projection.FLAT if is_plane else Projection.CUBE
    if material < 0:
        return Surface(rgba=rgba, projection=bare, uniform=bool(is_plane))
    if (rgba == np.array([0.5, 0.5, 0.5, 1], np.float32)).all():  # MuJoCo's sign for: the material's colour
        rgba = model.mat_rgba[material].copy()
    texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture < 0 or model.tex_nchannel[texture] < 3:
        return Surface(rgba=rgba, projection=bare, uniform=bool(is_plane))
    flat = model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D
    explicit = flat and not is_plane and has_coordinates(model, geom)
    x, y = model.mat_texrepeat[material]
    return Surface(
        rgba=rgba,
        picture=resized(picture_of(model, texture)),
        projection=Projection.EXPLICIT if explicit else Projection.FLAT if flat else Projection.CUBE,
        repeat=(float(x), float(y)),
        uniform=bool(model.mat_texuniform[material]),
    )


def picture_of(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """A texture of the model uint8 [H, W, 3]; of cubes the first face."""
    width, height, channels = (int(a[texture]) for a in (model.tex_width, model.tex_height, model.tex_nchannel))
    start = int(model.tex_adr[texture])
    pixels = model.tex_data[start : start + width * height * channels].reshape(height, width, channels)
    return np.ascontiguousarray(pixels[: min(height, width) if height % width == 0 else height, :, :3])


def has_coordinates(model: mujoco.MjModel, geom: int) -> bool:
    """Whether a geom is a mesh that says which point of a picture comes where."""
    mesh = int(model.geom_dataid[geom])
    return mesh >= 0 and bool(model.mesh_texcoordadr[mesh] >= 0)


def material_of(slot: int) -> int:
    """The material number that shows the texture of that slot, for `mjvGeom.matid`."""
    return _FIRST_MATERIAL + slot


def upload(context: mujoco.MjrContext, surfaces: list[Surface]) -> None:
    """Put the pictures of these surfaces into the slots 0, 1, ... of a GL context that is current.

    Textures of cubes and of planes take different places of the same slot: GL binds a name to one kind for ever.
    """
    import mujoco
    from OpenGL import GL

    assert len(surfaces) <= SLOTS // 2, len(surfaces)
    if not context.texture[_FIRST_TEXTURE]:
        context.texture[_FIRST_TEXTURE:] = GL.glGenTextures(SLOTS)
        context.ntexture = _FIRST_TEXTURE + SLOTS  # so that MuJoCo frees them with the others
        for axis in (GL.GL_S, GL.GL_T, GL.GL_R):  # as MuJoCo sets it for the first texture of a model, if there is one
            GL.glTexGeni(axis, GL.GL_TEXTURE_GEN_MODE, GL.GL_OBJECT_LINEAR)
    roles = int(mujoco.mjtTextureRole.mjNTEXROLE)
    for slot, surface in enumerate(surfaces):
        assert surface.picture is not None and surface.picture.shape == (_SIDE, _SIDE, 3), surface
        cube = surface.projection is Projection.CUBE
        texture, material = _FIRST_TEXTURE + 2 * slot + cube, material_of(slot)
        _send(int(context.texture[texture]), surface.picture, cube=cube)
        kind = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
        context.textureType[texture] = int(kind)
        context.mat_texid[material * roles : (material + 1) * roles] = -1
        context.mat_texid[material * roles + int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = texture
        context.mat_texuniform[material] = surface.uniform
        context.mat_texrepeat[2 * material : 2 * material + 2] = surface.repeat


def _send(name: int, picture: np.ndarray, *, cube: bool) -> None:
    from OpenGL import GL

    target = GL.GL_TEXTURE_CUBE_MAP if cube else GL.GL_TEXTURE_2D
    wrap = GL.GL_CLAMP_TO_EDGE if cube else GL.GL_REPEAT
    GL.glActiveTexture(GL.GL_TEXTURE0)
    GL.glBindTexture(target, name)
    for axis in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T, GL.GL_TEXTURE_WRAP_R):
        GL.glTexParameteri(target, axis, wrap)
    GL.glTexParameteri(target, GL.GL_TEXTURE_MAG_FILTER, GL.GL_LINEAR)
    GL.glTexParameteri(target, GL.GL_TEXTURE_MIN_FILTER, GL.GL_LINEAR_MIPMAP_LINEAR)
    faces = [GL.GL_TEXTURE_CUBE_MAP_POSITIVE_X + face for face in range(6)] if cube else [GL.GL_TEXTURE_2D]
    pixels = picture.tobytes()
    for face in faces:
        GL.glTexImage2D(face, 0, GL.GL_RGB, _SIDE, _SIDE, 0, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, pixels)
    GL.glGenerateMipmap(target)
    GL.glBindTexture(target, 0)
