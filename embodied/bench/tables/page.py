"""The page of a benchmark: one file that opens from disk; only videos and run reports lie beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from embodied.bench.cells import CellResult
from embodied.bench.html import document, scrolled, table
from embodied.bench.store_costs import StoreCost
from embodied.bench.tables.chains import chain_tables
from embodied.bench.tables.charts import demos_chart, pairwise_table, profile_chart, profile_legend, rank_chart
from embodied.bench.tables.contenders import SCENE_TEXTS
from embodied.bench.tables.costs import cost_section
from embodied.bench.tables.details import task_details
from embodied.bench.tables.figures import inks
from embodied.bench.tables.ranking import Inks, ranking_table, task_table
from embodied.bench.tables.scenes import BenchTables, Scene
from embodied.bench.tables.words import cell_counts, duration, headline, how_to_read

ASSETS = files("embodied.bench.tables") / "assets"


def bench_page(
    tables: BenchTables,
    folder: Path,
    *,
    title: str,
    downloads: Sequence[str] = (),
    protocol: Mapping[str, Any] | None = None,
    stores: Sequence[StoreCost] = (),
) -> str:
    """The HTML of a whole report.

    Args:
        tables: what to show.
        folder: where the page will be; runs are relative to it.
        title: of the page.
        downloads: names of files beside the page to link to.
        protocol: the suite's, to show in full.
        stores: what the demonstrations cost.
    """
    looks = inks(tables.contenders)
    early = any(scene.stops_early for scene in tables.scenes)
    links = " ".join(f'<a href="{escape(name)}" download>{escape(name)}</a>' for name in downloads)
    jumps = " ".join(f'<a href="#{scene.name}">{escape(scene.title)}</a>' for scene in tables.scenes)
    body = f"""
<header><div><h1>{escape(title)}</h1><p class="soft">one protocol, frozen encoders, honest intervals</p></div>
<button type="button" id="theme" title="light or dark">◐</button></header>
<p class="tiles">{_tiles(tables, stores)}</p>
<nav>{jumps} <a href="#cost">Cost</a> <a href="#protocol">Protocol</a> <a href="#reading">How to read this</a>
<span class="soft">{links}</span></nav>
{_notes(tables)}
{"".join(_scene(scene, looks, folder) for scene in tables.scenes)}
{_failures(tables)}
<section id="cost"><h2>Cost</h2>{cost_section(tables, looks, stores)}</section>
<section id="reading"><h2>How to read this</h2><dl>{
        "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in how_to_read(stops_early=early))
    }</dl></section>
<section id="protocol"><h2>Protocol and environment</h2>{_protocol(tables, protocol)}</section>
"""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("bench.css", "bench.js"))
    return document(title, body, style=style, script=script)


def _tiles(tables: BenchTables, stores: Sequence[StoreCost]) -> str:
    seeds = {result.cell.seed for result in tables.results}
    episodes = sum(len(result.episodes) for result in tables.results)
    computing = sum(sum(result.seconds.values()) for result in tables.results) + sum(cost.seconds for cost in stores)
    tasks = {(result.cell.env, result.cell.task) for result in tables.results}
    values = [
        ("contenders", str(len(tables.contenders))),
        ("tasks", str(len(tasks))),
        ("training seeds", str(len(seeds))),
        ("cells", cell_counts(tables).replace(" cells", "")),
        ("episodes", f"{episodes:,}"),
        ("computing", duration(computing)),
        ("protocol", tables.protocol),
    ]
    return "".join(f"<span><b>{escape(value)}</b>{escape(name)}</span>" for name, value in values)


def _notes(tables: BenchTables) -> str:
    if not tables.notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in tables.notes)}</ul>'


def _scene(scene: Scene, looks: Inks, folder: Path) -> str:
    profile = profile_chart(scene, looks).drawn()
    cards = [
        (
            "Performance profile",
            "share of runs above a score, with 95 % bands",
            profile + profile_legend(scene, looks) if profile else "",
        ),
        ("By demonstrations", "IQM of the tasks with so many", demos_chart(scene, looks).drawn()),
        ("Rank stability", "how often each rank comes up when seeds are drawn again", rank_chart(scene, looks)),
        ("Who beats whom", "chance that a run of the row beats one of the column", pairwise_table(scene, looks)),
    ]
    shown = "".join(
        f'<figure class="card"><h3>{name}</h3><p class="soft">{text}</p>{drawn}</figure>'
        for name, text, drawn in cards
        if drawn
    )
    return f"""
<section class="scene" id="{scene.name}"><h2>{escape(scene.title)}</h2>
<p class="soft">{escape(SCENE_TEXTS.get(scene.name, ""))}</p>
<p class="headline">{escape(headline(scene))}</p>
{ranking_table(scene, looks)}
<h3>Tasks</h3><p class="soft">A number leads to its seeds, learning curves and videos.</p>
{task_table(scene, looks)}
{chain_tables(scene)}
<div class="cards">{shown}</div>
<h3>Task by task</h3>{task_details(scene, looks, folder)}</section>
"""


def _failures(tables: BenchTables) -> str:
    if not tables.failures:
        return ""
    alike: dict[tuple[str, str, str], list[CellResult]] = defaultdict(list)
    for result in sorted(tables.failures, key=lambda result: result.cell):
        alike[result.cell.encoder, result.cell.controller, result.reason or "no reason kept"].append(result)
    rows = []
    for (encoder, controller, reason), results in alike.items():
        cells = "<br>".join(escape(result.cell.key) for result in results)
        which = f"<details><summary>{len(results)}</summary>{cells}</details>"
        rows.append([escape(encoder), escape(controller), which, escape(reason)])
    shown = table(["encoder", "controller", "cells", "reason"], rows, is_html=True)
    return (
        '<section id="failures"><h2>Failed cells</h2><p class="soft">They count in no number above.</p>'
        f"{scrolled(shown)}</section>"
    )


def _protocol(tables: BenchTables, protocol: Mapping[str, Any] | None) -> str:
    versions: dict[str, set[str]] = defaultdict(set)
    for result in tables.results:
        for name, version in result.versions.items():
            versions[name].add(version)
    devices = sorted({result.device for result in tables.results if result.device})
    demonstrations = sorted(
        {
            (result.cell.task, result.cell.variant, str(result.cell.demos), result.demos_fingerprint[:16])
            for result in tables.results
            if result.demos_fingerprint
        }
    )
    encoders = sorted(
        {
            (result.cell.encoder, result.encoder_fingerprint[:16])
            for result in tables.results
            if result.encoder_fingerprint and result.cell.encoder != "random"
        }
    )
    parts = [
        f"<p>Suite <b>{escape(tables.suite)}</b>, protocol <code>{escape(tables.protocol)}</code>, on "
        f"{escape(', '.join(devices) or 'an unnamed device')}. The hash covers everything that decides a number but "
        "encoder, seed and machine; results of another hash are refused.</p>",
        table(["package", "version"], [[name, ", ".join(sorted(found))] for name, found in sorted(versions.items())]),
    ]
    if encoders:
        parts.append(f"<details><summary>Encoders' fingerprints</summary>{table(['encoder', 'weights'], encoders)}")
        parts.append("</details>")
    if demonstrations:
        names = ["task", "scene", "demos", "fingerprint"]
        parts.append(f"<details><summary>Demonstrations</summary>{table(names, demonstrations)}</details>")
    if protocol:
        text = escape(json.dumps(protocol, indent=2, sort_keys=True, default=str))
        parts.append(f"<details><summary>The whole protocol</summary><pre>{text}</pre></details>")
    return "".join(parts)
