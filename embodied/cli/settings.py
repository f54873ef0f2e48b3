"""From a composed configuration to typed objects: the last place that knows DictConfig."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from embodied.bench.experiment import REPORT_SEEDS, SELECTION_SEEDS, Experiment, Training, episode_seeds
from embodied.cli.config import positive
from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import cache_folder, hash_json
from embodied.core.run_folder import versions
from embodied.policies.bc import HEADS

MAXIMUM_WORKERS = 8


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:<n>`; `auto` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise unknown_name("device", name, ["auto", "cpu", "cuda"])
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device={name}: torch finds no CUDA device here; use device=cpu, or see embodied doctor")
    return torch.device(name)


def resolve_workers(workers: int | None) -> int:
    """Simulator processes: one per core that this process may use, at most 8; 0 means none beside this one."""
    if workers is None:
        return min(MAXIMUM_WORKERS, len(os.sched_getaffinity(0)))
    if not isinstance(workers, int) or workers < 0:
        raise UsageError(f"workers must be a whole number of at least 0, got {workers!r}")
    return workers


def resolve_cache(config: DictConfig) -> Path:
    """The folder for stores and features."""
    return Path(config.cache).expanduser() if config.cache else cache_folder()


def cache_bytes(config: DictConfig) -> int | None:
    """How much the caches of one kind may take before the least recently used go; None: no limit."""
    if config.cache_gb is None:
        return None
    if not isinstance(config.cache_gb, (int, float)) or isinstance(config.cache_gb, bool) or config.cache_gb <= 0:
        raise UsageError(f"cache_gb must be a positive number, got {config.cache_gb!r}")
    return int(config.cache_gb * 1e9)


def env_options(config: DictConfig) -> dict[str, Any]:
    """Options of the environment: the env group with the task and the camera."""
    from embodied.envs.experts import EXPERTS
    from embodied.envs.metaworld import CAMERAS, HORIZON_LIMIT, list_tasks

    positive(config, "env.image_size", "env.horizon")
    if config.env.horizon > HORIZON_LIMIT:
        raise UsageError(f"env.horizon must be in [1, {HORIZON_LIMIT}], got {config.env.horizon}")
    if config.collect.expert not in EXPERTS:
        raise unknown_name("collect.expert", str(config.collect.expert), EXPERTS)
    if config.collect.noise < 0:
        raise UsageError(f"collect.noise must be at least 0, got {config.collect.noise}")
    if config.task not in list_tasks():
        raise unknown_name("task", str(config.task), list_tasks())
    if config.camera not in CAMERAS:
        raise unknown_name("camera", str(config.camera), CAMERAS)
    if config.env.render not in ("lean", "full"):
        raise unknown_name("env.render", str(config.env.render), ["lean", "full"])
    options = OmegaConf.to_container(config.env, resolve=True)
    assert isinstance(options, dict), type(options)
    return {**{str(key): value for key, value in options.items()}, "task": config.task, "camera": config.camera}


def store_path(config: DictConfig, episodes: int) -> Path:
    """Where demonstrations with these settings are cached; another simulator version is another store."""
    installed = versions()
    identity = {
        "env": env_options(config),
        "collect": OmegaConf.to_container(config.collect, resolve=True),
        "episodes": episodes,
        "versions": {name: installed[name] for name in ("mujoco", "metaworld")},
    }
    return resolve_cache(config) / "stores" / f"{config.task}-{episodes}-{hash_json(identity)[:12]}"


def make_experiment(config: DictConfig) -> Experiment:
    """The experiment that `embodied train` runs."""
    positive(config, "demos", "episodes", "train.steps", "train.batch_size", "train.checkpoints", "policy.history")
    if config.policy.head not in HEADS:
        raise unknown_name("policy.head", str(config.policy.head), HEADS)
    if not isinstance(config.evaluate.selection_episodes, int) or config.evaluate.selection_episodes < 0:
        raise UsageError(f"evaluate.selection_episodes must be 0 or more, got {config.evaluate.selection_episodes!r}")
    if config.train.learning_rate <= 0 or config.train.weight_decay < 0:
        raise UsageError(
            f"train.learning_rate must be positive and train.weight_decay not negative, got "
            f"{config.train.learning_rate} and {config.train.weight_decay}"
        )
    episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))  # refuses what would reach into other seeds
    last = int(config.collect.seed) + int(config.demos)
    if not 0 <= int(config.collect.seed) <= last < SELECTION_SEEDS:
        raise UsageError(
            f"collect.seed must be in [0, {SELECTION_SEEDS - int(config.demos)}), got {config.collect.seed}"
        )
    policy = OmegaConf.to_container(config.policy, resolve=True)
    assert isinstance(policy, dict), type(policy)
    arguments = {str(key): value for key, value in policy.items() if key != "_target_"}
    return Experiment(
        store=store_path(config, int(config.demos)),
        env=env_options(config),
        encoder=str(config.encoder),
        policy_target=str(policy["_target_"]),
        policy=arguments,
        training=Training(**{str(key): value for key, value in config.train.items()}),
        demos=int(config.demos),
        episodes=int(config.episodes),
        selection_episodes=int(config.evaluate.selection_episodes),
        seed=int(config.seed),
        device=resolve_device(str(config.device)),
        workers=resolve_workers(config.workers),
        cache=resolve_cache(config),
        cache_bytes=cache_bytes(config),
    )
