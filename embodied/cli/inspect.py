"""Make one page to judge an encoder by: what its features show, and what can be read out of them.

Patch features as colours, nearest neighbours in the data, where the class token looks and where a patch finds its like;
linear and kNN probes of the robot's state on episodes that were held out, beside raw pixels; signs of collapse; speed.
The page opens from disk in any browser, without a network. numbers.json beside it is for scripts.

Of a model of videos (objective=toto): what probes read out at each depth, by how a frame's tokens are pooled.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from embodied.bench.inspection.inspect import PAGE, inspect_encoder
from embodied.bench.inspection.page import Facts, health_rows, score_text
from embodied.bench.inspection.samples import read_sample
from embodied.cli.config import compose_config, positive
from embodied.cli.inspect_depths import inspect_depths
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import resolve_device
from embodied.core.errors import UsageError, unknown_name
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import VECTORS
from embodied.encoders.toto import TotoEncoder


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied inspect`."""
    config = compose_config("inspect", arguments)
    positive(config, "frames")
    if config.on_error not in ("raise", "skip"):
        raise unknown_name("on_error", str(config.on_error), ("raise", "skip"))
    device = resolve_device(str(config.device))
    spec, console = str(config.encoder), Console()
    if not config.data:
        raise UsageError("which frames? write data=<episode store or folder of images>, or data='[a,b]'")
    encoder = seeing_encoder(spec, seed=int(config.seed)).to(device)
    reporter = RichReporter(console)
    folder = Path(config.to).expanduser() if config.to else Path("inspect", file_name(spec))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"to={folder} is a file: choose a folder")
    command = shlex.join(["embodied", "inspect", *arguments])
    if isinstance(encoder, TotoEncoder):
        inspect_depths(
            config,
            encoder,
            sources=sources(config),
            folder=folder,
            command=command,
            reporter=reporter,
            console=console,
        )
        return 0
    with reporter.phase("data"):
        parts = read_sample(
            sources(config),
            frames=int(config.frames),
            camera=None if config.camera is None else str(config.camera),
            target=str(config.target),
            skip_damaged=config.on_error == "skip",
        )
    facts = inspect_encoder(
        encoder,
        spec,
        parts,
        folder,
        target=str(config.target),
        command=command,
        reporter=reporter,
    )
    show(facts, console)
    console.print(f"look at [bold]{escape(str(folder / PAGE))}[/]", highlight=False, soft_wrap=True)
    return 0


def seeing_encoder(spec: str, *, seed: int) -> nn.Module:
    """The encoder, in eval mode.

    Raises:
        UsageError: it looks at no frames.
    """
    if spec in VECTORS:
        raise UsageError(f"encoder={spec} looks at no frames, so there is nothing to inspect: choose one that does")
    return load_encoder(spec, seed=seed).eval()


def sources(config: DictConfig) -> list[str]:
    """The entries of `data`."""
    return [str(entry) for entry in (config.data if isinstance(config.data, ListConfig) else [config.data])]


def file_name(spec: str) -> str:
    """A folder's name for an encoder: of an artifact `<run>/encoder` the run's."""
    path = Path(spec)
    named = path.resolve().parent.name if path.name == "encoder" else path.name or spec
    return re.sub(r"[^\w.+@-]+", "_", named).strip("_") or "encoder"


def show(facts: Facts, console: Console) -> None:
    """The numbers as tables; what is wrong last, where it is seen."""
    for each in facts.probes:
        table = Table(title=f"{facts.target} from one frame, R²: {each.part}", title_justify="left")
        for name in ("features", "linear probe", "kNN probe"):
            table.add_column(name)
        for row in each.rows:
            table.add_row(row.features, score_text(row.linear), score_text(row.knn))
        console.print(table)
    for name, reason in facts.no_probe.items():
        console.print(f"{escape(name)}: no probe, {escape(reason)}", highlight=False, soft_wrap=True)
    health = Table("", "", "raw pixels", "", box=None)
    for name, value, pixels, meaning in health_rows(facts):
        health.add_row(name, value, pixels, f"[dim]{escape(meaning)}[/]")
    console.print(health)
    for complaint in facts.complaints:
        console.print(f"[bold red]{escape(complaint)}[/]", highlight=False, soft_wrap=True)
