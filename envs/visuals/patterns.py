"""Procedural textures: float32 [S, S] in [0, 1], each of which continues itself when repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator


def plain(rng: Rng, side: int) -> np.ndarray:
    """One colour."""
    return np.zeros((side, side), np.float32)


def checker(rng: Rng, side: int) -> np.ndarray:
    """2, 4 or 8 squares a side."""
    u, v = _grid(side)
    count = 2 ** int(rng.integers(1, 4))
    return ((np.floor(u * count) + np.floor(v * count)) % 2).astype(np.float32)


def stripes(rng: Rng, side: int) -> np.ndarray:
    """2 to 8 smooth waves across, along a direction that repeats."""
    u, v = _grid(side)
    across, along = rng.integers(2, 9), rng.integers(-3, 4)
    return (0.5 + 0.5 * np.sin(2 * np.pi * (u * across + v * along))).astype(np.float32)


def gradient(rng: Rng, side: int) -> np.ndarray:
    """From one colour to the other and back."""
    u, _ = _grid(side)
    ramp = np.broadcast_to(0.5 - 0.5 * np.cos(2 * np.pi * u), (side, side)).astype(np.float32)
    return ramp if rng.random() < 0.5 else ramp.T


def dots(rng: Rng, side: int) -> np.ndarray:
    """Discs in 3 to 6 rows and columns."""
    u, v = _grid(side)
    count, radius = rng.integers(3, 7), rng.uniform(0.2, 0.4)
    return (np.hypot(u * count % 1 - 0.5, v * count % 1 - 0.5) < radius).astype(np.float32)


def noise(rng: Rng, side: int) -> np.ndarray:
    """Clouds: random phases under a power law."""
    return _clouds(rng, side, rng.uniform(1.0, 2.0))


def wood(rng: Rng, side: int) -> np.ndarray:
    """Grain: bent rings, drawn out along one direction."""
    u, _ = _grid(side)
    bend = _clouds(rng, side, 2.0)[:, :1] + 0.15 * _clouds(rng, side, 1.2)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(3, 8) * u + 1.5 * bend))
    return (0.75 * rings + 0.25 * _clouds(rng, side, 1.0)[:1].T).astype(np.float32)


def marble(rng: Rng, side: int) -> np.ndarray:
    """Veins: the zero crossings of clouds."""
    return np.abs(2 * _clouds(rng, side, 1.6) - 1) ** 0.5


PATTERNS: tuple[Callable[[Rng, int], np.ndarray], ...] = (
    plain,
    checker,
    stripes,
    gradient,
    dots,
    noise,
    wood,
    marble,
)


def draw_texture(rng: Rng, side: int, *, contrast: float) -> np.ndarray:
    """A random pattern between two random colours, uint8 [S, S, 3].

    Args:
        side: S, pixels.
        contrast: in [0, 1]; how far the second colour is from the first.
    """
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, side)
    first, second = draw_colour(rng), draw_colour(rng)
    colours = first + contrast * (second - first) * pattern[..., None]
    return (255 * np.clip(colours, 0, 1)).astype(np.uint8)


def draw_colour(rng: Rng) -> np.ndarray:
    """Red, green, blue in [0, 1], float32 [3]: any hue, neither black nor glaring."""
    hue, saturation, value = rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.95)
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(side) + 0.5) / side
    return line[None, :], line[:, None]


def _clouds(rng: Rng, side: int, power: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    spectrum = np.exp(2j * np.pi * rng.random(frequency.shape)) / np.maximum(frequency, 1) ** power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(side, side))
    low, high = np.percentile(field, (2, 98))
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)
