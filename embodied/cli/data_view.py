"""`embodied data view`: what episodes look like, as files that open anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.markup import escape

from embodied.bench.video import write_video
from embodied.cli.config import positive
from embodied.cli.data import required_path
from embodied.cli.episode_numbers import episode_numbers
from embodied.cli.frames_reporter import FramesReporter
from embodied.core.errors import UsageError, UserError
from embodied.core.files import atomic_path
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.viewing.contact_sheet import contact_sheet, video_frames


def run_view(config: DictConfig) -> int:
    """Draw episodes of a store.

    Per episode a contact sheet (rows are cameras, columns evenly spaced frames, curves of state and action below) and a
    video with all cameras side by side. With rerun=true also a recording for Rerun's viewer: rerun FILE.rrd.
    """
    console = Console()
    path = required_path(config, "store", "which store?")
    positive(config, "columns")
    store = EpisodeStore.open(path)
    if not len(store):
        raise UserError(f"{path} has no episodes to show")
    if config.spawn and not has_display():
        raise UsageError(
            "spawn=true needs a display (DISPLAY or WAYLAND_DISPLAY): use rerun=true and copy the .rrd file"
        )
    wanted = 0 if config.episode is None else config.episode
    episodes = episode_numbers(wanted, len(store), setting="episode")
    folder = Path(required_path(config, "to", "")) if config.to is not None else Path("views", store_name(path))
    console.print(f"writes to [bold]{escape(str(folder))}[/]", highlight=False, soft_wrap=True)
    recordings = []
    for episode in episodes:
        for file in draw(store, episode, folder, config, console):
            console.print(f"  {escape(str(file))}", highlight=False, soft_wrap=True)
            recordings += [file] if file.suffix == ".rrd" else []
    if config.spawn:
        from embodied.datasets.viewing.rerun_recording import spawn_viewer

        spawn_viewer(recordings)
    return 0


def draw(store: EpisodeStore, episode: int, folder: Path, config: DictConfig, console: Console) -> list[Path]:
    """Write the files of one episode."""
    stem, written = folder / f"episode_{episode:06d}", []
    with disk_errors(folder, "writing pictures"):
        sheet = contact_sheet(store, episode, columns=int(config.columns), curves=bool(config.curves))
        written.append(stem.with_suffix(".png"))
        with atomic_path(written[-1]) as temporary:
            Image.fromarray(sheet).save(temporary, "png")
        reporter = FramesReporter(console)
        if config.video:
            written.append(stem.with_suffix(".mp4"))
            frames = video_frames(store, episode, curves=bool(config.curves))
            length = store.episodes[episode].length
            write_video(written[-1], reporter.track(frames, total=length, description="frames"), store.fps)
        if config.rerun or config.spawn:
            from embodied.datasets.viewing.rerun_recording import write_recording

            written.append(stem.with_suffix(".rrd"))
            write_recording(store, episode, written[-1], reporter=reporter)
    return written


def has_display() -> bool:
    """Whether a window can be opened."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def store_name(path: str) -> str:
    """The last part of a store's path, for a folder's name."""
    return path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".zip") or "store"
