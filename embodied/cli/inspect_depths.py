"""`embodied inspect` of a model of videos: what can be read out of it at each depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.bench.inspection.depth_clips import read_windows
from embodied.bench.inspection.depth_probe import DepthCurve, depth_curve, plot_depths
from embodied.bench.inspection.measure import why_no_probe
from embodied.bench.inspection.page import score_text
from embodied.cli.config import positive
from embodied.core.errors import UserError
from embodied.core.files import write_json
from embodied.core.protocols import Reporter
from embodied.core.run_folder import versions
from embodied.encoders.artifact import fingerprint
from embodied.encoders.toto import TotoEncoder

PLOT, NUMBERS = "depths.png", "depths.json"


def inspect_depths(
    config: DictConfig,
    encoder: TotoEncoder,
    *,
    sources: Sequence[str],
    folder: Path,
    command: str,
    reporter: Reporter,
    console: Console,
) -> None:
    """Probe every store at every depth; write `depths.png` and `depths.json` to `folder`.

    Raises:
        UsageError: a setting makes no sense, or a source is no store.
        UserError: no source can be probed.
    """
    positive(config, "frames", "stride", "probe_steps")
    target, share = str(config.target), max(1, int(config.frames) // len(sources))
    depths = list(range(encoder.network.depth + 1)) if config.depths is None else [int(each) for each in config.depths]
    curves = []
    for source in sources:
        camera = None if config.camera is None else str(config.camera)
        with reporter.phase("data"):
            windows = read_windows(
                source, encoder, frames=share, camera=camera, target=target, stride=int(config.stride)
            )
        if (reason := why_no_probe(windows.part, target)) is not None:
            console.print(f"{escape(windows.part.name)}: no probe, {escape(reason)}", highlight=False, soft_wrap=True)
            continue
        with reporter.phase("probes"):
            steps = int(config.probe_steps)
            curve = depth_curve(encoder, windows, target=target, depths=depths, steps=steps, reporter=reporter)
        curves.append(curve)
        console.print(depth_table(curve))
    if not curves:
        raise UserError("there is nothing to probe: give an episode store with several episodes and states that vary")
    plot_depths(curves, folder / PLOT)
    record = {"command": command, "fingerprint": fingerprint(encoder), "versions": versions()}
    write_json(folder / NUMBERS, {**record, "probes": [curve.record() for curve in curves]})
    console.print(f"look at [bold]{escape(str(folder / PLOT))}[/]", highlight=False, soft_wrap=True)


def depth_table(curve: DepthCurve) -> Table:
    """A row per depth, a column per pooling; the baselines below."""
    table = Table(title=f"{curve.target} from one frame and those before it, R²: {curve.part}", title_justify="left")
    for name in ("blocks", *curve.scores):
        table.add_column(name)
    for number, depth in enumerate(curve.depths):
        mark = " (features)" if depth == curve.read_depth else ""
        table.add_row(f"{depth}{mark}", *(score_text(row[number]) for row in curve.scores.values()))
    for name, each in curve.baselines.items():
        table.add_row(name, score_text(each))
    return table
