"""Results as files for other programs: CSV, Parquet, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embodied.bench.cells import CellResult
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.tables.contenders import column_labels
from embodied.bench.tables.scenes import BenchTables, Scene
from embodied.bench.tables.words import percent, seed_counts_text, tasks_text
from embodied.core.errors import MissingExtraError
from embodied.core.files import atomic_path, write_text

CELL_FIELDS = ("env", "task", "variant", "controller", "encoder", "demos", "seed")
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    letter: f"\\{letter}" for letter in "&%$#_{}"
}


def cell_records(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """One flat record per cell; a failed one has no score. Seconds are a column per phase, versions one per package."""
    phases = sorted({phase for result in results for phase in result.seconds})
    packages = sorted({package for result in results for package in result.versions})
    return [
        {
            **{name: getattr(result.cell, name) for name in CELL_FIELDS},
            "status": result.status,
            "reason": result.reason,
            "score": result.score if result.episodes else None,
            "success_rate": _success_rate(result),
            "episodes": len(result.episodes),
            "stopped_early": result.stopped_early,
            "best_score": result.best_score,
            **{f"seconds_{phase}": result.seconds.get(phase) for phase in phases},
            "seconds": sum(result.seconds.values()),
            "cpu_seconds": sum(result.cpu_seconds.values()) if result.cpu_seconds else None,
            "device": result.device,
            "suite": result.suite,
            "protocol": result.protocol,
            "encoder_fingerprint": result.encoder_fingerprint,
            "demos_fingerprint": result.demos_fingerprint,
            "run": result.run,
            **{f"version_{package}": result.versions.get(package) for package in packages},
        }
        for result in sorted(results, key=lambda result: result.cell)
    ]


def episode_records(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """One flat record per evaluation episode, with the fields of its cell."""
    return [
        {
            **{name: getattr(result.cell, name) for name in CELL_FIELDS},
            "episode_seed": episode.seed,
            "success": episode.success,
            "score": episode.score,
            "steps": episode.steps,
        }
        for result in sorted(results, key=lambda result: result.cell)
        for episode in result.episodes
    ]


def _success_rate(result: CellResult) -> float | None:
    if not result.episodes:
        return None
    return sum(episode.success for episode in result.episodes) / len(result.episodes)


def write_csv(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """A header and a line per record; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else list(CELL_FIELDS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())


def write_parquet(path: Path, results: Sequence[CellResult]) -> None:
    """The records of cells, with their episodes and curves nested in them.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "bench") from error
    by_cell = {result.cell: result for result in results}
    rows = []
    for record, cell in zip(cell_records(results), sorted(by_cell), strict=True):
        episodes = [
            {"seed": episode.seed, "success": episode.success, "score": episode.score, "steps": episode.steps}
            for episode in by_cell[cell].episodes
        ]
        rows.append({**record, "episode_list": episodes, "curve": [list(point) for point in by_cell[cell].curve]})
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)


def latex_tables(tables: BenchTables) -> str:
    """A booktabs table per scene, for `\\input`; numbers in percent with their 95 % intervals."""
    head = f"% suite {tables.suite}, protocol {tables.protocol}; needs \\usepackage{{booktabs}}\n"
    return head + "\n".join(_latex_scene(scene, tables) for scene in tables.scenes)


def _latex_scene(scene: Scene, tables: BenchTables) -> str:
    labels = column_labels(scene.columns)
    best = {column: _best(scene, lambda row, of=column: row.entries[of].estimate) for column in scene.columns}
    best_iqm = _best(scene, lambda row: row.aggregates.get("iqm"))
    lines = []
    for row in scene.rows:
        cells = [tex(row.contender.short), tex(row.contender.controller)]
        cells.append(_tex_estimate(row.aggregates.get("iqm"), best=best_iqm))
        cells += [_tex_estimate(row.entries[column].estimate, best=best[column]) for column in scene.columns]
        cells += [tex(tasks_text(row)), seed_counts_text(row).replace("-", "--")]
        lines.append(" & ".join(cells) + r" \\")
    names = ["encoder", "controller", "IQM", *(tex(labels[column]) for column in scene.columns), "tasks", "seeds"]
    caption = (
        f"{tex(tables.suite)}, {scene.title.lower()}: score in percent with 95\\,\\% intervals; IQM over all runs. "
        f"Best without the oracle in bold. Protocol \\texttt{{{tables.protocol}}}."
    )
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(scene.columns) + 1)}rr}}",
            r"\toprule",
            " & ".join(names) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _best(scene: Scene, value: Any) -> float | None:
    found = [value(row) for row in scene.rows if not row.contender.oracle]
    return max((estimate.value for estimate in found if estimate is not None), default=None)


def _tex_estimate(estimate: Estimate | None, *, best: float | None) -> str:
    if estimate is None:
        return "--"
    text = percent(estimate.value)
    shown = rf"\textbf{{{text}}}" if estimate.value == best else text
    if estimate.low is None or estimate.high is None:
        return shown
    return rf"{shown} {{\scriptsize [{percent(estimate.low)}, {percent(estimate.high)}]}}"


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(TEX.get(letter, letter) for letter in text)
