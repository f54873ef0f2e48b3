"""What goes wrong between lens and network: occlusion, blur, exposure, noise, compression.

Each makes a filter for one episode: a function from a frame uint8 [H, W, 3] to another, which leaves its input alone
and gives the same result for the same frame. Lengths are fractions of the frame's height, so a shift looks alike at
any size. Grades follow the idea of ImageNet-C (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from zlib import crc32

import numpy as np
from PIL import Image, ImageFilter

Filter = Callable[[np.ndarray], np.ndarray]

READ_NOISE = (4.0, 8.0, 14.0, 22.0, 32.0)  # standard deviation of 255, by strength
PHOTONS = (1000.0, 500.0, 250.0, 120.0, 60.0)  # that make white; shot noise is their square root
DEFOCUS = 0.004  # standard deviation of the blur, per strength
MOTION = 0.012  # length of the streak, per strength
JPEG_QUALITY = (60, 40, 25, 15, 9)
STOPS = 0.3  # factors of two in brightness, per strength
CONTRAST = 0.08  # per strength
COVERED = 0.04  # of the picture, per strength


def noise(rng: np.random.Generator, strength: int) -> Filter:
    """Gaussian noise of reading and Poisson noise of photons, the latter as its normal limit."""
    key = int(rng.integers(2**32))
    read, photons = READ_NOISE[strength - 1], PHOTONS[strength - 1]
    deviations = np.sqrt(read**2 + np.arange(256) * 255 / photons).astype(np.float32)

    def apply(frame: np.ndarray) -> np.ndarray:
        grains = np.random.default_rng([key, crc32(frame.tobytes())]).standard_normal(frame.shape, np.float32)
        grains *= deviations[frame]
        grains += frame
        return np.clip(grains + 0.5, 0, 255).astype(np.uint8)

    return apply


def blur(rng: np.random.Generator, strength: int) -> Filter:
    """A lens out of focus, or a streak in one direction."""
    moving, direction = rng.random() < 0.5, rng.uniform(0, np.pi)

    def defocus(frame: np.ndarray) -> np.ndarray:
        radius = DEFOCUS * strength * frame.shape[0]
        return np.array(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))

    def streak(frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        kernel = _line(MOTION * strength * height, direction)
        margin = len(kernel) // 2
        padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), mode="edge").astype(np.uint16)
        total = np.full(frame.shape, 128, np.uint16)
        for y, x in np.argwhere(kernel):
            total += kernel[y, x] * padded[y : y + height, x : x + width]
        return (total >> 8).astype(np.uint8)

    return streak if moving else defocus


def _line(length: float, direction: float) -> np.ndarray:
    """A line through the middle, uint16 [K, K] with sum 256; direction in radians."""
    margin = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * margin + 1, 2 * margin + 1))
    for offset in np.linspace(-length / 2, length / 2, 4 * margin + 1):
        x, y = margin + offset * np.cos(direction), margin + offset * np.sin(direction)
        column, row = int(x), int(y)
        right, below = x - column, y - row
        kernel[row : row + 2, column : column + 2] += np.outer([1 - below, below], [1 - right, right])
    weights = np.round(256 * kernel / kernel.sum()).astype(np.uint16)
    weights[margin, margin] += 256 - weights.sum(dtype=int)
    return weights


def jpeg(rng: np.random.Generator, strength: int) -> Filter:
    """Blocks and smeared colours of strong compression."""

    def apply(frame: np.ndarray) -> np.ndarray:
        buffer = BytesIO()
        Image.fromarray(frame).save(buffer, "jpeg", quality=JPEG_QUALITY[strength - 1])
        return np.array(Image.open(buffer))

    return apply


def exposure(rng: np.random.Generator, strength: int) -> Filter:
    """Too bright with little contrast, or too dark with much."""
    sign = 1 if rng.random() < 0.5 else -1
    gain, contrast = 2.0 ** (sign * STOPS * strength), 1 - sign * CONTRAST * strength
    linear = (np.arange(256) / 255) ** 2.2 * gain  # sRGB's gamma, nearly
    table = np.minimum(linear, 1) ** (1 / 2.2)
    table = (255 * np.clip(0.5 + contrast * (table - 0.5), 0, 1) + 0.5).astype(np.uint8)
    return lambda frame: table[frame]


def occlusion(rng: np.random.Generator, strength: int) -> Filter:
    """Dirt on the lens, at the same places through the episode: 1 to 5 discs, dark or pale, away from the middle."""
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * rng.permutation(5) / 5
    distances, shades = rng.uniform(0.3, 0.5, 5), rng.integers(0, 256, 5)
    masks: dict[tuple[int, int], np.ndarray] = {}

    def covered(height: int, width: int) -> np.ndarray:
        """The shade of the dirt, int16 [H, W], or -1."""
        y, x = np.mgrid[:height, :width] / height - 0.5
        shade = np.full((height, width), -1, np.int16)
        for angle, distance, value in list(zip(angles, distances, shades, strict=True))[:strength]:
            away = np.hypot(x - distance * np.cos(angle), y - distance * np.sin(angle))
            shade[away < np.sqrt(COVERED / np.pi)] = value
        return shade

    def apply(frame: np.ndarray) -> np.ndarray:
        size = frame.shape[0], frame.shape[1]
        if size not in masks:
            masks[size] = covered(*size)
        shade = masks[size][..., None]
        return np.where(shade >= 0, shade, frame).astype(np.uint8)

    return apply


# In the order in which they happen.
CORRUPTIONS: dict[str, Callable[[np.random.Generator, int], Filter]] = {
    "occlusion": occlusion,
    "blur": blur,
    "exposure": exposure,
    "noise": noise,
    "jpeg": jpeg,
}
