"""How the cost of a benchmark grows with cells and workers: 1 and 2 local workers, and a Ray cluster on this machine.

python benchmarks/bench_workers.py [--seeds 4] [--to docs/results/bench_workers.json]

Runs `embodied bench` on a suite of two Meta-World tasks and the five baselines (scratch hardly trained, to be cheap),
each time into an empty folder, from one cache: demonstrations and features are there before the first. It prints cells,
wall seconds from command to end (Python's start and the report included), the sum of the cells' own seconds, and the
ratio to one worker. Ray (extra: ray) is started by the command on this machine. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SUITE = """
description: Cheap cells, to measure what workers bring
seeds: 1
demos: [25]
tasks:
  - {env: metaworld, task: hammer-v3}
  - {env: metaworld, task: assembly-v3}
controllers:
  mlp: {policy: bc, policy.head: mlp}
baselines: {state: [mlp], proprioception: [mlp], pixels: [mlp], random: [mlp], scratch: [mlp]}
settings:
  env.horizon: 130
  episodes: 5
  train.steps: 300
  train.checkpoints: 1
  evaluate.selection_episodes: 0
exceptions:
  scratch: {train.batch_size: 32, train.steps: 100}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    half = max(1, options.seeds // 2)
    sides: dict[str, tuple[int, list[str]]] = {
        "1 worker, half the cells": (half, ["workers=1"]),
        "1 worker": (options.seeds, ["workers=1"]),
        "2 workers": (options.seeds, ["workers=2"]),
    }
    if importlib.util.find_spec("ray"):
        sides["Ray on this machine, 2 cores"] = (options.seeds, ["launcher=ray", "workers=2"])
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "workers.yaml"
        suite.write_text(SUITE)
        run(suite, "warm-up", seeds=1, settings=["workers=2"])  # demonstrations and features, for all below
        rows = [
            {"side": name, **run(suite, name, seeds=seeds, settings=settings)}
            for name, (seeds, settings) in sides.items()
        ]
    alone = next(row for row in rows if row["side"] == "1 worker")
    print(f"{'':30}{'cells':>7}{'wall s':>9}{'s of cells':>12}{'wall s a cell':>15}{'times faster':>14}")
    for row in rows:
        row["times_faster"] = (alone["wall_s"] / alone["cells"]) / (row["wall_s"] / row["cells"])
        print(
            f"{row['side']:30}{row['cells']:>7}{row['wall_s']:>9.1f}{row['cells_s']:>12.1f}"
            f"{row['wall_s'] / row['cells']:>15.2f}{row['times_faster']:>14.2f}"
        )
    if options.to:
        options.to.parent.mkdir(parents=True, exist_ok=True)
        options.to.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n")


def run(suite: Path, name: str, *, seeds: int, settings: list[str]) -> dict[str, Any]:
    """One benchmark from its command to its end."""
    root = suite.parent / name.replace(" ", "-").replace(",", "")
    command = [sys.executable, "-m", "embodied", "bench", f"suite={suite}", "encoders=[]", f"seeds={seeds}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EMBODIED_CACHE": str(suite.parent / "cache")}
    started = time.monotonic()
    done = subprocess.run(
        [*command, f"root={root}", "videos=0", *settings], env=environment, capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    with next(root.glob("*/results.csv")).open() as file:
        cells = list(csv.DictReader(file))
    assert all(cell["status"] == "done" for cell in cells), cells
    return {"cells": len(cells), "wall_s": wall, "cells_s": sum(float(cell["seconds"]) for cell in cells)}


if __name__ == "__main__":
    main()
