"""`probe=` of `embodied pretrain`: the encoder is looked at while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.markup import escape
from torch import nn

from embodied.bench.inspection.class_probes import why_no_classes
from embodied.bench.inspection.measure import why_no_probe
from embodied.bench.inspection.monitor import InspectionMonitor
from embodied.bench.inspection.samples import read_sample
from embodied.cli.config import positive
from embodied.core.protocols import LogMetrics
from embodied.training.pretrain import Monitor


def open_probe(config: DictConfig, console: Console) -> InspectionMonitor | None:
    """The monitor that the settings ask for, with its frames read; None where they ask for none.

    Raises:
        UsageError: a setting makes no sense.
        UserError: `probe` cannot be read.
    """
    if config.probe is None:
        return None
    positive(config, "probe_every", "probe_frames")
    entries = list(config.probe) if isinstance(config.probe, ListConfig) else [config.probe]
    target = str(config.probe_target)
    parts = read_sample([str(entry) for entry in entries], frames=int(config.probe_frames), camera=None, target=target)
    for part in parts:
        no_state, no_classes = why_no_probe(part, target), why_no_classes(part)
        if no_state is not None and no_classes is not None:
            show(console, f"probe={part.name}: health only, {no_state}, and {no_classes}")
    monitor = InspectionMonitor(parts, every=int(config.probe_every), target=target, warn=loud(console))
    baseline = monitor.baseline()
    if baseline:
        figures = ", ".join(f"{name.removesuffix('_pixels')} {value:.3f}" for name, value in baseline.items())
        show(console, f"probe: 16x16 raw pixels give {figures}; what the encoder gives is in metrics.jsonl")
    return monitor


@torch.no_grad()
def look_at_the_start(monitors: Sequence[Monitor], objective: nn.Module, log: LogMetrics) -> None:
    """Records of step 0: what random weights give."""
    objective.eval()
    for monitor in monitors:
        log({"step": 0, **monitor(0, objective)})
    objective.train()


def loud(console: Console) -> Callable[[str], None]:
    """Shows a line in red, above any progress bar."""
    return lambda text: console.print(f"[bold red]WARNING[/] [red]{escape(text)}[/]", highlight=False, soft_wrap=True)


def show(console: Console, text: str) -> None:
    """A line for the user, as it is."""
    console.print(escape(text), highlight=False, soft_wrap=True)
