"""From a composed configuration to typed objects: the last place that knows DictConfig."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from embodied.bench.policy_episodes import SEEDS_PER_RUN
from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import cache_folder, hash_json
from embodied.core.protocols import STATE
from embodied.core.run_folder import version_of
from embodied.envs.experts.behaviours import check_expert, expert_names
from embodied.envs.registry import NO_SIMULATOR, load_suite, suite_names
from embodied.envs.task_env import TaskEnv
from embodied.envs.visuals.draw import make_visuals
from embodied.policies.action_space import ActionSpace

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
    """Arguments of `TaskEnv`: the env group with task, camera and horizon as they will be used.

    Options that came later stay out at their defaults (`Suite.silent_defaults`): they name stores and protocols.

    Raises:
        UsageError: the suite has no such task, camera, horizon or option.
    """
    options = OmegaConf.to_container(config.env, resolve=True)
    assert isinstance(options, dict), type(options)
    if options["suite"] == NO_SIMULATOR:
        raise UsageError(
            "env=none is for embodied train data=<episode store>, with policies of behaviour cloning: for all else "
            f"choose a simulator, env={', env='.join(suite_names())}"
        )
    camera = OmegaConf.to_container(config.camera) if OmegaConf.is_list(config.camera) else config.camera
    task = OmegaConf.to_container(config.task) if OmegaConf.is_list(config.task) else config.task
    suite = load_suite(str(options["suite"]))
    silent = {name for name in suite.silent_defaults if options.get(name) == suite.options[name]}
    kept = {str(key): value for key, value in options.items() if key not in silent}
    named = {**kept, "task": task, "camera": camera}
    env = probe_env(named)
    cameras = env.cameras[0] if isinstance(camera, str | None) else list(env.cameras)
    return {**named, "task": env.task, "camera": cameras, "horizon": env.horizon}


def trial_options(chosen: Any, env: Mapping[str, Any], *, setting: str) -> dict[str, Any]:
    """Options of evaluation episodes that differ from those of the demonstrations.

    Args:
        chosen: the value of the setting: a group, or None.
        env: the options that it differs from.
        setting: its name, for messages.

    Raises:
        UsageError: it is no group, or an option does not exist or makes no sense.
    """
    if chosen is None:
        return {}
    if not OmegaConf.is_dict(chosen):
        raise UsageError(f"{setting} must be a group of options, '{{instructions: heldout}}', got {chosen!r}")
    options = {str(key): value for key, value in chosen.items()}
    known = {**load_suite(str(env["suite"])).options, "task": None, "horizon": None}
    for name in options:
        if name not in known:
            raise unknown_name(f"option in {setting} for {env['suite']}", name, known)
    probe_env({**env, **options})  # refuses what makes no sense
    return options


def probe_env(options: Mapping[str, Any]) -> TaskEnv:
    """An environment with these options that shows no frames, for what it says of itself; made once."""
    return _probe_env(json.dumps({**options, "images": False}, sort_keys=True))


@cache
def _probe_env(options: str) -> TaskEnv:
    return TaskEnv(**json.loads(options))


def collect_options(config: DictConfig) -> dict[str, Any]:
    """The collect group, with the behaviour that will be used.

    Raises:
        UsageError: the suite has no such behaviour, or a number makes no sense.
    """
    options = {str(key): value for key, value in config.collect.items()}
    suite = load_suite(str(config.env.suite))
    kind = options["expert"] or next(iter(expert_names(suite)))
    check_expert(str(kind), suite)
    if options["noise"] < 0:
        raise UsageError(f"collect.noise must be at least 0, got {options['noise']}")
    return {**options, "expert": str(kind)}


def store_path(config: DictConfig, episodes: int) -> Path:
    """Where demonstrations with these settings are cached; another simulator version is another store."""
    options = env_options(config)
    identity = {
        "env": options,
        "collect": collect_options(config),
        "episodes": episodes,
        "versions": {name: version_of(name) for name in ("mujoco", load_suite(options["suite"]).distribution)},
    }
    return resolve_cache(config) / "stores" / f"{options['task']}-{episodes}-{hash_json(identity)[:12]}"


def action_space_of(env: Mapping[str, Any]) -> ActionSpace:
    """Of an environment with these options."""
    spec = probe_env(env).spec_of_task
    return ActionSpace(
        low=tuple(spec.action_low.tolist()),
        high=tuple(spec.action_high.tolist()),
        names=tuple(spec.action),
        gripper=tuple(spec.gripper),
    )


def reported_options(config: DictConfig, env: Mapping[str, Any]) -> dict[str, Any]:
    """What the reported episodes of `embodied train` have of their own: a visual shift, options of the environment."""
    return {**reported_shift(config), **trial_options(config.evaluate.env, env, setting="evaluate.env")}


def reported_shift(config: DictConfig) -> dict[str, Any]:
    """The visual shift of the reported episodes; UsageError, before anything is trained, if there is none such."""
    shift, strength = config.evaluate.shift, config.evaluate.shift_strength
    make_visuals(visuals="static", shift=shift, strength=strength)
    return {"shift": shift, "shift_strength": strength}


def check_selection(config: DictConfig) -> None:
    """The number of episodes that choose a checkpoint. Raises UsageError: a run has no seeds for so many."""
    episodes = config.evaluate.selection_episodes
    if not 0 <= episodes <= SEEDS_PER_RUN:
        raise UsageError(f"evaluate.selection_episodes must be in [0, {SEEDS_PER_RUN}], got {episodes}")


def check_proprioception(encoder: str, env: Mapping[str, Any]) -> None:
    """The baseline that sees nothing else has something to see.

    Raises:
        UsageError: the task has no proprioception.
    """
    if encoder == "proprioception" and not probe_env(env).spec_of_task.state:
        protocol = f" with env.protocol={env['protocol']}" if env.get("protocol") else ""
        raise UsageError(
            f"encoder=proprioception: env={env['suite']} task={env['task']}{protocol} gives no {STATE}, so the policy "
            "would see nothing: choose another encoder (embodied list encoders)"
        )
