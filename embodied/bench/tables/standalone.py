"""The charts of a report as files of their own, SVG that any program draws: no style from a page, no CSS variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from embodied.bench.tables.charts import demos_chart, profile_chart
from embodied.bench.tables.contenders import column_labels
from embodied.bench.tables.details import learning_curves
from embodied.bench.tables.figures import Chart, inks
from embodied.bench.tables.scenes import BenchTables

CSS = (Path(__file__).parent / "assets" / "bench.css").read_text(encoding="utf-8")
INKS = dict(re.findall(r"--([bc]\d+): (#[0-9a-f]{6})", CSS.split("}", 1)[0]))  # the light ones, which stand first
STYLE = """
text { font-family: Helvetica, Arial, DejaVu Sans, sans-serif; font-size: 11px; fill: #6b7280; }
.name { font-size: 12px; fill: #111827; } .title { font-size: 13px; font-weight: bold; fill: #111827; }
.grid { stroke: #e5e7eb; stroke-width: 1; } .dot { fill: currentColor; }
.curve { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.band { fill: currentColor; opacity: .09; stroke: none; }
"""
HEAD, ROW, LETTER = 24, 17, 6.4  # pixels: above a chart, between names, of a letter


def standalone_figures(tables: BenchTables) -> Iterator[tuple[str, str]]:
    """File names and contents of all line charts of a report, scene by scene."""
    looks = inks(tables.contenders)
    for scene in tables.scenes:
        labels = column_labels(scene.columns)
        found = [
            ("profile", f"{scene.title}: performance profile", profile_chart(scene, looks)),
            ("demonstrations", f"{scene.title}: by demonstrations", demos_chart(scene, looks)),
        ]
        for column in scene.columns:
            title = f"{labels[column]}: learning curves"
            found.append((f"learning_{_plain(labels[column])}", title, learning_curves(scene, column, looks)))
        for name, title, chart in found:
            if chart.lines:
                yield f"{scene.name}_{name}.svg", standalone(chart, title)


def standalone(chart: Chart, title: str) -> str:
    """A chart with its title above it and who is who beside it, on white."""
    longest = max(len(line.label) for line in chart.lines)
    width = chart.width + 44 + round(LETTER * longest)
    height = HEAD + max(chart.height, ROW * (len(chart.lines) + 1))
    inner = re.sub(r"^<svg[^>]*>|</svg>$", "", chart.drawn())
    names = "".join(
        f'<g {line.ink.stroke}><line class="curve" x1="0" x2="22" y1="{ROW * place}" y2="{ROW * place}"/>'
        f'<text class="name" x="28" y="{ROW * place + 4}">{escape(line.label)}</text></g>'
        for place, line in enumerate(sorted(chart.lines, key=lambda line: -sum(line.y) / len(line.y)), 1)
    )
    body = f'<g transform="translate(4 {HEAD})">{inner}<g transform="translate({chart.width + 6} 0)">{names}</g></g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text class="title" x="8" y="16">{escape(title)}</text>{_resolved(body)}</svg>\n'
    )


def _resolved(svg: str) -> str:
    return re.sub(r'style="--ink:var\(--([bc]\d+)\)"', lambda found: f'color="{INKS[found[1]]}"', svg)


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("_")
