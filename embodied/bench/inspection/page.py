"""The page of an inspection: one file that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from embodied.bench.html import document, scrolled, table
from embodied.bench.inspection.measure import MEAN, PIXELS, ProbeTable
from embodied.bench.inspection.probes import Score

ASSETS = files("embodied.bench.inspection") / "assets"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an inspection found, without pictures.

    Args:
        encoder: as it was written.
        fingerprint: hex.
        parameters: how many.
        width, grid: of the tokens.
        sources: name and frames of every part.
        health, pixel_health: of `health`, of the pooled features and of raw pixels.
        patch_cosine: mean cosine between the patches of a frame.
        flat_patches: None where it cannot be said.
        seconds: per frame, by size of the batch.
        device: as torch names it.
        probes: one per part that has a state.
        no_probe: part and reason for the others.
        complaints: what is wrong.
    """

    encoder: str
    fingerprint: str
    parameters: int
    width: int
    grid: tuple[int, int]
    sources: Sequence[tuple[str, int]]
    health: Mapping[str, float]
    pixel_health: Mapping[str, float]
    patch_cosine: float
    flat_patches: float | None
    seconds: Mapping[int, float]
    device: str
    target: str
    probes: Sequence[ProbeTable]
    no_probe: Mapping[str, str]
    complaints: Sequence[str]


def inspection_page(facts: Facts, panels: Sequence[str], *, command: str, versions: Mapping[str, str]) -> str:
    """The whole page; `panels` are sections of HTML."""
    data = ", ".join(f"{name} ({frames} frames)" for name, frames in facts.sources)
    body = f"""
<h1>{escape(facts.encoder)}</h1>
<p class="soft">what this encoder makes of {escape(data)}</p>
<p class="tiles">{_tiles(facts)}</p>
{_verdict(facts)}
{_probes(facts)}
{"".join(panels)}
<section><h2>Health</h2><p class="soft">Of pooled features of {sum(frames for _, frames in facts.sources)} frames.</p>
{scrolled(table(["", "", "raw pixels", "what it says"], health_rows(facts)))}</section>
<section><h2>Command</h2><pre>{escape(command)}</pre>
<p class="soft">fingerprint <code>{facts.fingerprint[:16]}</code>; {escape(_installed(versions))}</p></section>
"""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("inspect.css", "inspect.js"))
    return document(f"{facts.encoder}: inspection", body, style=style, script=script)


def health_rows(facts: Facts) -> list[list[str]]:
    """Name, value, that of raw pixels where there is one, and meaning of every number."""
    meanings = [
        ("RankMe", "rankme", ".1f", "effective number of directions; a common mean hides the others"),
        ("RankMe, centred", "rank_centred", ".1f", "the same without the mean; below 2: collapsed"),
        ("spread", "spread", ".3f", "std of L2-normalised features over 1/sqrt(D); 1: random, 0: collapsed"),
        ("mean |cos|", "mean_cosine", ".4f", "between frames; 1: all alike"),
    ]
    rows = [
        [name, *(format(each[key], form) for each in (facts.health, facts.pixel_health)), meaning]
        for name, key, form, meaning in meanings
    ]
    rows.append(
        ["patch cosine", f"{facts.patch_cosine:.3f}", "", "between patches of a frame; 1: the map says nothing"]
    )
    if facts.flat_patches is not None:
        rows.append(["flat patches", f"{facts.flat_patches:.1%}", "", "of the data: one colour and nothing else"])
    for size, seconds in facts.seconds.items():
        name = "one frame" if size == 1 else f"one of {size} frames"
        rows.append([name, f"{1000 * seconds:.2f} ms", "", f"on {facts.device}, preprocessing included"])
    return rows


def facts_record(facts: Facts) -> dict[str, Any]:
    """JSON-able, for numbers.json."""
    return {
        "encoder": facts.encoder,
        "fingerprint": facts.fingerprint,
        "parameters": facts.parameters,
        "width": facts.width,
        "grid": list(facts.grid),
        "sources": [{"name": name, "frames": frames} for name, frames in facts.sources],
        "health": dict(facts.health),
        "pixel_health": dict(facts.pixel_health),
        "patch_cosine": facts.patch_cosine,
        "flat_patches": facts.flat_patches,
        "seconds_per_frame": {str(size): seconds for size, seconds in facts.seconds.items()},
        "device": facts.device,
        "target": facts.target,
        "probes": [
            {
                "part": each.part,
                "frames": each.frames,
                "episodes": each.episodes,
                "rows": [
                    {"features": row.features, "linear": row.linear.__dict__, "knn": row.knn and row.knn.__dict__}
                    for row in each.rows
                ],
            }
            for each in facts.probes
        ],
        "no_probe": dict(facts.no_probe),
        "complaints": list(facts.complaints),
    }


def score_text(score: Score | None) -> str:
    """R^2 with its interval."""
    return "" if score is None else f"{score.r2:.3f} ({score.low:.3f} to {score.high:.3f})"


def _tiles(facts: Facts) -> str:
    values = [
        ("weights", f"{facts.parameters / 1e6:.1f} M" if facts.parameters else "none"),
        ("tokens", f"{facts.grid[0]} x {facts.grid[1]}"),
        ("width", str(facts.width)),
        ("RankMe, centred", f"{facts.health['rank_centred']:.1f}"),
        ("mean |cos|", f"{facts.health['mean_cosine']:.3f}"),
        ("a frame", f"{1000 * min(facts.seconds.values()):.1f} ms"),
    ]
    for each in facts.probes[:1]:
        values.append(("R² linear, pooled", f"{each.rows[0].linear.r2:.3f}"))
    return "".join(f"<span><b>{escape(value)}</b>{escape(name)}</span>" for name, value in values)


def _verdict(facts: Facts) -> str:
    if facts.complaints:
        return "".join(f'<p class="alarm">{escape(text)}</p>' for text in facts.complaints)
    return '<p class="calm">No sign of collapse.</p>'


def _probes(facts: Facts) -> str:
    shown = []
    for each in facts.probes:
        rows = [_probe_row(row.features, row.values, row.linear, row.knn) for row in each.rows]
        head = "".join(f"<th>{name}</th>" for name in ("features", "values", "linear probe", "kNN probe"))
        shown.append(
            f"<h3>{escape(each.part)}</h3><p class='soft'>{each.frames} frames of {each.episodes} episodes; "
            f"{each.moving} of {each.dimensions} values vary.</p>"
            + scrolled(f"<table><tr>{head}</tr>{''.join(rows)}</table>")
        )
    for name, reason in facts.no_probe.items():
        shown.append(f'<p class="soft">{escape(name)}: no probe, {escape(reason)}.</p>')
    text = (
        f"How well <code>{escape(facts.target)}</code> can be read out of one frame: R² on episodes that the probe did "
        "not see (4 folds; the bar's line is the 95 % interval when episodes are drawn again). In a scene that never "
        "changes raw pixels do well: an encoder is worth its cost where it beats them."
    )
    return f'<section><h2>Probes</h2><p class="soft">{text}</p>{"".join(shown)}</section>'


def _probe_row(name: str, values: int, linear: Score, knn: Score | None) -> str:
    kind = ' class="baseline"' if name in (PIXELS, MEAN) else ""
    cells = "".join(f"<td>{_bar(score)}</td>" for score in (linear, knn))
    return f"<tr{kind}><td>{escape(name)}</td><td>{values or ''}</td>{cells}</tr>"


def _bar(score: Score | None) -> str:
    if score is None:
        return ""
    low, high = (min(max(each, 0.0), 1.0) for each in (score.low, score.high))
    width = min(max(score.r2, 0.0), 1.0)
    return (
        f'<span class="track"><i style="width:{width:.1%}"></i>'
        f'<b style="left:{low:.1%};width:{high - low:.1%}"></b></span>{score_text(score)}'
    )


def _installed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
