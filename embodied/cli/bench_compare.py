"""Compare two encoders of a benchmark, or two benchmarks, on the seeds that both have.

embodied bench compare default pixels folder=bench/quick       two encoders, under every controller that both have
embodied bench compare default/conv default/mlp folder=...     two controllers of an encoder
embodied bench compare bench/old/quick bench/new/quick         two folders: what is the same in both, or the one new
                                                               encoder of each
embodied bench compare old/quick:default new/quick:default     an encoder of each
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.bench.bench_folders import BenchFolder, read_folder
from embodied.bench.plots import Row, plot_differences
from embodied.bench.tables.checks import check_results
from embodied.bench.tables.contenders import column_labels
from embodied.bench.tables.duels import Duel, Side, duel_records, make_duels, named_sides, pairs_of_one, pairs_of_two
from embodied.bench.tables.files import write_csv
from embodied.bench.tables.words import difference_text, duel_verdict, p_text, rounded_interval
from embodied.cli.bench_arguments import compose_sub_verb
from embodied.core.errors import UsageError


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied bench compare A B`."""
    config = compose_sub_verb("bench_compare", arguments, positional=("first", "second"), about=__doc__)
    if config is None:
        return 0
    folder = Path(config.folder).expanduser() if config.folder else None
    folders, pairs = resolve(str(config.first), str(config.second), folder)
    results = [result for each in folders for result in each.results]
    protocols = {name: content for each in folders for name, content in each.protocols.items()}
    check_results(results, protocols, same_encoders=False)
    duels = make_duels(pairs)
    if not any(duel.overall for duel in duels):
        raise UsageError("the two have no task and seed in common: nothing can be compared")
    console = Console()
    for duel in duels:
        show(console, duel)
    to = Path(config.to).expanduser() if config.to else folders[0].path
    write_csv(to / "compare.csv", duel_records(duels))
    plot_differences(
        {f"{duel.first}\nminus {duel.second}\n{duel.title.lower()}": differences(duel) for duel in duels},
        to / "compare.png",
    )
    console.print(f"table [bold]{to / 'compare.csv'}[/], plot [bold]{to / 'compare.png'}[/]", highlight=False)
    return 0


def resolve(first: str, second: str, folder: Path | None) -> tuple[list[BenchFolder], list[tuple[Side, Side]]]:
    """The benchmarks that two operands mean, and what of them is to be compared.

    Raises:
        UsageError: an operand means nothing.
        UserError: a folder holds no results.
    """
    paths = [Path(text).expanduser() for text in (first, second)]
    if folder is None and all(path.is_dir() for path in paths):
        folders = [read_folder(path) for path in paths]
        if paths[0].resolve() == paths[1].resolve():
            raise UsageError(f"{first} and {second} are the same folder: name two encoders, with folder={first}")
        return folders, pairs_of_two((paths[0], folders[0].results), (paths[1], folders[1].results))
    if folder is not None:
        found = read_folder(folder)
        return [found], pairs_of_one(found.results, first, second)
    operands = [split_operand(text) for text in (first, second)]
    loaded = {path: read_folder(path) for path, _ in operands}
    return list(loaded.values()), named_sides(operands, {path: each.results for path, each in loaded.items()})


def split_operand(text: str) -> tuple[Path, str]:
    """`<folder>:<encoder>`; the encoder may have colons of its own.

    Raises:
        UsageError: it has no folder.
    """
    for place, letter in enumerate(text):
        if letter == ":" and Path(text[:place]).expanduser().is_dir():
            return Path(text[:place]).expanduser(), text[place + 1 :]
    if Path(text).expanduser().is_dir():
        raise UsageError(f"{text} is a folder and the other is none: name an encoder of it, {text}:<encoder>")
    raise UsageError(
        f"{text!r} is no folder: write folder=<benchmark> to compare encoders of one, or <folder>:<encoder>"
    )


def show(console: Console, duel: Duel) -> None:
    """A table of the tasks, and the verdict."""
    labels = column_labels([task.column for task in duel.tasks])
    table = Table(title=f"{duel.title}: {escape(duel.first)} minus {escape(duel.second)}", title_justify="left")
    for name in ("task", duel.first, duel.second, "difference", "p (Holm)", "pairs"):
        table.add_column(escape(name), justify="left" if name == "task" else "right", overflow="fold")
    for task in duel.tasks:
        table.add_row(
            escape(labels[task.column]),
            *(rounded_interval(side.estimate) for side in (task.first, task.second) if side.estimate),
            difference_text(task.comparison),
            p_text(task.holm_p),
            str(task.comparison.pairs if task.comparison else 0),
        )
    if duel.overall is not None:
        table.add_section()
        pairs = str(duel.overall.pairs)
        table.add_row("[bold]all[/]", "", "", difference_text(duel.overall), p_text(duel.holm_p), pairs)
    console.print(table)
    console.print(duel_verdict(duel), highlight=False, markup=False)
    if duel.left_out:
        missing = ", ".join(sorted({column.task for column in duel.left_out}))
        console.print(f"left out, since only one of them has results there: {missing}", highlight=False, markup=False)
    console.print()


def differences(duel: Duel) -> list[Row]:
    """Rows of the plot: every task, then all of them."""
    labels = column_labels([task.column for task in duel.tasks])
    named = [(labels[task.column], task.comparison) for task in duel.tasks] + [("all tasks", duel.overall)]
    return [
        Row(
            label=label,
            mean=found.difference,
            low=found.difference if found.low is None else found.low,
            high=found.difference if found.high is None else found.high,
        )
        for label, found in named
        if found is not None
    ]
