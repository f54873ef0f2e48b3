"""How often pixmc's scripted behaviour does each task, and how soon: docs/results/pixmc_experts.{json,png}.

python benchmarks/pixmc_experts.py            # about five minutes on one free core
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embodied.bench.statistics.intervals import wilson_interval
from embodied.core.files import atomic_path, write_json
from embodied.core.seeding import numpy_generator
from embodied.envs.gl import select_gl_backend
from embodied.envs.registry import load_suite

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FIRST_SEED, EPISODES = 50_000, 50  # no episode that the scripts were written with
NOISE = (0.0, 0.05, 0.1, 0.2, 0.4)  # standard deviation on every element, in units of the action
COLOURS = {"reach": "#15803d", "cabinet": "#92400e", "pick": "#b91c1c", "move": "#1d4ed8"}


def finished(task: str, noise_std: float) -> list[int | None]:
    """The step at which each episode was done, None for those that were not at the default horizon."""
    suite = load_suite("pixmc")
    simulation = suite.make(task, protocol=None, **suite.options)
    expert = suite.make_expert("scripted", task, simulation)
    steps: list[int | None] = []
    for seed in range(FIRST_SEED, FIRST_SEED + EPISODES):
        noise = numpy_generator(seed, "action noise")
        simulation.reset(seed)
        expert.reset(seed)
        done = None
        for step in range(1, simulation.spec.horizon + 1):
            action = expert.act({}) + noise_std * noise.normal(size=len(simulation.spec.action))
            if simulation.step(np.clip(action, -1, 1).astype(np.float32)).success:
                done = step
                break
        steps.append(done)
    return steps


def steps_per_second(task: str) -> float:
    """Physics, reward and state under random actions, without pictures, per second of one core."""
    suite = load_suite("pixmc")
    simulation = suite.make(task, protocol=None, **suite.options)
    random, count = numpy_generator(0, "speed"), 500
    actions = random.uniform(-1, 1, (count, len(simulation.spec.action))).astype(np.float32)
    simulation.reset(0)
    start = process_time()
    for action in actions:
        simulation.step(action)
        simulation.observe()
    return count / (process_time() - start)


def measure(task: str) -> dict[str, Any]:
    """Successes and steps at every noise."""
    rows = []
    for noise_std in NOISE:
        steps = finished(task, noise_std)
        done = [step for step in steps if step is not None]
        low, high = wilson_interval(len(done), len(steps))
        rows.append({"noise_std": noise_std, "successes": len(done), "interval": [low, high], "steps": steps})
        median = f"median {np.median(done):.0f}, at most {max(done)} steps" if done else "never"
        print(
            f"{task}, noise {noise_std:g}: {len(done)} of {len(steps)} ({low:.0%} to {high:.0%}), {median}", flush=True
        )
    speed = steps_per_second(task)
    print(f"{task}: {speed:.0f} steps per second and core", flush=True)
    return {"task": task, "steps_per_second": round(speed), "noise": rows}


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Per robot: episodes done by step without noise and with the most common one, and successes by noise."""
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for result in results:
        robot, goal = result["task"].split("-")
        row = axes[("franka", "kuka").index(robot)]
        for index, style in ((0, "-"), (1, ":")):
            noise = result["noise"][index]
            done = np.sort([step for step in noise["steps"] if step is not None])
            share = np.arange(1, len(done) + 1) / len(noise["steps"])
            label = goal if index == 0 else None
            row[0].step([0, *done], [0, *share], where="post", color=COLOURS[goal], linestyle=style, label=label)
        shares = np.array([noise["successes"] / len(noise["steps"]) for noise in result["noise"]])
        low, high = np.array([noise["interval"] for noise in result["noise"]]).T
        errors = np.clip([shares - low, high - shares], 0, None)
        aside = 0.005 * (list(COLOURS).index(goal) - 1.5)  # beside each other, where they are equal
        row[1].errorbar(np.array(NOISE) + aside, shares, errors, color=COLOURS[goal], marker=".", capsize=2)
        row[0].set_title(f"{robot}: episodes done by then (dotted: noise {NOISE[1]:g})")
        row[1].set_title(f"{robot}: success in {EPISODES} episodes, 95 % intervals")
        row[0].set_xlabel("step, 30 per second")
        row[1].set_xlabel("standard deviation of the noise on actions")
    for panel in axes.flat:
        panel.set_ylim(0, 1.03)
        panel.axhline(0.9, color="#9ca3af", linewidth=0.8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder")
    output: Path = parser.parse_args().output
    select_gl_backend()
    results = [measure(task) for task in load_suite("pixmc").instructions]
    settings = {"first_seed": FIRST_SEED, "episodes": EPISODES}
    write_json(output / "pixmc_experts.json", {**settings, "tasks": results})
    draw(results, output / "pixmc_experts.png")


if __name__ == "__main__":
    main()
