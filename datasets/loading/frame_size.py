"""Frames of a store at the size that a model wants: colour images resized, depth sampled, RAW left alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from embodied.core.errors import UsageError
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.files.image_files import covering, covering_size
from embodied.datasets.store.episode_index import KeySpec

DEPTH_PREFIX = "observation.depth."

ImageSize = int | tuple[int, int] | None
"""Height and width, one number for both, or None for the size in the store."""


def sized_shape(key: str, spec: KeySpec, image_size: ImageSize) -> tuple[int, ...]:
    """The shape of a key's frames at `image_size`: only `observation.images.*` and `observation.depth.*` change.

    Raises:
        UsageError: the size makes no sense, or the key's frames are no images.
    """
    if image_size is None or not key.startswith((IMAGE_PREFIX, DEPTH_PREFIX)):
        return spec.shape
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UsageError(f"image_size must be a positive number, or a height and a width, got {image_size}")
    depth = key.startswith(DEPTH_PREFIX)
    if len(spec.shape) != (2 if depth else 3) or not (depth or (spec.dtype == "uint8" and spec.shape[2] == 3)):
        wanted = "[T, H, W]" if depth else "uint8 [T, H, W, 3]"
        raise UsageError(f"{key}: only {wanted} can be resized, got {spec.describe()}; leave image_size out")
    return (*size, *spec.shape[2:])


def sized(key: str, frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Frames [T, H, W, ...] with each frame of `shape`, from `sized_shape`.

    Colour is resized (bicubic, antialiased) so that it just covers the new size, and the centre is taken: proportions
    stay. Depth gets the nearest value of the same part of the picture, since values between two surfaces exist nowhere.
    """
    if frames.shape[1:] == shape:
        return frames
    height, width = shape[:2]
    if not key.startswith(DEPTH_PREFIX):
        return np.stack([covering(Image.fromarray(frame), height, width) for frame in frames])
    from_height, from_width = frames.shape[1:]
    full_width, full_height, left, top = covering_size(from_width, from_height, width=width, height=height)
    rows = ((np.arange(height) + top + 0.5) * from_height / full_height).astype(np.int64)
    columns = ((np.arange(width) + left + 0.5) * from_width / full_width).astype(np.int64)
    return frames[:, rows[:, None], columns[None, :]]
