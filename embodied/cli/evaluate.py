"""Evaluate a trained policy again: more episodes, other seeds, another checkpoint.

The run folder is enough: the policy file names its encoder and is refused when that has changed. The result is written
to <run>/evaluations/, never over the run's own summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from embodied.bench.policy_episodes import REPORT_SEEDS, episode_seeds, evaluate_checkpoint, open_simulators
from embodied.bench.statistics.chains import in_a_row
from embodied.bench.statistics.intervals import wilson_interval
from embodied.cli.config import compose_config, positive
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import resolve_device, resolve_workers, trial_options
from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import write_json
from embodied.core.run_folder import RunFolder, Stopwatch
from embodied.envs.registry import NO_SIMULATOR
from embodied.training.evaluate import Outcome


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied evaluate`."""
    config = compose_config("evaluate", arguments)
    if not config.run:
        raise UsageError("which run? write run=<run folder>, as embodied train printed it")
    positive(config, "episodes")
    console = Console()
    path = policy_path(RunFolder.open(Path(config.run).expanduser()), str(config.checkpoint))
    reporter, watch = RichReporter(console), Stopwatch()
    device, chosen = resolve_device(str(config.device)), seeds(config)
    count = min(resolve_workers(config.workers), len(chosen))
    trained_on = load_checkpoint(path)[1]["env"]
    if trained_on["suite"] == NO_SIMULATOR:
        raise UserError(
            f"{path} was trained on recordings (env=none): there is no simulator to evaluate it in. How near it comes "
            "to held-out recordings stands in the run's report.html; a robot runs it with embodied deploy, in shadow "
            "unless told otherwise"
        )
    options = trial_options(config.options, trained_on, setting="options")
    shift = {"shift": config.shift, "shift_strength": config.shift_strength, **options}
    with (
        reporter.phase("evaluate"),
        open_simulators(path, device=device, count=count, frames=False, shift=shift) as simulators,
    ):
        outcomes = evaluate_checkpoint(
            path, chosen, simulators, device=device, reporter=reporter, description="evaluate"
        )
    successes = sum(outcome.success for outcome in outcomes)
    low, high = wilson_interval(successes, len(outcomes))
    result: dict[str, Any] = {
        "checkpoint": path.name,
        **(shift if config.shift else options),
        "success_rate": successes / len(outcomes),
        "interval": [low, high],
        "episodes": len(outcomes),
        "mean_score": float(np.mean([outcome.score for outcome in outcomes])),
        "mean_reward": float(np.mean([outcome.total_reward for outcome in outcomes])),
        "seconds": round(watch.seconds, 1),
        **chain_record(outcomes, {**trained_on, **options}),
        "outcomes": [outcome.record() for outcome in outcomes],
    }
    shifted = f"-{config.shift}{config.shift_strength}" if config.shift else ""
    shifted += "".join(f"-{name}-{value}" for name, value in options.items())
    target = path.parents[1] / "evaluations" / f"{path.stem}-seed{config.seed}-{config.episodes}{shifted}.json"
    write_json(target, result)
    console.print(
        f"success [bold]{successes / len(outcomes):.0%}[/] ({successes} of {len(outcomes)}, 95 % interval "
        f"{low:.0%} to {high:.0%}), written to {target}",
        highlight=False,
    )
    if "in_a_row" in result:
        console.print(chain_words(result["in_a_row"]), highlight=False)
    return 0


def chain_record(outcomes: Sequence[Outcome], env: Mapping[str, Any]) -> dict[str, Any]:
    """Of chains of tasks how many were done in a row; empty of single tasks."""
    chain = int(env.get("chain", 1))
    return {} if chain == 1 else {"in_a_row": in_a_row([outcome.score for outcome in outcomes], chain)}


def chain_words(found: Mapping[str, Any]) -> str:
    """What `chain_record` found, in a line."""
    shares = ", ".join(f"{number}: {share[0]:.0%}" for number, share in found["success"].items())
    return f"tasks in a row: {shares}; average length {found['average_length']:.2f}"


def seeds(config: DictConfig) -> list[int]:
    """The run's own report seeds for seed=<its seed>, others for another."""
    return episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))


def policy_path(run: RunFolder, checkpoint: str) -> Path:
    """The policy file of `final`, `best` or a step."""
    found = {int(path.stem.split("_")[1]): path for path in run.checkpoints.glob("step_*.safetensors")}
    if not found:
        raise UserError(f"{run.path} holds no policy yet: continue it with resume=true")
    if checkpoint == "final":
        return found[max(found)]
    if checkpoint == "best":
        selected = run.result("select")
        if not selected:
            raise UserError(f"{run.path} chose no best checkpoint: it ran with evaluate.selection_episodes=0")
        return found[int(selected["step"])]
    if checkpoint.isdigit() and int(checkpoint) in found:
        return found[int(checkpoint)]
    raise unknown_name("checkpoint", checkpoint, ["final", "best", *map(str, sorted(found))])


def embodiment(config: DictConfig) -> str | None:
    """Which robot's part of a policy of several is asked for; None: it is of one."""
    return None if config.embodiment is None else str(config.embodiment)
