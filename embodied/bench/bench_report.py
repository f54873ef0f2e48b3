"""From the results of a benchmark to what people and programs read: a page, tables, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from embodied.bench.cells import CellResult
from embodied.bench.plan import load_plan
from embodied.bench.store_costs import load_store_costs
from embodied.bench.tables.build import build_tables
from embodied.bench.tables.files import cell_records, episode_records, latex_tables, write_csv, write_parquet
from embodied.bench.tables.page import bench_page
from embodied.bench.tables.scenes import BenchTables
from embodied.bench.tables.standalone import standalone_figures
from embodied.bench.tables.terminal import terminal_tables
from embodied.core.errors import MissingExtraError
from embodied.core.files import write_text


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What was written.

    Args:
        page: report.html.
        files: all that was written, the page first.
        tables: the numbers.
        notes: what a person must be told, as that a file could not be written.
    """

    page: Path
    files: Sequence[Path]
    tables: BenchTables
    notes: Sequence[str] = field(default_factory=tuple)

    def shown(self) -> Group:
        """For a terminal: `console.print(report.shown())`."""
        return terminal_tables(self.tables)


def write_bench_report(
    folder: Path,
    results: Sequence[CellResult],
    suite: str | None = None,
    *,
    baseline: str | None = None,
    protocols: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    name: str = "report",
    title: str | None = None,
) -> BenchReport:
    """Write `report.html`, `results.csv`, `episodes.csv`, `results.tex`, `figures/*.svg` and, where pyarrow is there,
    `results.parquet`.

    Args:
        folder: of the benchmark; the results' runs are relative to it, and videos are linked there.
        results: done and failed, of one protocol.
        suite: name of the suite.
        baseline: what contenders are compared with, see `tables.build.build_tables`.
        protocols: content of protocols by their hash, to be shown, and to say what differs where they are mixed; None:
            that of the folder's plan.
        notes: to be shown with the tables.
        name: of the page; with another one than `report` the other files are called `<name>.csv` and so on.
        title: of the page; None: `Benchmark <suite>`.

    Raises:
        UserError: the results may not stand in one table, see `tables.checks.check_results`.
        UsageError: nothing is called `baseline`.
    """
    folder = Path(folder)
    if protocols is None:
        plan = load_plan(folder)
        protocols = {} if plan is None else {plan.protocol_hash: plan.protocol}
    tables = build_tables(results, suite=suite, baseline=baseline, protocols=protocols, notes=notes)
    stem, told = "results" if name == "report" else name, []
    cells, episodes = folder / f"{stem}.csv", folder / ("episodes.csv" if name == "report" else f"{name}_episodes.csv")
    latex, parquet = folder / f"{stem}.tex", folder / f"{stem}.parquet"
    write_csv(cells, cell_records(results))
    write_csv(episodes, episode_records(results))
    write_text(latex, latex_tables(tables))
    files = [cells, episodes, latex]
    try:
        write_parquet(parquet, results)
        files.append(parquet)
    except MissingExtraError as error:
        told.append(f"{parquet.name} was not written: {error} ({cells.name} has the same)")
    page = folder / f"{name}.html"
    html = bench_page(
        tables,
        folder,
        title=title or f"Benchmark {tables.suite}",
        downloads=[path.name for path in files],
        protocol=protocols.get(tables.protocol),
        stores=load_store_costs(folder),
    )
    write_text(page, html)
    charts = folder / ("figures" if name == "report" else f"{name}_figures")
    for file, drawing in standalone_figures(tables):
        write_text(charts / file, drawing)
        files.append(charts / file)
    return BenchReport(page=page, files=[page, *files], tables=tables, notes=told)
