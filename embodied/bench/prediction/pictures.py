"""Predictions to look at: films, a contact sheet, curves over the horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from embodied.bench.plots import BLUE, GREEN, GREY, plain_axes, save_figure, save_image_grid
from embodied.bench.prediction.judge import COPY, MEANS, MODEL, PER_FRAME, TOKENIZER, Clips
from embodied.bench.video import CAPTION, label_frames, side_by_side, write_video

COLOURS = {MODEL: BLUE, COPY: GREY, TOKENIZER: GREEN, MEANS: GREEN}
TITLES = {"psnr_db": "PSNR in dB, higher is better", "ssim": "SSIM, higher is better", "perceptual": "feature distance"}
_SHEET = 8  # frames in a row of the contact sheet, at most
_SIDE = 96  # pixels of one of them, about
_FILM = 192  # pixels of a frame in a film, about
_MARGIN = 104  # pixels for the names of rows


def write_film(clips: Clips, number: int, path: Path, *, fps: float) -> None:
    """Truth, prediction and baseline side by side; frames of the context have a green border, predicted ones a red."""
    shown = {"truth": clips.truth[number], **{name: row[number] for name, row in clips.rows.items() if name != COPY}}
    write_video(path, side_by_side([_labelled(frames, name, clips.context) for name, frames in shown.items()]), fps)


def _labelled(frames: np.ndarray, name: str, context: int) -> np.ndarray:
    given = label_frames(frames[:context], name, True, size=_FILM)
    return np.concatenate([given, label_frames(frames[context:], name, name != MODEL, size=_FILM)])


def write_contact_sheet(clips: Clips, numbers: Sequence[int], path: Path) -> None:
    """Per clip a row of the truth and one of each of the others: the last frame of the context, then later ones."""
    rows = []
    later = np.arange(clips.context - 1, clips.truth.shape[1])
    places = later[np.unique(np.linspace(0, len(later) - 1, min(_SHEET, len(later))).round().astype(int))]
    for number in numbers:
        for name, found in {"truth": clips.truth, **clips.rows}.items():
            rows.append(_row(name, found[number][places]))
        rows.append(np.full((1, CAPTION // 4, rows[-1].shape[2], 3), 255, np.uint8))
    save_image_grid(rows, path)


def _row(name: str, frames: np.ndarray) -> np.ndarray:
    """Frames next to each other with a name in front, uint8 [1, H, W, 3]."""
    factor = max(1, _SIDE // frames.shape[1])
    large = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    strip = np.concatenate(list(large), axis=1)
    margin = Image.new("RGB", (_MARGIN, strip.shape[0]), "white")
    ImageDraw.Draw(margin).text((4, 4), name.replace(" last", "\nlast").replace(" only", "\nonly"), fill="black",
                                font=ImageFont.load_default(size=14))  # fmt: skip
    return np.concatenate([np.asarray(margin), strip], axis=1)[None]


def write_curves(horizon: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Every metric of a frame by its distance from the context, a line per row."""
    figure = Figure(figsize=(4.2 * len(PER_FRAME), 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(PER_FRAME)))
    for axes, metric in zip(panels, PER_FRAME, strict=True):
        for name, curves in horizon.items():
            steps = range(1, len(curves[metric]) + 1)
            axes.plot(steps, curves[metric], color=COLOURS[name], label=name, marker=".")
        axes.set_title(TITLES[metric], fontsize=10)
        axes.set_xlabel("frames after the context")
        plain_axes(axes)
    panels[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)
