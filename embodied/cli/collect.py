"""Collect episodes of a task into an episode store.

The store holds frames, proprioception, the privileged state, actions, rewards and success of every step. The same
command goes on where an interrupted one stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from embodied.bench.collection import collect_into
from embodied.cli.config import compose_config, positive
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import collect_options, env_options, resolve_workers, store_path
from embodied.core.protocols import Reporter
from embodied.datasets.store.episode_store import EpisodeStore


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied collect`."""
    config = compose_config("collect", arguments)
    console = Console()
    positive(config, "episodes")
    path = Path(config.store).expanduser() if config.store else store_path(config, int(config.episodes))
    reporter = RichReporter(console)
    with reporter.phase("collect"):
        store = collect_store(path, config, episodes=int(config.episodes), reporter=reporter)
    successes = sum(episode.success is True for episode in store.episodes)
    console.print(
        f"{len(store)} episodes, {successes} successful, {store.num_frames} frames: [bold]{path}[/]", highlight=False
    )
    return 0


def collect_store(path: Path, config: DictConfig, *, episodes: int, reporter: Reporter) -> EpisodeStore:
    """The store at `path` with at least `episodes` episodes made with these settings, see `collect_into`."""
    return collect_into(
        path,
        env_options(config),
        collect_options(config),
        episodes=episodes,
        workers=resolve_workers(config.workers),
        reporter=reporter,
    )
