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
from embodied.cli.settings import collect_options, env_options, probe_env, resolve_workers, store_path
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, DONE, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS, Reporter, image_key
from embodied.core.run_folder import versions
from embodied.datasets.storage.disk import FileLock, disk_errors
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.envs.rollout import collect_episodes
from embodied.envs.task_env import TaskEnv
from embodied.training.collect import collect


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
    options, behaviour = env_options(config), collect_options(config)
    made = {"env": options, "collect": behaviour, "versions": versions()}
    if path.exists():
        store = EpisodeStore.open(path)
        require_same(store, made, path)
        if len(store) >= episodes:
            return store
        store = EpisodeStore.open(path, mode="a")
    else:
        env = probe_env(options)
        store = EpisodeStore.create(
            path, keys=store_keys(env), fps=env.fps, robot=env.spec_of_task.robot, provenance=made
        )
    collect(
        store,
        partial(
            collect_episodes,
            options,
            behaviour["expert"],
            noise_std=float(behaviour["noise"]),
            num_workers=resolve_workers(config.workers),
        ),
        episodes=episodes,
        first_seed=int(behaviour["seed"]),
        only_successes=bool(behaviour["only_successes"]),
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


def store_keys(env: TaskEnv) -> dict[str, KeySpec]:
    """What an episode holds: the environment's observations, frames of all its cameras, actions, rewards, success."""
    spec = env.spec_of_task
    names = {STATE: spec.state, ENVIRONMENT_STATE: spec.environment_state}
    keys = {image_key(camera): KeySpec("uint8", env.frame_shape) for camera in env.cameras}
    spaces: Any = env.observation_space
    for name, space in spaces.items():
        labels = names[name]
        keys[name] = KeySpec("float32", space.shape, names=labels if isinstance(labels, tuple) else ())
    return {
        **keys,
        ACTION: KeySpec("float32", env.action_space.shape or (), names=spec.action),
        REWARD: KeySpec("float32", ()),
        SUCCESS: KeySpec("bool", ()),
        DONE: KeySpec("bool", ()),
    }
