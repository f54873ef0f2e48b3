"""From outcomes to what a person looks at: summary.json, plots, video, report.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embodied.bench.experiment import Experiment
from embodied.bench.planning import Planning
from embodied.bench.plots import plot_learning_curve, plot_reinforcement, plot_success
from embodied.bench.reinforcement import Reinforcement
from embodied.bench.report import write_report
from embodied.bench.statistics.intervals import wilson_interval
from embodied.bench.statistics.sequential import confidence_sequence
from embodied.bench.video import label_frames, side_by_side, write_video
from embodied.core.files import write_json
from embodied.core.run_folder import RunFolder, read_metrics, versions
from embodied.training.evaluate import Outcome

VIDEO_FPS = 20  # a quarter of the simulator's rate: an episode lasts 3 to 12 seconds on the screen


def save_outcomes(run: RunFolder, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Write the rollout video; returns the JSON-able outcomes."""
    clips = []
    for outcome in outcomes:
        if outcome.frames is not None:
            word = "success" if outcome.success else "failure"
            text = f"seed {outcome.seed}: {word} after {outcome.steps} steps"
            clips.append(label_frames(outcome.frames, text, outcome.success))
    if clips:
        frames = clips[0] if len(clips) == 1 else side_by_side(clips)
        write_video(run.path / "videos" / "rollout.mp4", frames, VIDEO_FPS)
    return {"outcomes": [outcome.record() for outcome in outcomes]}


def described(experiment: Experiment | Reinforcement | Planning) -> dict[str, Any]:
    """What was run, as every summary.json begins."""
    return {
        "task": experiment.env["task"],
        "camera": experiment.env["camera"],
        "encoder": experiment.encoder,
        "encoder_fingerprint": experiment.policy_metadata()["encoder"]["fingerprint"],
        "head": experiment.head,
        "seed": experiment.seed,
        "demos": experiment.demos,
    }


def summarize(experiment: Experiment | Reinforcement | Planning, run: RunFolder) -> dict[str, Any]:
    """The content of summary.json, from the recorded phases."""
    evaluated = run.result("evaluate")
    assert evaluated is not None, run.path
    outcomes = evaluated["outcomes"]
    successes = sum(outcome["success"] for outcome in outcomes)
    # An interval for a fixed number of episodes would not hold where what they showed decided the number.
    interval = wilson_interval if experiment.stopping is None else confidence_sequence
    return {
        **described(experiment),
        "success_rate": successes / len(outcomes),
        "interval": list(interval(successes, len(outcomes))),
        "episodes": len(outcomes),
        **({} if experiment.stopping is None else {"sequential": sequential_record(experiment)}),
        "successes": successes,
        "seeds": [outcome["seed"] for outcome in outcomes],
        "outcomes": outcomes,
        "score": sum(outcome["score"] for outcome in outcomes) / len(outcomes),
        "best_checkpoint": run.result("select") or None,
        **({"planning": run.result("train")} if isinstance(experiment, Planning) else {}),
        **({"data": data} if (data := run.result("data")) else {}),  # recorded demonstrations
        "seconds": run.phase_seconds(),
        "artifacts": artifacts(run, experiment),
        "command": run.command,
        "versions": versions(),
        "device": str(experiment.device),
    }


def sequential_record(experiment: Experiment | Reinforcement | Planning) -> dict[str, Any]:
    """How an evaluation may end early, and how many episodes were planned; empty for a fixed number."""
    if experiment.stopping is None:
        return {}
    return {**experiment.stopping.record(), "planned": experiment.episodes}


def artifacts(run: RunFolder, experiment: Experiment | Reinforcement | Planning) -> dict[str, str]:
    """What the run leaves, relative to its folder; one that learned nothing has no metrics and no curve."""
    found = {
        "policy": experiment.final_policy(run),
        "report": run.path / "report.html",
        "video": run.path / "videos" / "rollout.mp4",
        "learning_curve": run.path / "plots" / "learning_curve.png",
        "success": run.path / "plots" / "success.png",
        "metrics": run.path / "metrics.jsonl",
        "config": run.path / "config.yaml",
    }
    if not found["metrics"].is_file():
        del found["metrics"], found["learning_curve"]
    return {name: str(path.relative_to(run.path)) for name, path in found.items()}


def write_results(run: RunFolder, summary: dict[str, Any]) -> None:
    """Draw the plots, then write report.html and summary.json."""
    if "learning_curve" in summary["artifacts"]:
        metrics: list[dict[str, Any]] = read_metrics(run.path / "metrics.jsonl")
        if summary["best_checkpoint"]:
            metrics += summary["best_checkpoint"]["checkpoints"]
        plot = plot_learning_curve if any("loss" in row for row in metrics) else plot_reinforcement
        plot(metrics, run.path / summary["artifacts"]["learning_curve"])
    plot_success(summary["outcomes"], summary["interval"], run.path / "plots" / "success.png")
    write_json(run.summary_path, summary)
    write_report(run.path, summary, (run.path / "config.yaml").read_text(encoding="utf-8"))
