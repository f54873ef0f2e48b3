"""Merge the results of many benchmarks into one page: those of other machines, other days, other encoders.

All must be of one protocol and learn from the same demonstrations; what is mixed is refused, with what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from embodied.bench.bench_folders import find_folders, seen_from
from embodied.bench.bench_report import write_bench_report
from embodied.bench.tables.checks import merge_results
from embodied.cli.bench_arguments import compose_sub_verb

NAME = "leaderboard"


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied bench leaderboard FOLDER`."""
    config = compose_sub_verb("bench_leaderboard", arguments, positional=("folder",), about=__doc__)
    if config is None:
        return 0
    root = Path(config.folder).expanduser()
    to = Path(config.to).expanduser() if config.to else root
    folders = find_folders(root)
    protocols = {name: content for folder in folders for name, content in folder.protocols.items()}
    results, notes = merge_results({str(folder.path): seen_from(to, folder) for folder in folders}, protocols)
    report = write_bench_report(
        to,
        results,
        baseline=config.baseline,
        protocols=protocols,
        notes=[f"merged from {len(folders)} benchmarks", *notes],
        name=NAME,
        title=f"Leaderboard {folders[0].results[0].suite}",
    )
    console = Console()
    console.print(report.shown())
    for note in report.notes:
        console.print(note, highlight=False)
    console.print(f"leaderboard [bold]{report.page}[/]", highlight=False, soft_wrap=True)
    return 0
