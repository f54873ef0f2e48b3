"""How often a suite's experts do their tasks, on seeds that no expert was made or chosen with.

    python benchmarks/expert_success.py adroit                            # every task that has an expert
    python benchmarks/expert_success.py adroit --tasks pen --protocol cortex --noise 0.1

As `embodied collect` plays them, but without frames. Adds to docs/results/expert_success.json, a row per suite, task,
protocol and noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from embodied.bench.statistics.intervals import wilson_interval
from embodied.core.errors import UsageError, UserError
from embodied.core.files import write_json
from embodied.envs.experts.behaviours import expert_names, make_expert
from embodied.envs.registry import load_suite
from embodied.envs.rollout import collect_episodes
from embodied.envs.task_env import TaskEnv

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "expert_success.json"
FIRST_SEED = 4_000_000  # train_experts.py takes those of 1 and 2 million, the scripts were written with small ones


def measure(
    suite: str, task: str, *, protocol: str | None, noise: float, episodes: int, first_seed: int
) -> dict[str, Any] | None:
    """Successes of the suite's best expert for a task; None where there is none."""
    options = {"suite": suite, "task": task, "protocol": protocol, "images": False}
    kind = next(iter(expert_names(load_suite(suite))))
    env = TaskEnv(**options)
    try:
        make_expert(kind, env.simulation)
    except UsageError as error:
        print(error, flush=True)
        return None
    finally:
        env.close()
    played = list(collect_episodes(options, kind, range(first_seed, first_seed + episodes), noise_std=noise))
    successes = sum(episode.success for episode in played)
    low, high = wilson_interval(successes, episodes)
    steps = [len(episode.arrays["action"]) for episode in played if episode.success]
    median = f", median {np.median(steps):.0f} steps" if steps else ""
    print(f"{suite} {task}: {successes} of {episodes} ({low:.0%} to {high:.0%}){median}", flush=True)
    return {
        "suite": suite,
        "task": task,
        "protocol": protocol,
        "noise": noise,
        "first_seed": first_seed,
        "episodes": episodes,
        "successes": successes,
        "interval": [low, high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    parser.add_argument("--tasks", nargs="*", help="default: all")
    parser.add_argument("--protocol")
    parser.add_argument("--noise", type=float, default=0.0, help="as collect.noise")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="another, once these were looked at")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    suite = load_suite(options.suite)
    tasks = options.tasks or (suite.protocols[options.protocol] if options.protocol else suite.instructions)
    rows = json.loads(options.output.read_text()) if options.output.is_file() else []
    for task in tasks:
        row = measure(
            options.suite,
            task,
            protocol=options.protocol,
            noise=options.noise,
            episodes=options.episodes,
            first_seed=options.first_seed,
        )
        if row is not None:
            same = ("suite", "task", "protocol", "noise")
            rows = [old for old in rows if any(old[name] != row[name] for name in same)] + [row]
            rows.sort(key=lambda old: [str(old[name]) for name in same])
            write_json(options.output, rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
