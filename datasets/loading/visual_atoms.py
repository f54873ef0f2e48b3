"""Visual Atoms: labelled pictures of wavy rings, drawn from a seed (Takashima et al. 2023,
https://arxiv.org/abs/2303.01112), in numbers without limit and free of anybody's rights.

    labels = atom_labels(indices, classes=1000)                          # int64 [B]
    frames = render_atoms(indices, size=128, classes=1000, seed=0)       # uint8 [B, 128, 128, 3]

A class fixes the number of vertices and of lines, two frequencies, gain and width of the lines, the innermost radius
and the axes of its ellipse. An image draws the centre, the grey of every line and all of the noise anew.

The ranges are those of the authors' released program. Ours: a picture is a function of (seed, index) and not of how
many workers drew before it; noise is drawn from the distribution of one-dimensional Perlin noise, which theirs is too,
since they read it at places that are far apart; lines are one pixel wide on a canvas of 512 x 512, which is then
resized to the size asked for; consecutive indices go through the classes in turn.

Legend: B batch, L lines, V vertices, S image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

from embodied.core.errors import UsageError
from embodied.core.seeding import numpy_generator

CANVAS = 512  # pixels of either side, in which the ranges below are given
_FREQUENCIES = 20
_LAST_PIXEL = CANVAS - 1


@dataclass(frozen=True)
class Atom:
    """What all images of one class share.

    Attributes:
        vertices: V of each line, 200 to 1000.
        lines: L, 1 to 200.
        frequencies: of two sine waves along a line, 0 to 20 and different, unless both are 0.
        gain: of the noise, 0 to 4 pixels; a line lies about this far outside the one before.
        width: pixels added between lines, 0 to 0.1.
        radius: of the first line in pixels, 10 to 60, times the axes.
        axes: across and down, 1 to 2.
    """

    vertices: int
    lines: int
    frequencies: tuple[int, int]
    gain: float
    width: float
    radius: float
    axes: tuple[float, float]

    def rings(self, rng: np.random.Generator) -> np.ndarray:
        """Vertices of one image around its centre: float32 [L, V, 2] in pixels, across and down, without the centre."""
        angles = 2 * np.pi * np.arange(self.vertices) / self.vertices
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)  # (V, 2)
        first, second = self.frequencies
        waves = (np.sin(first * angles) + np.sin(second * angles)).astype(np.float32) / 2  # (V)
        draws = rng.integers(0, 1 << 16, (self.lines, self.vertices, 2), dtype=np.uint16)
        steps = perlin_values()[draws]  # (L, V, 2): noise of its own across and down
        steps = np.float32(self.gain) * (1 - steps) + waves[:, None] + np.float32(self.width)
        radii = np.cumsum(steps, axis=0, out=steps) + np.float32(self.radius) * np.asarray(self.axes, np.float32)
        return np.asarray(circle * radii, np.float32)


def atom_labels(indices: np.ndarray, classes: int) -> np.ndarray:
    """The class of each image: int64 [B] from indices int64 [B].

    Raises:
        UsageError: there is no class.
    """
    if classes < 1:
        raise UsageError(f"classes of visual_atoms must be at least 1, got {classes}")
    return np.asarray(indices, np.int64) % classes


def render_atoms(indices: np.ndarray, *, size: int, classes: int, seed: int) -> np.ndarray:
    """Images uint8 [B, S, S, 3], grey on black.

    Args:
        indices: int64 [B], not negative.
        size: S in pixels.
        classes: see `atom_labels`; classes below keep their looks when there are more.
        seed: of the classes and of the images.

    Raises:
        UsageError: an argument makes no sense.
    """
    if size < 1 or np.min(indices, initial=0) < 0:
        raise UsageError(f"size must be at least 1 and no index negative, got {size} and {np.min(indices, initial=0)}")
    found = np.empty((len(indices), size, size, 3), np.uint8)
    for row, (index, label) in enumerate(zip(indices, atom_labels(indices, classes), strict=True)):
        found[row] = _image(int(index), atom(int(label), seed), seed, size)[..., None]
    return found


@lru_cache(maxsize=1 << 16)
def atom(label: int, seed: int) -> Atom:
    """The class `label` of a seed."""
    rng = numpy_generator(seed, "visual_atoms", "class", label)
    first = int(rng.integers(0, _FREQUENCIES + 1))
    # Two sines of one frequency would be one of twice the height; only silence may be doubled.
    second = int(rng.integers(0, _FREQUENCIES + (first == 0)))
    return Atom(
        vertices=int(rng.integers(200, 1001)),
        lines=int(rng.integers(1, 201)),
        frequencies=(first, second + (first != 0 and second >= first)),
        gain=float(rng.uniform(0, 4)),
        width=float(rng.uniform(0, 0.1)),
        radius=float(rng.uniform(10, 60)),
        axes=(float(rng.uniform(1, 2)), float(rng.uniform(1, 2))),
    )


@cache
def perlin_values() -> np.ndarray:
    """One-dimensional Perlin noise at 65,536 equally likely points: float32, in (-0.953, 0.953).

    Between two neighbouring gradients, of which each is -1 in half of all cases and 1 to 8 in the others (the noise
    library of the authors' program), at one of 256 distances.
    """
    gradients = np.array([-1.0] * 8 + list(range(1, 9)))
    place = (np.arange(256) + 0.5) / 256
    fade = place**3 * (place * (6 * place - 15) + 10)
    left, right = gradients[None, :, None], gradients[None, None, :]
    place, fade = place[:, None, None], fade[:, None, None]
    values = 0.4 * ((1 - fade) * left * place + fade * right * (place - 1))  # (256, 16, 16)
    return values.astype(np.float32).ravel()


def _image(index: int, kind: Atom, seed: int, size: int) -> np.ndarray:
    """uint8 [S, S]."""
    rng = numpy_generator(seed, "visual_atoms", "image", index)
    centre = (CANVAS + rng.integers(-CANVAS, CANVAS + 1, 2)) / 2
    greys = rng.integers(0, 256, kind.lines)
    points = kind.rings(rng) + centre.astype(np.float32)
    points = np.concatenate([points, points[:, :1]], axis=1)  # (L, V + 1, 2): closed
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    for number in np.flatnonzero(_touches_canvas(points)):
        draw.line(points[number], fill=int(greys[number]))  # Pillow reads float32 buffers, faster than lists
    return np.asarray(canvas.resize((size, size), Image.Resampling.BILINEAR))


def _touches_canvas(points: np.ndarray) -> np.ndarray:
    """bool [L]: whether a box around any segment of a line meets the canvas; outer lines often lie all around it."""
    low, high = np.minimum(points[:, 1:], points[:, :-1]), np.maximum(points[:, 1:], points[:, :-1])
    return np.asarray(((high >= 0) & (low <= _LAST_PIXEL)).all(axis=2).any(axis=1))
