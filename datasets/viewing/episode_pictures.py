"""The pictures of an episode as a person sees them: camera images, depth in colours, sensor values in grey."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.key_casting import DEPTH_PREFIX, RAW_PREFIX
from embodied.datasets.store.episode_store import EpisodeStore

WIDEST = 3.0  # width over height of a picture as it is shown
_MOST_CHANNELS = 4

Painter = Callable[[np.ndarray], np.ndarray]
"""Stored frames [T, H, W, ...] to uint8 [T, H, W, 3]."""


def painters(store: EpisodeStore) -> dict[str, Painter]:
    """How to show each key of a store that holds pictures, by key, in the store's order."""
    found: dict[str, Painter] = {}
    for key, spec in store.keys.items():
        if key.startswith(IMAGE_PREFIX):
            found[key] = lambda frames: frames
        elif key.startswith((DEPTH_PREFIX, RAW_PREFIX)) and _is_plane(spec.shape):
            found[key] = _plane_painter(store, key)
    return found


def short_name(key: str) -> str:
    """The camera of a key, with what it shows where that is no colour image."""
    for prefix, word in ((IMAGE_PREFIX, ""), (DEPTH_PREFIX, " (depth)"), (RAW_PREFIX, " (raw)")):
        if key.startswith(prefix):
            return key.removeprefix(prefix) + word
    return key


def resized(frame: np.ndarray, height: int) -> Image.Image:
    """A frame uint8 [H, W, 3] at another height, smooth, or in clear pixels where it grows much.

    What is wider than three times its height is squeezed to that.
    """
    width = max(1, round(min(frame.shape[1] / frame.shape[0], WIDEST) * height))
    method = Image.Resampling.NEAREST if height >= 8 * frame.shape[0] else Image.Resampling.BICUBIC
    return Image.fromarray(np.ascontiguousarray(frame)).resize((width, height), method)


def write_text(canvas: ImageDraw.ImageDraw, place: tuple[int, int], text: str, *, size: int, width: int) -> None:
    """Text in dark grey, cut with an ellipsis where it would be wider than `width` pixels."""
    font = ImageFont.load_default(size=size)
    shown = printable(text)
    while shown and canvas.textlength(shown, font=font) > width:
        shown = shown[:-2].rstrip() + "…" if not shown.endswith("…") else shown[:-2] + "…"
        if shown == "…":
            break
    canvas.text(place, shown, fill=(40, 40, 40), font=font)


def printable(text: str) -> str:
    """One line without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _is_plane(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] <= _MOST_CHANNELS)


def _plane_painter(store: EpisodeStore, key: str) -> Painter:
    """The first channel, from the key's 1 % to its 99 % quantile over the palette; nan and infinity are black."""
    statistics: Mapping[str, np.ndarray] = store.statistics(key)
    low, high = float(np.min(statistics["q01"])), float(np.max(statistics["q99"]))
    palette = _palette(coloured=key.startswith(DEPTH_PREFIX))

    def paint(frames: np.ndarray) -> np.ndarray:
        values = frames.reshape(*frames.shape[:3], -1)[..., 0].astype(np.float64)  # (T, H, W)
        valid = np.isfinite(values)
        scaled = (np.where(valid, values, low) - low) / max(high - low, 1e-12)
        painted = palette[np.clip(scaled * 255, 0, 255).astype(np.uint8)]
        painted[~valid] = 0
        return painted

    return paint


def _palette(*, coloured: bool) -> np.ndarray:
    """uint8 [256, 3]."""
    if not coloured:
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    from matplotlib import colormaps

    return (colormaps["turbo"](np.arange(256))[:, :3] * 255).astype(np.uint8)
