"""The page of a prediction: one file that opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from embodied.bench.html import document, scrolled, table
from embodied.bench.prediction.judge import COPY, MEANINGS, Judgement
from embodied.bench.report import data_uri
from embodied.bench.video_metrics import FeatureNetwork

COLUMNS = {
    "psnr_db": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "perceptual": ("LPIPS-style", ".4f"),
    "frechet": ("FVD-style", ".3f"),
    "kernel": ("kernel distance", ".4f"),
}


def judgement_rows(judgement: Judgement, *, intervals: bool = True) -> list[list[str]]:
    """A row of text per row of the table."""
    found = []
    for name, row in judgement.rows.items():
        cells = [_cell(row.get(key), form, intervals) for key, (_, form) in COLUMNS.items()]
        share = judgement.code_accuracy.get(name)
        codes = ["" if share is None else f"{share:.1%}"] if judgement.code_accuracy else []
        found.append([name, *cells, *codes])
    return found


def header(judgement: Judgement) -> list[str]:
    """Of the table."""
    codes = ["codes right"] if judgement.code_accuracy else []
    return ["", *(title for title, _ in COLUMNS.values()), *codes]


def _cell(values: Sequence[float] | None, form: str, intervals: bool) -> str:
    if values is None:
        return "needs 2 clips"
    value, low, high = values
    return f"{value:{form}} ({low:{form}} to {high:{form}})" if intervals else f"{value:{form}}"


def words(judgement: Judgement, network: FeatureNetwork, *, trained_on: bool) -> list[str]:
    """What has to be known to read the numbers, a sentence or two each."""
    found = [
        f"{judgement.clips} clips of {judgement.frames} frames, of which {judgement.context} are given; everything is "
        "over the others. Intervals: 95 %, clips drawn again.",
        f"LPIPS-style and FVD-style distances are those of the encoder {network.spec} "
        f"({network.fingerprint[:12]}), which needs no network: compare them with each other, never with published "
        "LPIPS or FVD.",
        "The FVD-style distance is biased upwards by few clips, the kernel distance is not and may be below 0.",
        "None of these says what a planner can do with the model: its success rate does.",
    ]
    if judgement.halves:
        text = ", ".join(f"{COLUMNS[key][0]} {value:{COLUMNS[key][1]}}" for key, value in judgement.halves.items())
        found.append(f"Between two halves of the true clips: {text}. Distances near that say no more.")
    if judgement.ahead is not None:
        found.insert(1, f"Each frame is predicted {judgement.ahead} ahead, from the true ones until then.")
    if trained_on:
        found.insert(1, "The model was trained on these clips: a run with holdout= judges on others, as does data=.")
    return found


def prediction_page(
    judgement: Judgement,
    network: FeatureNetwork,
    *,
    title: str,
    folder: Path,
    films: Sequence[Path],
    sheet: Path,
    curves: Path,
    trained_on: bool,
    command: str,
) -> str:
    """The whole page; films and pictures lie in it."""
    shown = "".join(f'<video controls loop muted autoplay src="{data_uri(film)}"></video>' for film in films)
    notes = "".join(f"<p class='soft'>{escape(text)}</p>" for text in words(judgement, network, trained_on=trained_on))
    meanings = table(["", "what it is"], [[name, MEANINGS[name]] for name in judgement.rows])
    order = ", ".join(name for name in judgement.rows if name != COPY)
    body = f"""
<h1>{escape(title)}</h1><p class="soft">{escape(str(folder))}</p>
{scrolled(table(header(judgement), judgement_rows(judgement)))}
{notes}
<h2>By distance from the context</h2><img alt="curves" src="{data_uri(curves)}">
<h2>Films</h2><p class="soft">Truth, {order}. Red border: predicted.</p>
<div class="pair">{shown}</div>
<h2>Frames</h2><p class="soft">The last frame of the context, then later ones.</p>
<img alt="contact sheet" src="{data_uri(sheet)}">
<h2>Rows</h2>{scrolled(meanings)}
<h2>Cost</h2><p>{judgement.seconds_per_clip:.3g} s per predicted clip.</p>
<h2>Command</h2><pre>{escape(command)}</pre>
"""
    return document(title, body, style=".scroll { overflow-x: auto; }")
