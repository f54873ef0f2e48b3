"""Action heads and baselines at 5, 10 and 25 demonstrations on four Meta-World tasks, three seeds each.

    python benchmarks/heads_table.py FOLDER [ROW ...]  # runs go to FOLDER; a row is <encoder>-<head>, all without
    python benchmarks/heads_table.py table             # docs/results/heads.md and heads.png from what there is

Every cell is one `embodied train` with one protocol (PROTOCOL), one process per core, seed by seed, so that a table of
fewer seeds is there early. Outcomes of finished cells are kept in docs/results/heads.json, with what they were made by;
an interrupted run goes on from there, on another machine too. About ten hours on two CPU cores.

Sources of the rows: the default encoder under the heads of `embodied list heads`; the baselines that every table of
this project has, under the `mlp` head: proprioception only, raw pixels, a random frozen encoder, a conv net that
learns from scratch with random shifts, and the state (oracle).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

from embodied.bench.statistics.intervals import seeds_interval
from embodied.core.files import write_json, write_text

RESULTS = Path(__file__).parent.parent / "docs" / "results"
TASKS = ("hammer-v3", "assembly-v3", "bin-picking-v3", "button-press-topdown-v3")
DEMOS = (5, 10, 25)
SEEDS = (1, 2, 3)  # settings were chosen while looking at episodes of seed 0
PROTOCOL = (
    "env.render=lean+",
    "episodes=20",
    "evaluate.selection_episodes=0",  # the final checkpoint is the number
    "workers=1",
    "device=cpu",
)


class Line(NamedTuple):
    """One row of the table, and what it has beside the protocol."""

    label: str
    encoder: str
    head: str
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.encoder}-{self.head}"


SMALL = ("train.batch_size=64",)  # four times fewer samples than the others: they cost tens of times more each
LINES = (
    Line("default encoder, mlp", "default", "mlp"),
    Line("default encoder, act", "default", "act", SMALL),
    Line("default encoder, diffusion", "default", "diffusion", SMALL),
    Line("default encoder, flow", "default", "flow", SMALL),
    Line("proprioception only", "proprioception", "mlp"),
    Line("pixels 16x16", "pixels", "mlp"),
    Line("random frozen ViT", "random", "mlp"),
    Line("conv net from scratch", "scratch", "mlp", SMALL),
    Line("state (oracle)", "state", "mlp"),
)
Cell = tuple[str, int, Line, int]


class Results:
    """Outcomes of finished cells, in one file that every finished cell is added to at once."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self.cells: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, key: str, found: dict[str, Any]) -> None:
        with self._lock:
            self.cells[key] = found
            write_json(self._path, dict(sorted(self.cells.items())))


def key_of(cell: Cell) -> str:
    task, demos, line, seed = cell
    return f"{task}/{demos}/{line.name}/{seed}"


def run_cell(cell: Cell, results: Results, folder: Path) -> None:
    """One training and evaluation, unless it is done."""
    key = key_of(cell)
    if key in results.cells:
        return
    task, demos, line, seed = cell
    run = folder / key.replace("/", "-")
    settings = [
        *(f"task={task}", f"demos={demos}", f"encoder={line.encoder}", f"policy.head={line.head}", f"seed={seed}"),
        *PROTOCOL,
        *line.extra,
    ]
    command = [sys.executable, "-m", "embodied", "train", *settings, f"run={run}", "resume=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    summary = json.loads((run / "summary.json").read_text())
    successes = [outcome["success"] for outcome in summary["outcomes"]]
    results.add(
        key,
        {
            "successes": successes,
            "settings": settings,
            "seconds": summary["seconds"],
            "encoder_fingerprint": summary["encoder_fingerprint"],
            "versions": summary["versions"],
        },
    )
    print(f"{key}: {sum(successes)} of {len(successes)}, {sum(summary['seconds'].values()):.0f} s", flush=True)


def run_all(folder: Path, names: list[str]) -> None:
    results = Results(RESULTS / "heads.json")
    lines = [line for line in LINES if not names or line.name in names]
    cells = [(task, demos, line, seed) for seed in SEEDS for line in lines for demos in DEMOS for task in TASKS]
    most = max(DEMOS)
    for task in TASKS:  # the demonstrations of a task once, before cells that want them run side by side
        run_cell((task, most, LINES[0], SEEDS[0]), results, folder)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda cell: run_cell(cell, results, folder), cells))


def write_table() -> None:
    """heads.md and heads.png: mean over seeds and its 95 % interval of every task, and of all tasks together."""
    cells = Results(RESULTS / "heads.json").cells
    groups = [*((task,) for task in TASKS), TASKS]
    text = ["| demonstrations | controller | " + " | ".join([*TASKS, "mean", "seeds"]) + " |"]
    text.append("| --- | --- |" + " --- |" * (len(TASKS) + 2))
    figure, axes = plt.subplots(1, len(groups), figsize=(3.2 * len(groups), 3.6), sharey=True, layout="constrained")
    for axis, tasks in zip(axes, groups, strict=True):
        axis.set(title=tasks[0] if len(tasks) == 1 else "mean of tasks", xlabel="demonstrations", ylim=(-0.03, 1.03))
        axis.set_xscale("log")
        axis.set_xticks(DEMOS, [str(demos) for demos in DEMOS], minor=False)
        axis.minorticks_off()
    axes[0].set_ylabel("success rate")
    found = {(demos, line): outcomes(cells, demos, line) for demos in DEMOS for line in LINES}
    for demos in DEMOS:
        for line in LINES:
            runs = found[demos, line]
            shown = [percent(interval(runs, tasks)) for tasks in groups]
            text.append(f"| {demos} | {line.label} | {' | '.join(shown)} | {count_seeds(runs)} |")
    for number, line in enumerate(LINES):
        for axis, tasks in zip(axes, groups, strict=True):
            points = [(demos, span) for demos in DEMOS if (span := interval(found[demos, line], tasks)) is not None]
            if points:
                places = [demos * (0.94 + 0.015 * number) for demos, _ in points]
                means = [mean for _, (mean, _, _) in points]
                spread = [[mean - low for _, (mean, low, _) in points], [high - mean for _, (mean, _, high) in points]]
                baseline = "--" if line.encoder != "default" else "-"
                axis.errorbar(places, means, spread, fmt=f"o{baseline}", ms=3, lw=1.2, elinewidth=0.7, label=line.label)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.savefig(RESULTS / "heads.png", dpi=120)
    write_text(RESULTS / "heads.md", "\n".join(text) + "\n")
    print("\n".join(text))


def outcomes(cells: dict[str, dict[str, Any]], demos: int, line: Line) -> dict[str, list[list[bool]]]:
    """Successes by task, seed and episode, of the seeds that are done."""
    keys = {task: [key_of((task, demos, line, seed)) for seed in SEEDS] for task in TASKS}
    return {task: [cells[key]["successes"] for key in names if key in cells] for task, names in keys.items()}


def count_seeds(runs: dict[str, list[list[bool]]]) -> int:
    """Seeds that every task has."""
    return min(len(seeds) for seeds in runs.values())


def interval(runs: dict[str, list[list[bool]]], tasks: tuple[str, ...]) -> tuple[float, float, float] | None:
    """Mean over the tasks, and its 95 % interval, of the seeds that all of them have; None without any."""
    count = min(len(runs[task]) for task in tasks)
    if not count:
        return None
    together = [[success for task in tasks for success in runs[task][seed]] for seed in range(count)]
    return seeds_interval(together)


def percent(span: tuple[float, float, float] | None) -> str:
    return "" if span is None else f"{span[0]:.0%} ({span[1]:.0%} to {span[2]:.0%})"


def main() -> None:
    if sys.argv[1:] == ["table"]:
        write_table()
    else:
        run_all(Path(sys.argv[1]).resolve(), sys.argv[2:])


if __name__ == "__main__":
    main()
