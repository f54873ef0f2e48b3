"""Reinforcement learning from a composed configuration."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.bench.policy_episodes import REPORT_SEEDS, episode_seeds
from embodied.bench.reinforcement import Reinforcement
from embodied.cli.config import positive
from embodied.cli.settings import (
    cache_bytes,
    check_proprioception,
    check_selection,
    env_options,
    probe_env,
    reported_options,
    resolve_cache,
    resolve_device,
    resolve_workers,
    store_path,
)
from embodied.core.errors import UsageError
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.policies.rl.policy import agent_module


def make_reinforcement(config: DictConfig) -> Reinforcement:
    """The experiment that `embodied train policy=<agent>` runs."""
    names = ("steps", "num_envs", "checkpoint_every")
    positive(config, "episodes", *(f"reinforce.{name}" for name in names))
    numbers: dict[str, Any] = {name: int(config.reinforce[name]) for name in names}
    check_selection(config)
    episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))  # refuses what would reach into other seeds
    env = env_options(config)
    if not isinstance(env["camera"], str):
        raise UsageError(f"camera: a policy looks through one camera, got {env['camera']}")
    policy = OmegaConf.to_container(config.policy, resolve=True)
    assert isinstance(policy, dict), type(policy)
    if "history" in policy:
        env["history"] = int(policy["history"])  # an agent that stacks frames itself
    spaces: Any = probe_env(env).observation_space
    check_proprioception(str(config.encoder), env)
    method = str(policy["_target_"]).split(".")[-2]
    starts_from_demonstrations = getattr(agent_module(method), "NEEDS_DEMONSTRATIONS", False)
    if starts_from_demonstrations:
        positive(config, "demos")
    return Reinforcement(
        env=env,
        state_dim=spaces[ENVIRONMENT_STATE].shape[0],
        encoder=str(config.encoder),
        method=method,
        store=store_path(config, int(config.demos)) if starts_from_demonstrations else None,
        demos=int(config.demos) if starts_from_demonstrations else 0,
        cache=resolve_cache(config),
        cache_bytes=cache_bytes(config),
        settings={str(key): value for key, value in policy.items() if key != "_target_"},
        feature=str(config.reinforce.feature),
        **numbers,
        selection_episodes=int(config.evaluate.selection_episodes),
        episodes=int(config.episodes),
        shift=reported_options(config, env),
        seed=int(config.seed),
        device=resolve_device(str(config.device)),
        workers=resolve_workers(config.workers),
    )
