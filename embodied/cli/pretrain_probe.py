"""`probe=` of `embodied pretrain`: the encoder is looked at while it trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.markup import escape
from torch import nn

from embodied.bench.inspection.measure import why_no_probe
from embodied.bench.inspection.monitor import InspectionMonitor
from embodied.bench.inspection.samples import read_sample
from embodied.cli.config import positive
from embodied.core.protocols import LogMetrics


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
        reason = why_no_probe(part, target)
        if reason is not None:
            show(console, f"probe={part.name}: health only, {reason}")
    monitor = InspectionMonitor(parts, every=int(config.probe_every), target=target, warn=loud(console))
    baseline = monitor.baseline()
    if baseline:
        figures = ", ".join(f"{name.removesuffix('_pixels')} {value:.3f}" for name, value in baseline.items())
        show(console, f"probe: 16x16 raw pixels give {figures}; what the encoder gives is in metrics.jsonl")
    return monitor


@torch.no_grad()
def look_at_the_start(monitor: InspectionMonitor, objective: nn.Module, log: LogMetrics) -> None:
    """A record of step 0: what random weights give."""
    objective.eval()
    log({"step": 0, **monitor(0, objective)})
    objective.train()


def loud(console: Console) -> Callable[[str], None]:
    """Shows a line in red, above any progress bar."""
    return lambda text: console.print(f"[bold red]WARNING[/] [red]{escape(text)}[/]", highlight=False, soft_wrap=True)


def show(console: Console, text: str) -> None:
    """A line for the user, as it is."""
    console.print(escape(text), highlight=False, soft_wrap=True)
