"""Less detailed copies of the meshes in STL files. V vertices, F triangles."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from embodied.envs.coarse_meshes import clustered_faces

_STL_HEADER_BYTES = 84
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(path: Path) -> np.ndarray:
    """Corners of the triangles of a binary STL file, float32 [F, 3, 3]."""
    corners: np.ndarray = np.frombuffer(path.read_bytes(), _STL_TRIANGLE, offset=_STL_HEADER_BYTES)["corners"]
    return corners


@cache
def hull_points(path: Path, *, grid_m: float) -> np.ndarray:
    """The vertices of a binary STL file in metres, rounded to a grid, float [V, 3]; everybody gets the same array."""
    found: np.ndarray = np.unique(np.round(read_stl(path).reshape(-1, 3) / grid_m), axis=0) * grid_m
    return found


@cache
def coarse_mesh(path: Path, *, cell_m: float) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of a binary STL file in metres, with at most one vertex in every cell of space.

    Args:
        path: of the file.
        cell_m: the side of a cell.

    Returns:
        Vertices float [V, 3] and triangles int [F, 3]; everybody gets the same arrays.
    """
    vertices = read_stl(path).reshape(-1, 3).astype(np.float64)
    _, triangles = clustered_faces(vertices, np.arange(len(vertices)).reshape(-1, 3), cell=cell_m)
    used, triangles = np.unique(triangles, return_inverse=True)
    return vertices[used], triangles.reshape(-1, 3)
