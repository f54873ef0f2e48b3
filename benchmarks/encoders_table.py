"""The table of the README: encoders and baselines on hammer-v3 and assembly-v3, three seeds each.

    python benchmarks/encoders_table.py FOLDER          (2 CPU cores: about an hour; again: goes on where it stopped)

Every cell is one `embodied train` with the same protocol; `scratch` alone trains with smaller batches (64 instead of
256), since it has to push every frame through its network at every step. Cells run side by side, one thread each.
Writes FOLDER/table.json, table.md and table.png from the summaries of the runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from embodied.bench.plots import Row, plot_comparison
from embodied.bench.statistics.intervals import seeds_interval
from embodied.core.files import write_json, write_text

TASKS = ("hammer-v3", "assembly-v3")
SEEDS = (1, 2, 3)  # the protocol was chosen while looking at episodes of seed 0


class Line(NamedTuple):
    """One row of the table."""

    label: str
    encoder: str
    head: str
    extra: tuple[str, ...] = ()


LINES = (
    Line("state (oracle)", "state", "mlp"),
    Line("proprioception alone", "proprioception", "mlp"),
    Line("pixels 16x16", "pixels", "mlp"),
    Line("random ViT, pooled + MLP", "random", "mlp"),
    Line("random ViT, tokens + conv neck", "random", "conv"),
    Line("default encoder, pooled + MLP", "default", "mlp"),
    Line("default encoder, tokens + conv neck", "default", "conv"),
    Line("conv net from scratch, random shift", "scratch", "mlp", ("train.batch_size=64",)),
)


def run_cell(folder: Path, line: Line, task: str, seed: int) -> Path:
    """One training and evaluation; returns its summary."""
    run = folder / "runs" / f"{task}-{line.encoder}-{line.head}-seed{seed}"
    summary = run / "summary.json"
    if not summary.is_file():
        command = [
            *(sys.executable, "-m", "embodied", "train", f"task={task}", f"encoder={line.encoder}", f"seed={seed}"),
            *(f"policy.head={line.head}", f"run={run}", "resume=true", "workers=1", "device=cpu", *line.extra),
            "evaluate.selection_episodes=0",  # the final checkpoint is the number; this halves the time
        ]
        # Two cells that start together collect the same demonstrations: the store's lock lets one of them fail, and
        # `make_stores` has filled the cache before.
        result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    found = json.loads(summary.read_text())
    print(f"{task:12} {line.label:36} seed {seed}: {found['successes']} of {found['episodes']}", flush=True)
    return summary


def make_stores(folder: Path) -> None:
    """Collect each task's demonstrations once, before cells run side by side."""
    for task in TASKS:
        run_cell(folder, LINES[0], task, SEEDS[0])


def main() -> None:
    folder = Path(sys.argv[1]).resolve()  # encoders named after it restrict the rows
    wanted = [line for line in LINES if len(sys.argv) < 3 or line.encoder in sys.argv[2:]]
    make_stores(folder)
    cells = [(line, task, seed) for seed in SEEDS for line in wanted for task in TASKS]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        summaries = list(pool.map(lambda cell: run_cell(folder, *cell), cells))
    found: dict[tuple[str, str], list[list[bool]]] = {}
    for (line, task, _), path in zip(cells, summaries, strict=True):
        outcomes = json.loads(path.read_text())["outcomes"]
        found.setdefault((task, line.label), []).append([outcome["success"] for outcome in outcomes])
    groups: dict[str, list[Row]] = {task: [] for task in TASKS}
    for (task, label), runs in found.items():
        mean, low, high = seeds_interval(runs)
        groups[task].append(Row(label=label, mean=mean, low=low, high=high))
    write_table(folder, groups, found)


def write_table(folder: Path, groups: dict[str, list[Row]], found: dict[tuple[str, str], list[list[bool]]]) -> None:
    """table.md, table.json and table.png."""
    plot_comparison(groups, folder / "table.png")
    lines = [f"| encoder | {' | '.join(groups)} |", "| --- |" + " --- |" * len(groups)]
    for rows in zip(*groups.values(), strict=True):
        cells = [f"{row.mean:.0%} ({row.low:.0%} to {row.high:.0%})" for row in rows]
        lines.append(f"| {rows[0].label} | {' | '.join(cells)} |")
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    write_json(folder / "table.json", {f"{task} / {label}": runs for (task, label), runs in found.items()})
    print("\n".join(lines))


if __name__ == "__main__":
    main()
