"""Collecting the demonstrations of an experiment into a store, once, whoever asks first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, DONE, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS, Reporter, image_key
from embodied.core.run_folder import versions
from embodied.datasets.storage.disk import FileLock, disk_errors
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.envs.rollout import collect_episodes
from embodied.envs.task_env import TaskEnv
from embodied.training.collect import collect


def collect_into(
    path: Path,
    env: Mapping[str, Any],
    behaviour: Mapping[str, Any],
    *,
    episodes: int,
    workers: int,
    reporter: Reporter,
    wait: bool = False,
) -> EpisodeStore:
    """The store at `path` with at least `episodes` episodes made with these settings.

    Args:
        path: the store; it may hold the first of these episodes already.
        env: arguments of `TaskEnv`.
        behaviour: the settings `collect` of a verb, with the name of the expert.
        episodes: how many the store shall hold.
        workers: simulator processes; 0: this one simulates.
        reporter: shows progress.
        wait: for another process that is collecting into it; else raise.

    Raises:
        UsageError: it was made with other settings; or episodes would have several instructions.
        UserError: another process is collecting into it, or the behaviour does not succeed.
    """
    if env.get("chain", 1) != 1:
        raise UsageError(f"env.chain={env['chain']}: a store has one instruction per episode; leave env.chain out")
    with _collecting_alone(path, wait=wait):
        made = {"env": dict(env), "collect": dict(behaviour), "versions": versions()}
        if path.exists():
            store = EpisodeStore.open(path)
            require_same(store, made, path)
            if len(store) >= episodes:
                return store
            store = EpisodeStore.open(path, mode="a")
        else:
            shown = TaskEnv(**{**env, "images": False})  # for what it says of itself
            store = EpisodeStore.create(
                path, keys=store_keys(shown), fps=shown.fps, robot=shown.spec_of_task.robot, provenance=made
            )
            shown.close()
        collect(
            store,
            partial(
                collect_episodes, env, behaviour["expert"], noise_std=float(behaviour["noise"]), num_workers=workers
            ),
            episodes=episodes,
            first_seed=int(behaviour["seed"]),
            only_successes=bool(behaviour["only_successes"]),
            reporter=reporter,
        )
        store.close()
        return EpisodeStore.open(path)


@contextmanager
def _collecting_alone(path: Path, *, wait: bool) -> Iterator[None]:
    """Keep others from collecting into the store: two would try the same seeds."""
    lock = FileLock(path.parent / f".{path.name}.collect.lock")
    with disk_errors(path, "taking the lock"):
        if not lock.acquire(wait=wait):
            raise UserError(f"{lock.holder()} is collecting into {path}: wait until it is done, or stop it")
    try:
        yield
    finally:
        lock.release()


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
    """What an episode holds: observations, frames of all cameras, actions, rewards, success; of one without images."""
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
