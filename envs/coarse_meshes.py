"""Meshes with no more detail than a small picture shows, for `render=lean+`.

Vertex clustering (Rossignac and Borrel 1993, "Multi-resolution 3D approximations for rendering complex scenes"): space
is cut into cells, all vertices of a cell become one of them, and faces that have collapsed are left out. Departure: the
vertex that stays is the one nearest to the mean, so that no vertex is new and MuJoCo's arrays can hold the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

_FINE = 256  # faces; below that a mesh is left as it is
_CELL = 0.01  # metres, for a picture of 128 pixels: 1.5 of them at a distance of a metre
_CELLS = 32  # along the diagonal of a mesh, at least, for such a picture: 4 pixels of a mesh that fills it
_SIZE = 128


@contextmanager
def coarse_meshes(model: mujoco.MjModel, image_size: int) -> Iterator[None]:
    """While this lasts, the model's meshes look coarser; an `MjrContext` that is made meanwhile keeps them so.

    Only faces are changed, and they are as before afterwards: the simulation never sees this.

    Args:
        model: whose `mesh_face` and the like are changed.
        image_size: pixels of the larger side of the picture.
    """
    names = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
    saved = {name: getattr(model, name).copy() for name in names}
    scale = _SIZE / image_size
    try:
        for mesh in range(model.nmesh):
            if model.mesh_facenum[mesh] > _FINE:
                _coarsen(model, mesh, scale)
        yield
    finally:
        for name, values in saved.items():
            getattr(model, name)[:] = values


def _coarsen(model: mujoco.MjModel, mesh: int, scale: float) -> None:
    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    first = model.mesh_vertadr[mesh]
    vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(np.float64)
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    kept, faces = clustered_faces(
        vertices, model.mesh_face[start : start + count], cell=min(_CELL, diagonal / _CELLS) * scale
    )
    if not len(kept):  # all of it is smaller than a cell
        return
    stop = start + len(kept)
    model.mesh_face[start:stop] = faces
    # The corners' normals and texture coordinates have numbers of their own.
    model.mesh_facenormal[start:stop] = model.mesh_facenormal[start + kept]
    model.mesh_facetexcoord[start:stop] = model.mesh_facetexcoord[start + kept]
    model.mesh_facenum[mesh] = len(kept)


def clustered_faces(vertices: np.ndarray, faces: np.ndarray, *, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """The faces that are left when vertices in one cell of space become one.

    Args:
        vertices: float [V, 3].
        faces: int [F, 3], numbers of vertices.
        cell: the side of a cell, in the unit of the vertices.

    Returns:
        Numbers of the faces that are left, int [K], rising, and their corners, int [K, 3], numbers of vertices.
    """
    place = np.floor((vertices - vertices.min(axis=0)) / cell).astype(np.int64)  # (V, 3)
    number = np.ravel_multi_index(tuple(place.T), tuple(place.max(axis=0) + 1))  # four times as fast as rows
    _, cluster, size = np.unique(number, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(cluster, vertices[:, axis]) for axis in range(3)], axis=1) / size[:, None]
    distance = np.square(vertices - mean[cluster]).sum(axis=1)
    order = np.lexsort((distance, cluster))
    chosen = order[np.cumsum(size) - size]  # the first vertex of every cluster
    corners = chosen[cluster[faces]]  # (F, 3)
    a, b, c = corners.T
    kept = np.flatnonzero((a != b) & (b != c) & (c != a))
    # Several faces may have become one: equal corners in any order that turns the same way.
    turn = corners[kept].argmin(axis=1)
    canonical = np.take_along_axis(corners[kept], (turn[:, None] + np.arange(3)) % 3, axis=1)
    _, unique = np.unique(canonical, axis=0, return_index=True)
    kept = kept[np.sort(unique)]
    return kept, corners[kept]
