"""report.html: one page, no scripts, no network; plots and video lie inside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from embodied.core.files import write_text

STYLE = """
:root { color-scheme: light dark; --fg: #111827; --bg: #ffffff; --soft: #6b7280; --line: #e5e7eb; --ok: #15803d;
        --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --fg: #e5e7eb; --bg: #111827; --soft: #9ca3af; --line: #374151;
        --ok: #4ade80; --bad: #f87171; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } .soft { color: var(--soft); } .big { font-size: 3rem; font-weight: 700; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left;
       border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
img, video { max-width: 100%; background: white; border-radius: .3rem; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem; }
.ok { color: var(--ok); } .bad { color: var(--bad); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
"""
TYPES = {".png": "image/png", ".mp4": "video/mp4"}


def write_report(folder: Path, summary: Mapping[str, Any], config_yaml: str) -> None:
    """Write `report.html` to a run folder.

    Args:
        folder: the run folder, with the plots and the video that `summary["artifacts"]` names.
        summary: the content of summary.json.
        config_yaml: the resolved configuration.
    """
    low, high = summary["interval"]
    artifacts = summary["artifacts"]
    video = _data_uri(folder / artifacts["video"])
    plots = "".join(
        f'<img alt="{escape(name)}" src="{_data_uri(folder / artifacts[name])}">'
        for name in ("learning_curve", "success")
    )
    environment = (folder / "environment.txt").read_text(encoding="utf-8")
    title = f"{summary['task']}: {summary['success_rate']:.0%}"
    body = f"""
<h1>{escape(str(summary["task"]))}</h1>
<p class="soft">encoder {escape(str(summary["encoder"]))}, head {escape(str(summary["head"]))},
{summary["demos"]} demonstrations, seed {summary["seed"]}, {escape(str(summary["device"]))}</p>
<p><span class="big">{summary["success_rate"]:.0%}</span> success: {summary["successes"]} of {summary["episodes"]}
episodes on fresh seeds, 95 % interval {low:.0%} to {high:.0%}</p>
{_best(summary)}
<video controls loop muted autoplay src="{video}"></video>
<div class="pair">{plots}</div>
<h2>Time</h2>{_table(["phase", "seconds"], [[name, f"{value:.1f}"] for name, value in summary["seconds"].items()])}
<h2>Episodes</h2>{_episodes(summary["outcomes"])}
<h2>Command</h2><pre>{escape(str(summary["command"]))}</pre>
<h2>Configuration</h2><pre>{escape(config_yaml)}</pre>
<h2>Environment</h2><pre>{escape(environment)}</pre>
"""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'
    write_text(folder / "report.html", page)


def _best(summary: Mapping[str, Any]) -> str:
    best = summary["best_checkpoint"]
    if not best:
        return ""
    return (
        f'<p class="soft">Best over checkpoints (CortexBench-style, on {best["episodes"]} other episodes): '
        f"{best['success_rate']:.0%} at step {best['step']}.</p>"
    )


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
    return _table(["seed", "result", "steps", "reward"], rows, is_html=True)


def _table(header: list[str], rows: list[list[str]], *, is_html: bool = False) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{cell if is_html else escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _data_uri(path: Path) -> str:
    return f"data:{TYPES[path.suffix]};base64,{b64encode(path.read_bytes()).decode()}"
