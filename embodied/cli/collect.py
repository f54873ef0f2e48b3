"""Collect episodes of a task into an episode store.

The store holds frames, proprioception, the privileged state, actions, rewards and success of every step. The same
command goes on where an interrupted one stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from embodied.cli.config import compose_config, positive
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import env_options, resolve_workers, store_path
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import Reporter
from embodied.core.run_folder import versions
from embodied.datasets.storage.disk import FileLock, disk_errors
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.envs.rollout import collect_episodes
from embodied.training.collect import collect

FPS = 80.0  # Meta-World: 5 physics steps of 2.5 ms per action


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied collect`."""
    config = compose_config("collect", arguments)
    console = Console()
    positive(config, "episodes")
    path = Path(config.store).expanduser() if config.store else store_path(config, int(config.episodes))
    reporter = RichReporter(console)
    with reporter.phase("collect"):
        store = collect_into(path, config, episodes=int(config.episodes), reporter=reporter)
    successes = sum(episode.success is True for episode in store.episodes)
    console.print(
        f"{len(store)} episodes, {successes} successful, {store.num_frames} frames: [bold]{path}[/]", highlight=False
    )
    return 0


def collect_into(path: Path, config: DictConfig, *, episodes: int, reporter: Reporter) -> EpisodeStore:
    """The store at `path` with at least `episodes` episodes made with these settings.

    Raises:
        UsageError: it was made with other settings.
        UserError: another process is collecting into it.
    """
    lock = FileLock(path.parent / f".{path.name}.collect.lock")  # two would try the same seeds
    with disk_errors(path, "taking the lock"):
        if not lock.acquire(wait=False):
            raise UserError(f"{lock.holder()} is collecting into {path}: wait until it is done, or stop it")
    try:
        return _collect_into(path, config, episodes=episodes, reporter=reporter)
    finally:
        lock.release()


def _collect_into(path: Path, config: DictConfig, *, episodes: int, reporter: Reporter) -> EpisodeStore:
    options = env_options(config)
    options.pop("name")
    made = provenance(config, options)
    if path.exists():
        store = EpisodeStore.open(path)
        require_same(store, made, path)
        if len(store) >= episodes:
            return store
        store = EpisodeStore.open(path, mode="a")
    else:
        size = int(options["image_size"])
        store = EpisodeStore.create(path, keys=store_keys(options, size), fps=FPS, robot="sawyer", provenance=made)
    collect(
        store,
        partial(
            collect_episodes,
            options,
            str(config.collect.expert),
            noise_std=float(config.collect.noise),
            num_workers=resolve_workers(config.workers),
        ),
        episodes=episodes,
        first_seed=int(config.collect.seed),
        only_successes=bool(config.collect.only_successes),
        reporter=reporter,
    )
    store.close()
    return EpisodeStore.open(path)


def require_same(store: EpisodeStore, made: dict[str, Any], path: Path) -> None:
    """Refuse to add episodes to a store that was made with other settings."""
    for part in ("env", "collect"):
        before, now = dict(store.provenance.get(part, {})), made[part]
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing:
            name = differing[0]
            raise UsageError(
                f"{path} was made with {part}.{name}={before.get(name)}, not {now.get(name)}: choose another store="
            )


def store_keys(options: dict[str, Any], size: int) -> dict[str, KeySpec]:
    """What an episode of Meta-World holds."""
    return {
        f"observation.images.{options['camera']}": KeySpec("uint8", (size, size, 3)),
        "observation.state": KeySpec("float32", (4,)),
        "observation.environment_state": KeySpec("float32", (39,)),
        "action": KeySpec("float32", (4,)),
        "next.reward": KeySpec("float32", ()),
        "next.success": KeySpec("bool", ()),
        "next.done": KeySpec("bool", ()),
    }


def provenance(config: DictConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Where the episodes come from."""
    return {
        "env": {"name": str(config.env.name), **options},
        "collect": {str(key): value for key, value in config.collect.items()},
        "versions": versions(),
    }
