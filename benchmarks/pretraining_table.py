"""All pre-training objectives side by side: one encoder each, alike in data, steps, batch and architecture.

    python benchmarks/pretraining_table.py FOLDER [--data STORES] [--photos FOLDER] [--steps 1000]

Per objective one `embodied pretrain` and one `embodied inspect`, which probes the simulator's state on held-out
episodes; then one `embodied bench` on hammer-v3 and assembly-v3, in the static and in the varied scene, with the
mandatory baselines. Untrained weights of the same architecture and raw pixels stand in the same table. Without --data
it collects ten tasks, half of the episodes in the varied scene; what the probes look at is collected with other seeds.

Killed at any moment, the same command goes on; with more --objectives or --seeds it adds them. An objective that fails
costs its row only: the row says why, and the exit code is 1. Writes FOLDER/table.md, table.json and table_<scene>.png.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import yaml
from pretraining_jobs import (
    NEEDS,
    TASKS,
    Pretrain,
    chosen_objectives,
    collect_jobs,
    pretrain_settings,
    run_of,
    save_random,
)
from pretraining_processes import Advance, Crew
from pretraining_rows import BENCH_TASKS, RANDOM, SCENES, write_table
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied.bench.suite import MANDATORY
from embodied.cli.bench_plan import override_text
from embodied.cli.config import compose_config
from embodied.core.errors import UserError
from embodied.core.files import write_json, write_text

SUITE = "objectives"
REFERENCE = "mae"  # whose settings the others are compared with
INTERRUPTED = 130


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objectives", help="a,b; default: all that learn from frames")
    parser.add_argument("--data", type=Path, help="a folder of stores, as pretraining_data.sh makes")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, besides")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="of the controllers")
    parser.add_argument("--workers", type=int, default=2)
    smaller = parser.add_argument_group("for a trial")
    smaller.add_argument("--tasks", type=int, default=len(TASKS), help="whose episodes are collected")
    smaller.add_argument("--episodes", type=int, default=4, help="of each task, half of them in the varied scene")
    # With 24 episodes and 500 frames nothing that was tried reads the varied scene's state: R^2 0.0 for all.
    smaller.add_argument("--probe-episodes", type=int, default=100, help="of each store that is probed, at least 4")
    smaller.add_argument("--probe-frames", type=int, default=2000, help="of each store that is probed")
    smaller.add_argument("--demos", type=int, default=25)
    smaller.add_argument("--bench-episodes", type=int, default=20)
    smaller.add_argument("--bench-steps", type=int, default=1000)
    options = parser.parse_args()
    for name, least in (("steps", 1), ("batch", 2), ("seeds", 1), ("workers", 1), ("tasks", 2), ("episodes", 2),
                        ("probe_episodes", 4), ("probe_frames", 1), ("demos", 1), ("bench_episodes", 1),
                        ("bench_steps", 1)):  # fmt: skip
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
    for name in ("data", "photos"):
        path = getattr(options, name)
        if path is not None and not path.expanduser().is_dir():
            parser.error(f"--{name}: there is no folder {path}")
        setattr(options, name, None if path is None else path.expanduser().resolve())
    options.folder = options.folder.expanduser().resolve()
    return options


def write_suite(options: argparse.Namespace) -> Path:
    """The suite of the control part."""
    suite = {
        "description": "Frozen encoders of all objectives on two tasks, in the static and in the varied scene",
        "seeds": options.seeds,
        "demos": [options.demos],
        "tasks": [{"env": "metaworld", "task": task, "variants": list(SCENES)} for task in BENCH_TASKS],
        "controllers": {"mlp": {"policy": "bc", "policy.head": "mlp"}},
        "baselines": {name: ["mlp"] for name in MANDATORY},
        "settings": {
            "env.horizon": 130,
            "episodes": options.bench_episodes,
            "train.steps": options.bench_steps,
            "train.checkpoints": 1,
            "evaluate.selection_episodes": 0,
        },
        "exceptions": {"scratch": {"train.batch_size": 64, "train.steps": options.bench_steps * 3 // 2}},
    }
    path: Path = options.folder / f"{SUITE}.yaml"
    write_text(path, yaml.safe_dump(suite, sort_keys=False))
    return path


def run_suite(options: argparse.Namespace, encoders: list[str], crew: Crew) -> str | None:
    """`embodied bench` over all encoders there are, with its own progress; the reason if it failed."""
    folder: Path = options.folder
    paths = [f"path={run_of(folder, name) / 'encoder'}" for name in encoders]
    settings = [f"suite={write_suite(options)}", f"encoders={override_text(paths)}", f"seeds={options.seeds}"]
    settings += [f"workers={options.workers}", f"root={override_text(str(folder / 'bench'))}", "device=cpu"]
    settings += [f"cache={override_text(str(folder / 'cache'))}", "videos=0", "retry=true"]
    return crew.run("bench", ["bench", *settings], shown=True)


def keep_settings(options: argparse.Namespace) -> None:
    """Refuse to mix what was made with other settings into one table; those of control are checked by the bench.

    Raises:
        UserError: the folder was made with others.
    """
    names = ("steps", "batch", "data", "photos", "tasks", "episodes", "probe_episodes", "probe_frames")
    now = {name: getattr(options, name) for name in names}
    now = {name: str(value) if isinstance(value, Path) else value for name, value in now.items()}
    path: Path = options.folder / "settings.json"
    before = {**now, **(json.loads(path.read_text()) if path.is_file() else {})}
    other = [f"--{name.replace('_', '-')} {before[name]}" for name in names if before[name] != now[name]]
    if other:
        raise UserError(f"{options.folder} was made with {', '.join(other)}: repeat that, or give another folder")
    write_json(path, now)


def make_all(options: argparse.Namespace, console: Console) -> int:
    """Everything, in order; 1 where something failed.

    Raises:
        UsageError, UserError: nothing can be made with these options, or a store could not be collected.
    """
    objectives = chosen_objectives(options.objectives)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    crew = Crew(folder, console)
    keep_settings(options)
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        probed, trained = collect_jobs(options, crew, progress)
        unmade = crew.side_by_side([*probed, *trained], options.workers, shown_by(progress, "stores"))
        if unmade:
            raise UserError(f"{len(unmade)} stores could not be collected: {next(iter(unmade.values()))}")
        save_random(folder)
        probes = [str(job.store) for job in probed]
        jobs = [Pretrain(name, options, probes, crew, progress) for name in (*objectives, RANDOM)]
        failed = crew.side_by_side(jobs, options.workers, shown_by(progress, "objectives"))
    stopped = run_suite(options, [job.name for job in jobs if job.name not in failed], crew)
    table = write_table(
        folder,
        {job.name: job.run for job in jobs},
        failed,
        bench=folder / "bench" / SUITE,
        batch=options.batch,
        needs=NEEDS,
        reference=compose_config("pretrain", pretrain_settings(REFERENCE, options)),
    )
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    for name, reason in {**failed, **({"embodied bench": stopped} if stopped else {})}.items():
        console.print(f"{name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"table {folder / 'table.md'}", highlight=False, soft_wrap=True)
    return int(bool(failed or stopped))


def shown_by(progress: Progress, name: str) -> Advance:
    """A bar for a number of jobs."""
    bar = progress.add_task(name, total=None)
    return lambda done, total: progress.update(bar, completed=done, total=total)


def main() -> int:
    options, console = parse(), Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes end with it
    try:
        return make_all(options, console)
    except KeyboardInterrupt:
        console.print(f"\nstopped; the same command goes on with what is in {options.folder}", highlight=False)
        return INTERRUPTED
    except UserError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
