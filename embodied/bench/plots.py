"""Plots, drawn without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied.core.files import atomic_path

if TYPE_CHECKING:  # a third of a second, for processes that draw at their end or not at all
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREEN, RED, GREY = "#2563eb", "#15803d", "#b91c1c", "#6b7280"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a comparison; rates in [0, 1]."""

    label: str
    mean: float
    low: float
    high: float


def plot_learning_curve(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Training loss by step (log scale), and where records have them the held-out loss and the success of checkpoints.

    Args:
        metrics: records with `step` and `loss`, `holdout_loss` or `success_rate`.
        path: the PNG to write.
    """
    figure, axes = _figure(7.0, 3.6)
    losses = [(row["step"], row["loss"]) for row in metrics if "loss" in row]
    axes.plot(*zip(*losses, strict=True), color=BLUE, label="training loss")
    held_out = [(row["step"], row["holdout_loss"]) for row in metrics if "holdout_loss" in row]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=RED, marker=".", label="held-out loss")
        axes.legend()
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss", color=BLUE)
    axes.set_title("Learning curve")
    rates = [(row["step"], row["success_rate"]) for row in metrics if "success_rate" in row]
    if rates:
        right = axes.twinx()
        right.plot(*zip(*rates, strict=True), color=GREEN, marker="o")
        right.set_ylim(-0.03, 1.03)
        right.set_ylabel("success on selection episodes", color=GREEN)
        right.spines["top"].set_visible(False)
    save_figure(figure, path)


def plot_reinforcement(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Mean return of training episodes by environment step, and the success and score of the evaluations.

    Args:
        metrics: records with `step` and `rollout/ep_rew_mean`, or `step`, `success_rate` and `score`.
        path: the PNG to write.
    """
    figure, axes = _figure(7.0, 3.6)
    returns = [(row["step"], row["rollout/ep_rew_mean"]) for row in metrics if "rollout/ep_rew_mean" in row]
    if returns:
        axes.plot(*zip(*returns, strict=True), color=BLUE)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of training episodes", color=BLUE)
    axes.set_title("Learning curve")
    right = axes.twinx()
    for name, color, line in (("success_rate", GREEN, "-"), ("score", GREY, ":")):
        points = [(row["step"], row[name]) for row in metrics if name in row]
        if points:
            right.plot(*zip(*points, strict=True), color=color, linestyle=line, marker="o", label=name.split("_")[0])
    right.set_ylim(-0.03, 1.03)
    right.set_ylabel("evaluation episodes", color=GREEN)
    right.spines["top"].set_visible(False)
    if right.lines:
        right.legend(loc="lower right")
    save_figure(figure, path)


def plot_success(outcomes: Sequence[Mapping[str, Any]], interval: Sequence[float], path: str | Path) -> None:
    """Every evaluation episode by its length, and the success rate with its 95 % interval.

    Args:
        outcomes: records with `success` and `steps`, in the order of the episodes.
        interval: low and high, in [0, 1].
        path: the PNG to write.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _empty_figure(7.0, 3.6)
    left, axes = figure.subplots(1, 2, width_ratios=(1, 5))
    rate = sum(bool(row["success"]) for row in outcomes) / len(outcomes)
    low, high = interval
    left.errorbar([0], [rate], yerr=[[rate - low], [high - rate]], fmt="o", color=BLUE, ecolor=GREY, capsize=6)
    left.set(xticks=[], xlim=(-1, 1), ylim=(-0.02, 1.02), ylabel="success rate, 95 % interval")
    for success, colour, label in ((True, GREEN, "success"), (False, RED, "failure")):
        points = [(number, row["steps"]) for number, row in enumerate(outcomes, 1) if row["success"] == success]
        if points:
            numbers, steps = zip(*points, strict=True)
            axes.scatter(numbers, steps, color=colour, label=f"{label} ({len(points)})", s=36)
    axes.set(xlabel="evaluation episode", ylabel="steps", ylim=(0, 1.08 * max(row["steps"] for row in outcomes)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Beside the points: failures lie at the top edge, successes anywhere below.
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for part in (left, axes):
        plain_axes(part)
    figure.suptitle(f"Success {rate:.0%}, 95 % interval {low:.0%} to {high:.0%}")
    save_figure(figure, path)


def plot_comparison(groups: Mapping[str, Sequence[Row]], path: str | Path) -> None:
    """Success rates with intervals, one panel per group (a task), rows from top to bottom as given."""
    labels = [row.label for row in next(iter(groups.values()))]
    figure = _empty_figure(3.6 * len(groups) + 1.6, 0.42 * len(labels) + 1.3)
    panels = np.atleast_1d(figure.subplots(1, len(groups), sharey=True))
    for axes, (title, rows) in zip(panels, groups.items(), strict=True):
        places = range(len(rows))
        means = [row.mean for row in rows]
        errors = [
            [max(0.0, row.mean - row.low) for row in rows],
            [max(0.0, row.high - row.mean) for row in rows],
        ]
        axes.errorbar(means, places, xerr=errors, fmt="o", color=BLUE, ecolor=GREY, capsize=3)
        axes.set_yticks(places, labels=labels)
        axes.invert_yaxis() if axes is panels[0] else None
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(title)
        axes.set_xlabel("success rate")
        plain_axes(axes)
    save_figure(figure, path)


def plot_differences(groups: Mapping[str, Sequence[Row]], path: str | Path) -> None:
    """Differences in percentage points with intervals around zero, one panel per group, rows from top to bottom."""
    height = max(len(rows) for rows in groups.values())
    figure = _empty_figure(4.6 * len(groups) + 0.6, 0.42 * height + 1.9)
    panels = np.atleast_1d(figure.subplots(1, len(groups)))
    for axes, (title, rows) in zip(panels, groups.items(), strict=True):
        means = [100 * row.mean for row in rows]
        errors = [[100 * (row.mean - row.low) for row in rows], [100 * (row.high - row.mean) for row in rows]]
        axes.axvline(0, color=GREY, linewidth=1)
        axes.errorbar(means, range(len(rows)), xerr=np.maximum(errors, 0), fmt="o", color=BLUE, ecolor=GREY, capsize=3)
        axes.set_yticks(range(len(rows)), labels=[row.label for row in rows])
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("percentage points, 95 % interval")
        plain_axes(axes)
    save_figure(figure, path)


def plot_actions(
    path: str | Path, *, recorded: np.ndarray, predicted: np.ndarray, names: Sequence[str], fps: float, title: str
) -> None:
    """Recorded and predicted actions of an episode, [F, A] each, a panel per axis.

    Args:
        path: the PNG to write.
        names: of the axes, [A].
        fps: frames per second.
    """
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = _empty_figure(3.2 * columns, 1.5 * rows + 0.7)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, squeeze=False)).ravel()
    seconds = np.arange(len(recorded)) / fps
    for number, axes in enumerate(panels):
        if number >= len(names):
            axes.set_visible(False)
            continue
        axes.plot(seconds, recorded[:, number], color=GREY, linewidth=1.6, label="recorded")
        axes.plot(seconds, predicted[:, number], color=BLUE, linewidth=0.9, label="predicted")
        axes.set_title(names[number], fontsize=8)
        axes.tick_params(labelsize=7)
        plain_axes(axes)
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("seconds", fontsize=8)
        axes.tick_params(labelbottom=True)
    panels[0].legend(fontsize=7)
    figure.suptitle(title)
    save_figure(figure, path)


def save_image_grid(rows: Sequence[np.ndarray], path: str | Path) -> None:
    """Rows of pictures, each uint8 [N, H, W, 3], side by side in one PNG."""
    from PIL import Image

    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    with atomic_path(path) as temporary:
        Image.fromarray(grid).save(temporary, format="png")


def _empty_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _empty_figure(width, height)
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Axes) -> None:
    """No frame above and to the right, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, at once."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
