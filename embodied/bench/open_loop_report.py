"""What a run without a simulator leaves: summary.json, plots and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from embodied.bench.experiment import Experiment
from embodied.bench.html import document, table
from embodied.bench.open_loop import OPEN_LOOP_PLOT
from embodied.bench.plots import plot_learning_curve
from embodied.bench.report import data_uri
from embodied.bench.results import described
from embodied.core.files import write_json, write_text
from embodied.core.run_folder import RunFolder, read_metrics, versions

POLICY = "the policy"
NO_SUCCESS_RATE = (
    "Open-loop errors are no success rate. Along a recording the policy sees what a person's actions led to, on a "
    "robot what its own do: one with small errors may still fail."
)
WHAT_THEY_KNOW = (
    "The mean action is that of the demonstrations: a policy that is no nearer has learned nothing. The last action is "
    "the recorded one of the moment before, and the present state the measured one: where frames follow each other "
    "quickly both are near by nature, and neither would ever move a robot. All look as often as the policy does."
)


def summarize_open_loop(experiment: Experiment, run: RunFolder) -> dict[str, Any]:
    """The content of summary.json, from the recorded phases."""
    evaluated, data = run.result("evaluate"), run.result("data")
    assert evaluated is not None and data is not None, run.path
    artifacts = {
        "policy": experiment.final_policy(run),
        "report": run.path / "report.html",
        "open_loop": run.path / OPEN_LOOP_PLOT,
        "config": run.path / "config.yaml",
    }
    if (run.path / "metrics.jsonl").is_file():
        artifacts |= {
            "learning_curve": run.path / "plots" / "learning_curve.png",
            "metrics": run.path / "metrics.jsonl",
        }
    return {
        **described(experiment),
        "data": data,
        "open_loop": evaluated,
        "best_checkpoint": run.result("select"),
        "seconds": run.phase_seconds(),
        "artifacts": {name: str(path.relative_to(run.path)) for name, path in artifacts.items()},
        "command": run.command,
        "versions": versions(),
        "device": str(experiment.device),
    }


def write_open_loop(run: RunFolder, summary: dict[str, Any]) -> None:
    """Draw the learning curve, then write report.html and summary.json."""
    if "learning_curve" in summary["artifacts"]:
        plot_learning_curve(read_metrics(run.path / "metrics.jsonl"), run.path / summary["artifacts"]["learning_curve"])
    write_json(run.summary_path, summary)
    found, data = summary["open_loop"], summary["data"]
    plots = "".join(
        f'<img alt="{name}" src="{data_uri(run.path / summary["artifacts"][name])}">'
        for name in ("open_loop", "learning_curve")
        if name in summary["artifacts"]
    )
    body = f"""
<h1>{escape(str(summary["task"]))}</h1>
<p class="soft">encoder {escape(str(summary["encoder"]))}, head {escape(str(summary["head"]))},
{summary["demos"]} recorded demonstrations of {escape(str(data["store"]))}, seed {summary["seed"]},
{escape(str(summary["device"]))}</p>
<p><span class="big">{found["policy"]["in_deviations"]:.2f}</span> standard deviations: how far the policy's actions are
from the recorded ones on average, in {len(found["episodes"])} held-out episode(s), {found["frames"]:,} frames.
{escape(against_trivial(found))}</p>
<p class="soft">{escape(NO_SUCCESS_RATE)}</p>
{error_tables(found)}
<h2>Checkpoints</h2>{checkpoint_table(summary["best_checkpoint"])}
<h2>One held-out episode</h2>{plots}
{how_it_ran(run, summary)}
"""
    title = f"{summary['task']}: {found['policy']['in_deviations']:.2f} deviations from recorded actions"
    write_text(run.path / "report.html", document(title, body))


def how_it_ran(run: RunFolder, summary: Mapping[str, Any]) -> str:
    """Time, command, configuration and environment of a run, as HTML."""
    config = (run.path / "config.yaml").read_text(encoding="utf-8")
    environment = (run.path / "environment.txt").read_text(encoding="utf-8")
    seconds = [[name, f"{value:.1f}"] for name, value in summary["seconds"].items()]
    return f"""<h2>Time</h2>{table(["phase", "seconds"], seconds)}
<h2>Command</h2><pre>{escape(str(summary["command"]))}</pre>
<h2>Configuration</h2><pre>{escape(config)}</pre>
<h2>Environment</h2><pre>{escape(environment)}</pre>"""


def error_tables(found: Mapping[str, Any]) -> str:
    """What `evaluate_open_loop` found, as HTML."""
    return f"""<h2>Beside predictors that learn nothing</h2>
{table(["", "deviations", "mean absolute error"], overall_rows(found))}
<p class="soft">{escape(WHAT_THEY_KNOW)}</p>
<h2>Axes</h2>
<p class="soft">Mean absolute errors, in each action's own unit; beside them how much it varies in the demonstrations
(standard deviation).</p>{_axes(found)}"""


def against_trivial(found: Mapping[str, Any]) -> str:
    """In words, which of the trivial predictors the policy is nearer than."""
    ours = found["policy"]["in_deviations"]
    sides: dict[bool, list[str]] = {True: [], False: []}
    for name, row in found["trivial"].items():
        sides[ours < row["in_deviations"]].append(f"{name} ({row['in_deviations']:.2f})")
    words = {True: "nearer than", False: "not nearer than"}
    told = "; ".join(f"{words[side]} {', '.join(names)}" for side, names in sides.items() if names)
    return f"Beside predictors that learn nothing: {told}."


def overall_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Policy and trivial predictors: name, error in deviations, mean absolute error."""
    rows = {POLICY: found["policy"], **found["trivial"]}
    return [[name, f"{row['in_deviations']:.3f}", f"{row['overall']:.4g}"] for name, row in rows.items()]


def _axes(found: Mapping[str, Any]) -> str:
    sides = {POLICY: found["policy"], **found["trivial"]}
    rows = [
        [
            name,
            *(f"{side['by_axis'][number]:.4g}" for side in sides.values()),
            f"{found['deviation'][number]:.4g}",
        ]
        for number, name in enumerate(found["names"])
    ]
    return table(["axis", *sides, "varies by"], rows)


def checkpoint_table(chosen: Mapping[str, Any]) -> str:
    """What `select_open_loop` found, as HTML."""
    rows = [[str(row["step"]), f"{row['in_deviations']:.3f}", f"{row['overall']:.4g}"] for row in chosen["checkpoints"]]
    return table(["step", "deviations", "mean absolute error"], rows) + (
        f'<p class="soft">The best is step {chosen["step"]}, chosen on these same episodes; the result is the last.</p>'
    )
