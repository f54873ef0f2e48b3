"""report.html: one page, no scripts, no network; plots and video lie inside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from embodied.bench.html import document, table
from embodied.core.files import write_text

TYPES = {".png": "image/png", ".mp4": "video/mp4"}


def write_report(folder: Path, summary: Mapping[str, Any], config_yaml: str) -> None:
    """Write `report.html` to a run folder.

    Args:
        folder: the run folder, with the plots that `summary["artifacts"]` names, and the video if there is one.
        summary: the content of summary.json.
        config_yaml: the resolved configuration.
    """
    low, high = summary["interval"]
    artifacts = summary["artifacts"]
    film = folder / artifacts["video"]
    video = '<p class="soft">These episodes were not filmed.</p>'
    if film.is_file():
        video = f'<video controls loop muted autoplay src="{data_uri(film)}"></video>'
    plots = "".join(
        f'<img alt="{escape(name)}" src="{data_uri(folder / artifacts[name])}">'
        for name in ("learning_curve", "success")
        if name in artifacts
    )
    environment = (folder / "environment.txt").read_text(encoding="utf-8")
    title = f"{summary['task']}: {summary['success_rate']:.0%}"
    body = f"""
<h1>{escape(str(summary["task"]))}</h1>
<p class="soft">encoder {escape(str(summary["encoder"]))}, head {escape(str(summary["head"]))},
{summary["demos"]} demonstrations, seed {summary["seed"]}, {escape(str(summary["device"]))}</p>
<p><span class="big">{summary["success_rate"]:.0%}</span> success: {summary["successes"]} of {summary["episodes"]}
episodes on fresh seeds, 95 % interval {low:.0%} to {high:.0%}</p>
{_stopped(summary)}{_best(summary)}{_planning(summary)}
{video}
<div class="pair">{plots}</div>
<h2>Time</h2>{table(["phase", "seconds"], [[name, f"{value:.1f}"] for name, value in summary["seconds"].items()])}
<h2>Episodes</h2>{_episodes(summary["outcomes"])}
<h2>Command</h2><pre>{escape(str(summary["command"]))}</pre>
<h2>Configuration</h2><pre>{escape(config_yaml)}</pre>
<h2>Environment</h2><pre>{escape(environment)}</pre>
"""
    write_text(folder / "report.html", document(title, body))


def _stopped(summary: Mapping[str, Any]) -> str:
    test = summary.get("sequential")
    if not test:
        return ""
    return (
        f'<p class="soft">A sequential test looked after every episode: {summary["episodes"]} of {test["planned"]} '
        "planned ones were enough. The interval is that of a confidence sequence, which holds wherever one stops.</p>"
    )


def _best(summary: Mapping[str, Any]) -> str:
    best = summary["best_checkpoint"]
    if not best:
        return ""
    return (
        f'<p class="soft">Best over checkpoints (CortexBench-style, on {best["episodes"]} other episodes): '
        f"{best['success_rate']:.0%} at step {best['step']}.</p>"
    )


def _planning(summary: Mapping[str, Any]) -> str:
    made = summary.get("planning")
    if not made:
        return ""
    speed = made["planning"]
    told = [
        f"Plans of {speed['actions']:.0f} actions, {speed['candidates']:.0f} candidates each: "
        f"{speed['calls_per_second']:.3g} plans per second."
    ]
    if "goals" in made:
        told.append(f"Goals: {made['goals']}.")
    if made.get("reward_r2") is not None:
        told.append(f"Reward head: R2 {made['reward_r2']:.3f} on episodes that it was not trained on.")
    return f'<p class="soft">{" ".join(told)}</p>'


def _episodes(outcomes: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(row["seed"]),
            '<span class="ok">success</span>' if row["success"] else '<span class="bad">failure</span>',
            str(row["steps"]),
            f"{row['total_reward']:.0f}",
        ]
        for row in outcomes
    ]
    return table(["seed", "result", "steps", "reward"], rows, is_html=True)


def data_uri(path: Path) -> str:
    """A picture or film as the source of an element, so that a page needs no other file."""
    return f"data:{TYPES[path.suffix]};base64,{b64encode(path.read_bytes()).decode()}"
