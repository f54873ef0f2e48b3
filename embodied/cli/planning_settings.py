"""From a composed configuration to an experiment of planning: what `embodied train policy=visual_mpc` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.bench.planning import Planning
from embodied.bench.policy_episodes import REPORT_SEEDS, episode_seeds
from embodied.cli.cloning_settings import check_stability
from embodied.cli.config import positive
from embodied.cli.settings import (
    cache_bytes,
    env_options,
    probe_env,
    reported_shift,
    resolve_cache,
    resolve_device,
    resolve_workers,
    store_path,
)
from embodied.core.errors import UsageError, unknown_name
from embodied.datasets.store.episode_index import is_store
from embodied.policies.action_space import ActionSpace
from embodied.policies.visual_planning.goals import is_picture
from embodied.policies.visual_planning.models import SIMULATOR
from embodied.training.imitate import Training

PLANNER = "embodied.policies.visual_mpc.VisualMPC"
DEMONSTRATIONS = "demos"  # policy.goal: the last frames of the successful ones
OF_THE_PLANNER = (
    "samples", "elites", "iterations", "std", "floor", "momentum", "noise", "beta", "answer", "gamma", "standardise",
)  # fmt: skip
OF_THE_POLICY = (
    "planner", "horizon", "execute", "cost", "feature", "distance", "over", "context", "rows", "draws",
)  # fmt: skip


def make_planning(config: DictConfig) -> Planning:
    """The experiment of a planning policy.

    Raises:
        UsageError: a setting makes no sense.
    """
    positive(config, "demos", "episodes", "train.steps", "train.batch_size", "policy.horizon", "policy.execute")
    check_stability(config.train)
    episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))  # refuses what would reach into other seeds
    env = env_options(config)
    if not isinstance(env["camera"], str):
        raise UsageError(f"camera: policy=visual_mpc looks through one camera, got {env['camera']}")
    found = OmegaConf.to_container(config.policy, resolve=True)
    assert isinstance(found, dict), type(found)
    settings = {str(key): value for key, value in found.items()}
    head = reward_hidden(settings)
    picture, store, given = goal_and_store(config, settings, wanted=settings["cost"] != "reward" or head is not None)
    spec = probe_env(env).spec_of_task
    return Planning(
        env=env,
        encoder=str(config.encoder),
        policy_target=PLANNER,
        policy={
            **{name: settings[name] for name in OF_THE_POLICY},
            "model": model_name(settings["model"]),
            "planner_options": {name: settings[name] for name in OF_THE_PLANNER if settings[name] is not None},
            "reward_hidden": head,
        },
        action_space=ActionSpace(
            low=tuple(spec.action_low.tolist()),
            high=tuple(spec.action_high.tolist()),
            names=tuple(spec.action),
            gripper=tuple(spec.gripper),
        ),
        training=Training(**{**{str(key): value for key, value in config.train.items()}, "checkpoints": 1}),
        episodes=int(config.episodes),
        seed=int(config.seed),
        device=resolve_device(str(config.device)),
        workers=resolve_workers(config.workers),
        picture=picture,
        store=store,
        given=given,
        demos=int(config.demos) if store is not None else 0,
        target=settings["reward"]["target"],
        discount=checked_discount(settings["reward"]["discount"]),
        shift=reported_shift(config),
        cache=resolve_cache(config),
        cache_bytes=cache_bytes(config),
    )


def model_name(model: Any) -> str:
    """`simulator`, or an absolute run folder.

    Raises:
        UsageError: there is none.
    """
    if not model:
        raise UsageError(
            "policy=visual_mpc plans with a world model: write policy.model=<run folder of embodied pretrain "
            "objective=maskvit or toto>, or policy.model=simulator for the upper bound"
        )
    if str(model) == SIMULATOR:
        return SIMULATOR
    folder = Path(str(model)).expanduser()
    if not folder.is_dir():
        if len(folder.parts) == 1:
            raise unknown_name("policy.model", str(model), [SIMULATOR, "<run folder>"])
        raise UsageError(f"policy.model: there is no run folder {folder}")
    return str(folder.resolve())


def reward_hidden(settings: dict[str, Any]) -> list[int] | None:
    """Widths of the head that reads rewards; None where there is none: the simulator knows them."""
    if settings["cost"] != "reward" or settings["model"] == SIMULATOR:
        return None
    return [int(width) for width in settings["reward"]["hidden"]]


def goal_and_store(
    config: DictConfig, settings: dict[str, Any], *, wanted: bool
) -> tuple[Path | None, Path | None, bool]:
    """The picture of the goal, the store of demonstrations, and whether the user named it.

    Raises:
        UsageError: what was named is neither.
    """
    goal = str(settings["goal"])
    if settings["cost"] != "reward" and is_picture(goal):
        return Path(goal).expanduser().resolve(), None, False
    if not wanted:
        return None, None, False
    if settings["cost"] == "reward" or goal == DEMONSTRATIONS:
        named = settings["reward"]["data"] if settings["cost"] == "reward" else None
        if named is None:
            return None, store_path(config, int(config.demos)), False
        goal = str(named)
    folder = Path(goal).expanduser()
    if not is_store(folder):
        raise UsageError(
            f"{folder} is neither a picture nor an episode store: write policy.goal={DEMONSTRATIONS} for the last "
            "frames of collected demonstrations"
        )
    return None, folder.resolve(), True


def checked_discount(discount: Any) -> float:
    """Within (0, 1)."""
    if isinstance(discount, bool) or not isinstance(discount, int | float) or not 0 < discount < 1:
        raise UsageError(f"policy.reward.discount must be in (0, 1), got {discount!r}")
    return float(discount)
