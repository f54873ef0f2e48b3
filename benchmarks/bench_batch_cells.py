"""What evaluating cells together gains: their reported episodes one after the other, and side by side, in one run.

python benchmarks/bench_batch_cells.py bench/quick             # of a benchmark that has run: cells of encoder default
python benchmarks/bench_batch_cells.py bench/quick random 8    # of another encoder, so many episodes per cell

Prints seconds of both and their ratio, by the clock and of processors (which other programs disturb less), and whether
the outcomes are the same. Nothing in the benchmark's folder changes.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch

from embodied.bench.bench_runs import team_of
from embodied.bench.cells import Cell
from embodied.bench.cpu_time import CpuWatch
from embodied.bench.phases import report_episodes
from embodied.bench.plan import Plan, load_plan
from embodied.bench.recipes import Place, experiment_of
from embodied.bench.result_files import RUNS, file_name, load_results
from embodied.bench.session import KeptSession
from embodied.bench.team_evaluation import Trained, evaluate_together
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import RunFolder, Stopwatch

EPISODES = 4
TEAMS = (2, 4)


def largest_team(folder: Path, encoder: str) -> list[Cell]:
    """Cells of one task, look and encoder, of which most are done."""
    teams: dict[str, list[Cell]] = defaultdict(list)
    for result in load_results(folder):
        if result.status == "done" and result.cell.encoder == encoder and team_of(result.cell):
            teams[team_of(result.cell)].append(result.cell)
    return max(teams.values(), key=len, default=[])


def trained_cells(
    plan: Plan, folder: Path, cells: list[Cell], to: Path, session: KeptSession, *, episodes: int
) -> list[Trained]:
    """The cells with their policies, to be tried on fewer episodes into another folder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(device=device, threads=torch.get_num_threads())
    found = []
    for cell in cells:
        experiment = experiment_of(plan.recipe(cell), cell, place, session, record=False)
        run = RunFolder.create(to / file_name(cell.key), config_yaml="", config_hash="", command="")
        trained = RunFolder.open(folder / RUNS / file_name(cell.key))
        found.append(Trained(experiment=replace(experiment, episodes=episodes), run=run, trained=trained))
    return found


def compare(warm: list[Trained], cells: list[Trained]) -> str:
    """Both sides, in words, after simulators have been started, as a worker has them from the cells before."""
    report_episodes(warm[0].experiment, warm[0].trained, SilentReporter())
    evaluate_together(warm, SilentReporter())
    watch, cpu = Stopwatch(), CpuWatch()
    alone = [report_episodes(cell.experiment, cell.trained, SilentReporter()) for cell in cells]
    one_by_one, cpu_one_by_one = watch.seconds, cpu.seconds
    watch, cpu = Stopwatch(), CpuWatch()
    evaluate_together(cells, SilentReporter())
    together, cpu_together = watch.seconds, cpu.seconds
    same = 0
    for cell, outcomes in zip(cells, alone, strict=True):
        evaluated = cell.run.result("evaluate")
        assert evaluated is not None, cell.run.path
        same += [outcome.record() for outcome in outcomes] == evaluated["outcomes"]
    frames = sum(outcome.steps for outcomes in alone for outcome in outcomes)
    return (
        f"{len(cells)} cells, {frames} frames: one by one {one_by_one:.1f} s, together {together:.1f} s, ratio "
        f"{one_by_one / together:.2f}; of processors {cpu_one_by_one:.1f} s, {cpu_together:.1f} s, ratio "
        f"{cpu_one_by_one / cpu_together:.2f}; the same outcomes in {same} of {len(cells)} cells"
    )


def main() -> None:
    folder = Path(sys.argv[1])
    encoder = sys.argv[2] if len(sys.argv) > 2 else "default"
    episodes = int(sys.argv[3]) if len(sys.argv) > 3 else EPISODES
    plan = load_plan(folder)
    cells = largest_team(folder, encoder)
    if plan is None or len(cells) < TEAMS[0]:
        sys.exit(f"{folder} has no {TEAMS[0]} cells of one task with encoder {encoder} that are done")
    print(f"{team_of(cells[0])}: {len(cells)} cells, {episodes} episodes each, {torch.get_num_threads()} thread(s)")
    for size in (size for size in TEAMS if size <= len(cells)):
        session = KeptSession()
        with tempfile.TemporaryDirectory() as to:
            twice = [
                trained_cells(plan, folder, cells[:size], Path(to) / name, session, episodes=episodes)
                for name in ("warm", "measured")
            ]
            print(compare(*twice), flush=True)
        session.close()


if __name__ == "__main__":
    main()
