"""What a run on recordings of several robots leaves: summary.json, plots and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from embodied.bench.html import document, table
from embodied.bench.open_loop import open_loop_plot
from embodied.bench.open_loop_report import (
    NO_SUCCESS_RATE,
    against_trivial,
    checkpoint_table,
    error_tables,
    how_it_ran,
)
from embodied.bench.plots import plot_learning_curve
from embodied.bench.report import data_uri
from embodied.bench.several_robots import SeveralRobots
from embodied.core.files import write_json, write_text
from embodied.core.run_folder import RunFolder, read_metrics, versions

LEARNING_CURVE = "plots/learning_curve.png"


def summarize_several(experiment: SeveralRobots, run: RunFolder) -> dict[str, Any]:
    """The content of summary.json, from the recorded phases; `robots` has what is of each."""
    evaluated, selected, data = (run.result(name) for name in ("evaluate", "select", "data"))
    assert evaluated is not None and selected is not None and data is not None, run.path
    lead = experiment.lead
    chosen = selected.pop("robots")
    learned = {"learning_curve": LEARNING_CURVE, "metrics": "metrics.jsonl"}
    return {
        "task": experiment.name,
        "encoder": lead.encoder,
        "encoder_fingerprint": experiment.metadata["encoder"]["fingerprint"],
        "head": lead.head,
        "seed": lead.seed,
        "robots": {
            name: {
                "data": data["robots"][name],
                "open_loop": evaluated[name],
                "best_checkpoint": chosen[name],
                "plot": open_loop_plot(member),
            }
            for name, member in experiment.members.items()
        },
        "best_checkpoint": selected,
        "seconds": run.phase_seconds(),
        "artifacts": {
            "policy": str(lead.final_policy(run).relative_to(run.path)),
            "report": "report.html",
            "config": "config.yaml",
            **(learned if (run.path / "metrics.jsonl").is_file() else {}),
        },
        "command": run.command,
        "versions": versions(),
        "device": str(lead.device),
    }


def write_several(run: RunFolder, summary: dict[str, Any]) -> None:
    """Draw the learning curve, then write report.html and summary.json."""
    curve = ""
    if "learning_curve" in summary["artifacts"]:
        plot_learning_curve(read_metrics(run.path / "metrics.jsonl"), run.path / LEARNING_CURVE)
        curve = f'<img alt="learning curve" src="{data_uri(run.path / LEARNING_CURVE)}">'
    write_json(run.summary_path, summary)
    tried = summary["best_checkpoint"]["checkpoints"]
    rows = [[str(row["step"]), f"{row['in_deviations']:.3f}"] for row in tried]
    body = f"""
<h1>{escape(str(summary["task"]))}</h1>
<p class="soft">one policy for {len(summary["robots"])} robots: encoder {escape(str(summary["encoder"]))}, head
{escape(str(summary["head"]))}, seed {summary["seed"]}, {escape(str(summary["device"]))}</p>
<p class="soft">{escape(NO_SUCCESS_RATE)}</p>
{"".join(_robot(run, name, found) for name, found in summary["robots"].items())}
<h1>Training</h1>
<p class="soft">Checkpoints: standard deviations from the recorded actions, mean of all robots.</p>
{table(["step", "deviations"], rows)}{curve}
{how_it_ran(run, summary)}
"""
    write_text(run.path / "report.html", document(f"{summary['task']}: one policy", body))


def _robot(run: RunFolder, name: str, summary: Mapping[str, Any]) -> str:
    found, data = summary["open_loop"], summary["data"]
    return f"""<h1>{escape(name)}</h1>
<p class="soft">{len(data["trained"])} recorded demonstrations of {escape(str(data["store"]))}</p>
<p><span class="big">{found["policy"]["in_deviations"]:.2f}</span> standard deviations: how far the policy's actions are
from the recorded ones on average, in {len(found["episodes"])} held-out episode(s), {found["frames"]:,} frames.
{escape(against_trivial(found))}</p>
{error_tables(found)}
<h2>Checkpoints</h2>{checkpoint_table(summary["best_checkpoint"])}
<h2>One held-out episode</h2><img alt="open loop" src="{data_uri(run.path / summary["plot"])}">
"""
