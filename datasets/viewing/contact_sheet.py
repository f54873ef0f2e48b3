"""An episode for people: on one page, a row of evenly spaced frames per camera and curves below; or as a video."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from embodied.core.errors import UsageError
from embodied.datasets.store.episode_index import EpisodeInfo
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.viewing.episode_curves import draw_curves
from embodied.datasets.viewing.episode_pictures import WIDEST, painters, resized, short_name, write_text

_TILE, _GAP, _TITLE, _CAPTION = 160, 6, 30, 18  # pixels
_LEAST_WIDTH = 900
_VIDEO_WIDTH, _LEAST_VIDEO_TILE, _MOST_VIDEO_TILE, _VIDEO_CAPTION = 640, 240, 480, 44
_BLOCK = 32  # frames decoded at a time for a video
_MARK = (220, 38, 38)


def contact_sheet(store: EpisodeStore, episode: int, *, columns: int = 8, curves: bool = True) -> np.ndarray:
    """The page of one episode, uint8 [H, W, 3].

    Args:
        store: to read from.
        episode: its number.
        columns: frames per camera; fewer where the episode is shorter.
        curves: whether state, action and reward are drawn.

    Raises:
        UserError: what is to be shown is damaged.
    """
    if columns < 1:
        raise UsageError(f"columns must be at least 1, got {columns}")
    info = store.episodes[episode]
    shown = np.unique(np.rint(np.linspace(0, info.length - 1, min(columns, info.length))).astype(int))
    rows = [
        (short_name(key), [resized(paint(_frame(store, key, info, offset))[0], _TILE) for offset in shown])
        for key, paint in painters(store).items()
    ]
    needed = max((sum(tile.width + _GAP for tile in tiles) + _GAP for _, tiles in rows), default=_LEAST_WIDTH)
    width = max(_LEAST_WIDTH, needed)
    height = _TITLE + len(rows) * (_TILE + 2 * _CAPTION + _GAP)
    page = Image.new("RGB", (width, height), "white")
    canvas = ImageDraw.Draw(page)
    write_text(canvas, (_GAP, 6), episode_title(store, info), size=15, width=width - 2 * _GAP)
    top = _TITLE
    for name, tiles in rows:
        write_text(canvas, (_GAP, top), name, size=13, width=width - 2 * _GAP)
        left = _GAP
        for offset, tile in zip(shown, tiles, strict=True):
            page.paste(tile, (left, top + _CAPTION))
            caption = f"{offset / store.fps:.2f} s   frame {offset}"
            write_text(canvas, (left, top + _CAPTION + _TILE + 1), caption, size=11, width=tile.width)
            left += tile.width + _GAP
        top += _TILE + 2 * _CAPTION + _GAP
    sheet = np.asarray(page)
    drawn = draw_curves(store, episode, width=width, marks=[o / store.fps for o in shown]) if curves else None
    return sheet if drawn is None else np.concatenate([sheet, drawn.picture])


def video_frames(store: EpisodeStore, episode: int, *, curves: bool = True) -> Iterator[np.ndarray]:
    """The frames of one episode, all cameras side by side under a caption, uint8 [H, W, 3] with even sides.

    Args:
        store: to read from; a few frames at a time.
        episode: its number.
        curves: whether state, action and reward are drawn below, with a line at the time of the frame.
    """
    info, shown = store.episodes[episode], painters(store)
    tile_height, lefts, width = _video_layout(store, list(shown))
    drawn = draw_curves(store, episode, width=width) if curves else None
    height = _VIDEO_CAPTION + (tile_height if shown else 0) + (len(drawn.picture) if drawn else 0)
    background = Image.new("RGB", (width, (height + 1) // 2 * 2), "white")
    for key, left in lefts.items():
        write_text(ImageDraw.Draw(background), (left + 4, 25), short_name(key), size=13, width=width - left)
    if drawn is not None:
        background.paste(Image.fromarray(drawn.picture), (0, height - len(drawn.picture)))
    title = episode_title(store, info)
    for start in range(0, info.length, _BLOCK):
        stop = min(start + _BLOCK, info.length)
        blocks = {key: paint(store.read(key, info.start + start, info.start + stop)) for key, paint in shown.items()}
        for offset in range(start, stop):
            page, seconds = background.copy(), offset / store.fps
            canvas = ImageDraw.Draw(page)
            write_text(canvas, (6, 5), f"{seconds:.2f} s   frame {offset}   {title}", size=14, width=width - 12)
            for key, left in lefts.items():
                page.paste(resized(blocks[key][offset - start], tile_height), (left, _VIDEO_CAPTION))
            if drawn is not None:
                column = drawn.column(seconds)
                canvas.line([(column, height - len(drawn.picture) + 4), (column, height - 34)], fill=_MARK)
            yield np.asarray(page)


def _video_layout(store: EpisodeStore, keys: list[str]) -> tuple[int, dict[str, int], int]:
    """The height of all pictures, the left edge of each, and the width of the video, which is even."""
    aspects = {key: min(store.keys[key].shape[1] / store.keys[key].shape[0], WIDEST) for key in keys}
    wanted = round(_VIDEO_WIDTH / sum(aspects.values())) if keys else _LEAST_VIDEO_TILE
    height = min(max(wanted, _LEAST_VIDEO_TILE), _MOST_VIDEO_TILE)
    widths = {key: max(1, round(aspect * height)) for key, aspect in aspects.items()}
    width = (max(_VIDEO_WIDTH, sum(widths.values())) + 1) // 2 * 2
    left, lefts = (width - sum(widths.values())) // 2, {}
    for key, each in widths.items():
        lefts[key] = left
        left += each
    return height, lefts, width


def episode_title(store: EpisodeStore, info: EpisodeInfo) -> str:
    """`episode 3: hammer the nail, successful, 120 frames, 1.5 s at 80 frames/s`."""
    result = {True: ", successful", False: ", failed", None: ""}[info.success]
    duration = f"{info.length} frames, {info.length / store.fps:.1f} s at {store.fps:g} frames/s"
    return f"episode {info.index}: {info.task or 'no task'}{result}, {duration}"


def _frame(store: EpisodeStore, key: str, info: EpisodeInfo, offset: int) -> np.ndarray:
    return store.read(key, info.start + int(offset), info.start + int(offset) + 1)
