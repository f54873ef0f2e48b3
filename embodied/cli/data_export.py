"""`embodied data export`: a store's episodes in another format."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.cli.data import format_options, required_path
from embodied.cli.frames_reporter import FramesReporter
from embodied.core.errors import UsageError
from embodied.core.run_folder import Stopwatch
from embodied.datasets.formats import checked_options, exporter, formats
from embodied.datasets.store.episode_store import EpisodeStore


def run_export(config: DictConfig) -> int:
    """Export a store.

    What is written is whole or absent: an export that was stopped leaves nothing at to=.
    """
    console = Console()
    store_path = required_path(config, "store", "which store?")
    to = Path(required_path(config, "to", "where to write it?"))
    if config.format is None:
        raise UsageError(f"which format? format=, one of {', '.join(formats('export'))}")
    export = exporter(str(config.format))
    options = checked_options(export, format_options(config), f"format={config.format}")
    if to.exists():
        raise UsageError(f"{to} exists already: choose another to=, or delete it")
    store = EpisodeStore.open(store_path)
    if not len(store):
        raise UsageError(f"{store_path} has no episodes to export")
    console.print(f"writes {config.format} to [bold]{escape(str(to))}[/]", highlight=False, soft_wrap=True)
    watch = Stopwatch()
    export(store, to, reporter=FramesReporter(console), **options)
    console.print(
        f"[green]✓[/] {len(store)} episodes, {store.num_frames:,} frames in {watch.seconds:.1f} s: "
        f"[bold]{escape(str(to))}[/]",
        highlight=False,
        soft_wrap=True,
    )
    return 0
