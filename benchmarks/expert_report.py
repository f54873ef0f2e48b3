"""The learning curve of an expert, and its publication with a card: see train_experts.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UserError
from embodied.core.files import atomic_path, write_text
from embodied.envs.experts.rl import load_actor

CARD_HEAD = """# Experts trained by reinforcement learning

One actor per task, `<suite>/<task>.safetensors`: two hidden layers, float16, from `observation.environment_state` to
the action. Trained by this project with SAC (arXiv 1812.05905; stable-baselines3), with `--hindsight` also for other
goals (arXiv 1707.01495), and nothing but the simulator; `python benchmarks/train_experts.py publish FOLDER...` writes
this card from what the files say of themselves.

Score: what the suite reports of an episode (dmc: return / 1000; adroit: success), over fresh seeds, as many as
"success" says, the most likely action, the actor as it is here. "held": at the action repeat of the training; "each":
choosing anew at every simulated action. Success: the suite's rule. Steps are the environment's, one simulates "repeat"
actions; the actor is that of the round whose selection episodes (other seeds) went best. "Choice": how many those were;
the commands now play 10 and 50 to report, and may keep another round. `curves.png`: all rounds.

| suite | task | score, held: mean (lowest) | success | score, each: mean (lowest) | steps | choice | repeat | seed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def draw_curve(records: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Score of the selection episodes, mean and range, and of the training episodes, by environment step."""
    figure, axes = _figure()
    _draw_scores(axes, records, color="#15803d", label="selection episodes: mean and range")
    steps = [record["steps"] for record in records]
    axes.plot(steps, [record["training_score"] for record in records], color="#6b7280", label="training episodes")
    axes.set_title(title)
    _save(figure, axes, path)


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """The selection episodes of several trainings, by their names."""
    figure, axes = _figure()
    for number, (name, records) in enumerate(curves.items()):
        _draw_scores(axes, records, color=f"C{number}", label=name)
    axes.set_title("Selection episodes while training: mean and range")
    _save(figure, axes, path)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _draw_scores(axes: Axes, records: Sequence[Mapping[str, Any]], *, color: str, label: str) -> None:
    steps = [record["steps"] for record in records]
    scores = [record["scores"] for record in records]
    low, high = [min(episodes) for episodes in scores], [max(episodes) for episodes in scores]
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(steps, [np.mean(episodes) for episodes in scores], color=color, marker=".", label=label)


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.set_xlabel("environment steps")
    axes.set_ylabel("score")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def publish(folders: list[Path], assets: Path, *, note: str = "") -> None:
    """Copy the actors of finished trainings to `assets` and write its card; `note`: what the numbers do not say."""
    for folder in folders:
        for path in sorted(folder.glob("*/*.safetensors")):
            tensors, metadata = load_checkpoint(path)
            if "evaluation" not in metadata:
                raise UserError(f"the training in {folder} is not finished: run its command again")
            records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            metadata["curve"] = [{"steps": record["steps"], "scores": record["scores"]} for record in records]
            save_checkpoint(assets / path.parent.name / path.name, tensors, {**metadata, "note": note})
    write_card(assets)


def write_card(assets: Path) -> None:
    """README.md and curves.png of a folder of actors, from their metadata."""
    rows, notes, commands, curves = [], [], [], {}
    for path in sorted(assets.glob("*/*.safetensors")):
        metadata = load_actor(path)[1]
        settings, curve = metadata["settings"], metadata["curve"]
        name = f"{settings['suite']} {settings['task']}"
        held, each = metadata["evaluation"], metadata["evaluation_each"]
        rows.append(
            f"| {settings['suite']} | {settings['task']} | {_spread(held['score'])} | {_rate(held['success'])} "
            f"| {_spread(each['score'])} | {metadata['steps']} | {len(curve[-1]['scores'])} "
            f"| {settings['action_repeat']} | {settings['seed']} |"
        )
        if np.mean(held["success"]) < 0.5:
            notes.append(f"{name}: not solved, trained too briefly; its command with more `--steps` goes further.")
        if metadata["note"]:
            notes.append(f"{name}: {metadata['note']}")
        commands.append(f"{metadata['command']}    # {metadata['minutes']:.0f} min on one core; {metadata['versions']}")
        curves[name] = curve
    draw_curves(curves, assets / "curves.png")
    text = CARD_HEAD + "\n".join(rows) + "\n\n" + "".join(f"- {line}\n" for line in notes)
    write_text(assets / "README.md", text + "\nCommands:\n\n" + "\n".join(f"    {line}" for line in commands) + "\n")


def _spread(scores: Sequence[float]) -> str:
    return f"{np.mean(scores):.3f} ({min(scores):.3f})"


def _rate(successes: Sequence[bool]) -> str:
    return f"{sum(successes)} of {len(successes)}"


def summary(found: dict[str, Any]) -> str:
    """One line about played episodes."""
    return f"score {_spread(found['score'])}, success {_rate(found['success'])}"
