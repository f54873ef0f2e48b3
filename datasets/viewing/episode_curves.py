"""State and action of an episode as curves over time, as a picture with room for a time mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from embodied.core.protocols import ACTION, REWARD, STATE
from embodied.datasets.store.episode_store import EpisodeStore

_MOST_POINTS = 2000  # of a curve; more are not seen
_MOST_NAMED = 10  # curves with a legend
_LEFT, _RIGHT, _LEGEND, _BOTTOM, _ROW = 56, 24, 130, 34, 120  # pixels
_DPI = 100


@dataclass(frozen=True)
class Curves:
    """`picture` uint8 [H, W, 3]; a time of `t` seconds is at column `left + t * columns_per_second`."""

    picture: np.ndarray
    left: float
    columns_per_second: float

    def column(self, seconds: float) -> int:
        """Where a time is, in pixels from the left."""
        return round(self.left + seconds * self.columns_per_second)


def draw_curves(store: EpisodeStore, episode: int, *, width: int, marks: Sequence[float] = ()) -> Curves | None:
    """The curves of one episode, a row each for state, action and reward; None if the store has none of them.

    Args:
        store: to read from.
        episode: its number.
        width: pixels.
        marks: times in seconds that get a thin line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = [key for key in (STATE, ACTION, REWARD) if key in store.keys]
    if not keys:
        return None
    info = store.episodes[episode]
    seconds = max(info.length - 1, 1) / store.fps
    height = _ROW * len(keys) + _BOTTOM
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    named = any(1 < prod(store.keys[key].shape) <= _MOST_NAMED for key in keys)
    inner = width - _LEFT - (_LEGEND if named else _RIGHT)
    for row, key in enumerate(keys):
        bottom = (_BOTTOM + _ROW * (len(keys) - 1 - row) + 8) / height
        axes = figure.add_axes((_LEFT / width, bottom, inner / width, (_ROW - 26) / height))
        _plot(axes, store, episode, key)
        for mark in marks:
            axes.axvline(mark, color="0.8", linewidth=0.6, zorder=0)
        axes.set_xlim(0, seconds)
        axes.set_title(f"{key}  ({_size(store, key)})", fontsize=8, loc="left", pad=3)
        axes.tick_params(labelsize=7, labelbottom=row == len(keys) - 1)
        axes.spines[["top", "right"]].set_visible(False)
        if row == len(keys) - 1:
            axes.set_xlabel("seconds", fontsize=8, labelpad=2)
    canvas.draw()
    return Curves(np.asarray(canvas.buffer_rgba())[..., :3].copy(), float(_LEFT), inner / seconds)


def _plot(axes: object, store: EpisodeStore, episode: int, key: str) -> None:
    from matplotlib import colormaps

    values = store.read_episode(episode, [key])[key].reshape(store.episodes[episode].length, -1)
    step = max(1, len(values) // _MOST_POINTS)
    times = np.arange(0, len(values), step) / store.fps
    count = values.shape[1]
    names = store.keys[key].names if len(store.keys[key].names) == count else tuple(map(str, range(count)))
    palette = colormaps["tab10"] if count <= _MOST_NAMED else colormaps["turbo"]
    for element in range(count):
        colour = palette(element if count <= _MOST_NAMED else element / (count - 1))
        axes.plot(times, values[::step, element], color=colour, linewidth=0.9, label=_short(names[element]))  # type: ignore[attr-defined]
    if 1 < count <= _MOST_NAMED:
        options = {"fontsize": 6, "frameon": False, "borderaxespad": 0, "handlelength": 1.2, "labelspacing": 0.15}
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), ncols=1 + (count > 7), **options)  # type: ignore[attr-defined]


def _size(store: EpisodeStore, key: str) -> str:
    count = prod(store.keys[key].shape)
    return "1 value" if count == 1 else f"{count} values"


def _short(name: str) -> str:
    text = name.replace("$", r"\$")  # matplotlib reads formulas between dollars
    text = f"_{text}"[1:] if not text.startswith("_") else f" {text}"  # and hides labels that begin with _
    return text if len(text) <= 18 else f"…{text[-17:]}"
