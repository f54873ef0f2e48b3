"""Features as pictures. Legend: F frames, N tokens, D width; maps are [rows, columns]."""

from __future__ import annotations

import io
from base64 import b64encode

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

SIDE = 160  # pixels of a frame on the page
_LOUD = 0.65  # how much of the heat covers the frame


def principal_colours(tokens: Float[np.ndarray, "F N D"]) -> tuple[UInt8[np.ndarray, "F N 3"], list[float]]:
    """The three main directions of all patches as red, green and blue; and each one's share of the variance.

    One basis and one scale for all frames: the same colour means the same feature anywhere. Directions point to where
    their largest entry is positive, so that a second run has the same colours.
    """
    frames, patches, width = tokens.shape
    rows = tokens.reshape(-1, width).astype(np.float64)
    rows = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    count = min(3, width)
    basis = vectors[:, ::-1][:, :count]  # (D, 3)
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(count)])
    placed = np.zeros((len(rows), 3))
    placed[:, :count] = rows @ basis
    low, high = np.quantile(placed, [0.01, 0.99], axis=0)
    colours = np.clip((placed - low) / np.maximum(high - low, 1e-12), 0, 1)
    shares = values[::-1][:count] / max(float(values.sum()), 1e-12)
    return (colours * 255).round().astype(np.uint8).reshape(frames, patches, 3), [float(share) for share in shares]


def thumbnail(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S1 S2 3"]:
    """The frame with its longer side at most `SIDE`."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    scale = SIDE / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def heat(
    frame: UInt8[np.ndarray, "H W 3"], values: Float[np.ndarray, "rows columns"], *, low: float, high: float
) -> UInt8[np.ndarray, "S1 S2 3"]:
    """A map over its frame in grey, dark purple at `low`, yellow at `high`."""
    small = thumbnail(frame)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    size = (small.shape[1], small.shape[0])
    smooth = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR))
    colours = matplotlib.colormaps["inferno"](smooth)[..., :3]
    grey = small.mean(axis=2, keepdims=True) / 255
    return ((_LOUD * colours + (1 - _LOUD) * grey) * 255).round().astype(np.uint8)


def jpeg_uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """For photographs inside a page."""
    return _uri(picture, "jpeg", quality=88)


def png_uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """For maps of few pixels inside a page."""
    return _uri(picture, "png", optimize=True)


def _uri(picture: np.ndarray, kind: str, **options: int | bool) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, kind, **options)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
