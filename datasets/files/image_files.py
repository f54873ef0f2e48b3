"""Folders of photographs as square frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from embodied.core.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def list_images(folder: str | Path) -> list[Path]:
    """The image files in `folder` and below it, sorted.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of images or episode store at {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}) and is not an episode store")
    return found


def square(image: Image.Image, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: the short side resized to `size` (bicubic, antialiased), then the centre."""
    return covering(image, size, size)


def covering(image: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: resized (bicubic, antialiased) to just cover that, then the centre."""
    full_width, full_height, left, top = covering_size(*image.size, width=width, height=height)
    if (full_width, full_height) != image.size:
        image = image.resize((full_width, full_height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + width, top + height)), np.uint8)


def covering_size(from_width: int, from_height: int, *, width: int, height: int) -> tuple[int, int, int, int]:
    """Width and height of the resized image that just covers `width` x `height`, and where the centre begins in it."""
    scale = max(width / from_width, height / from_height)
    full_width, full_height = max(width, round(from_width * scale)), max(height, round(from_height * scale))
    return full_width, full_height, (full_width - width) // 2, (full_height - height) // 2


def read_square(path: Path, size: int) -> np.ndarray:
    """The image in a file as uint8 [size, size, 3], turned upright as its EXIF data says.

    Raises:
        UserError: the file is truncated, or no image.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))  # lets JPEG decode at a half, a quarter or an eighth
            return square(ImageOps.exif_transpose(image).convert("RGB"), size)
    # What Pillow raises on damaged files depends on the format; UnidentifiedImageError is an OSError.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(
            f'{path} cannot be read as an image ({error}): delete or replace it, or skip such files (on_error="skip")'
        ) from error
