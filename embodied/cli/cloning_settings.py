"""Behaviour cloning from a composed configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.bench.experiment import ASSEMBLY, VIEWS, Experiment
from embodied.bench.policy_episodes import REPORT_SEEDS, SELECTION_SEEDS, episode_seeds
from embodied.cli.config import positive
from embodied.cli.settings import (
    action_space_of,
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
from embodied.core.errors import UsageError, unknown_name
from embodied.policies.assembly import assemble, head_options
from embodied.policies.augmented_views import read_views
from embodied.policies.frame_choice import FrameChoice, read_frame
from embodied.training.checkpoints import checkpoint_steps
from embodied.training.imitate import Training
from embodied.training.optimization import PRECISIONS


def make_experiment(config: DictConfig) -> Experiment:
    """The experiment that `embodied train` runs on demonstrations that it collects."""
    check_cloning(config)
    last = int(config.collect.seed) + int(config.demos)
    if not 0 <= int(config.collect.seed) <= last < SELECTION_SEEDS:
        raise UsageError(
            f"collect.seed must be in [0, {SELECTION_SEEDS - int(config.demos)}), got {config.collect.seed}"
        )
    env = env_options(config)
    check_proprioception(str(config.encoder), env)
    check_no_frame(config, env)
    return Experiment(
        store=store_path(config, int(config.demos)),
        env=env,
        action_space=action_space_of(env),
        demos=int(config.demos),
        shift=reported_options(config, env),
        **cloning_arguments(config),
    )


def check_cloning(config: DictConfig) -> None:
    """Check the numbers of behaviour cloning.

    Raises:
        UsageError: one makes no sense.
    """
    positive(config, "demos", "episodes", "train.batch_size", "train.checkpoints")
    if isinstance(config.train.steps, bool) or not isinstance(config.train.steps, int) or config.train.steps < 0:
        raise UsageError(f"train.steps must be a whole number, 0 or more, got {config.train.steps!r}")
    checkpoint_steps(config.train.steps, config.train.checkpoints)  # refuses more of these than steps
    check_selection(config)
    if config.train.learning_rate <= 0 or config.train.weight_decay < 0:
        raise UsageError(
            f"train.learning_rate must be positive and train.weight_decay not negative, got "
            f"{config.train.learning_rate} and {config.train.weight_decay}"
        )
    check_stability(config.train)
    episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))  # refuses what would reach into other seeds
    rate = config.policy.encoder_learning_rate
    if rate is not None and (isinstance(rate, bool | str) or not rate > 0):
        raise UsageError(f"policy.encoder_learning_rate must be a positive number, got {rate!r}")


def unused_settings(config: DictConfig, given: Collection[str]) -> list[str]:
    """A line for every setting that was given and that the head does not look at; none of an agent or a planner."""
    head = config.policy.get("head")
    notes = []
    for name, owners in (("hidden", ("mlp", "conv")), ("codebook_share", ("vq_bet",))):
        if head is not None and head not in owners and f"policy.{name}" in given:
            instead = f", whose sizes are policy.head_sizes.{head}" if head in config.policy.head_sizes else ""
            notes.append(
                f"policy.{name} is of {' and '.join(owners)}: it changes nothing of policy.head={head}{instead}"
            )
    return notes


def check_stability(train: DictConfig) -> None:
    """Check warm-up, clipping and precision, which are null unless they are said.

    Raises:
        UsageError: one makes no sense.
    """
    warmup, clip, precision = train.warmup_steps, train.clip, train.precision
    whole = isinstance(warmup, int) and not isinstance(warmup, bool)
    if warmup is not None and not (whole and 0 <= warmup < max(1, train.steps)):
        raise UsageError(f"train.warmup_steps must be a whole number below train.steps={train.steps}, got {warmup!r}")
    number = isinstance(clip, int | float) and not isinstance(clip, bool)
    if clip is not None and not (number and isfinite(clip) and clip > 0):
        raise UsageError(f"train.clip must be a positive number or null, got {clip!r}")
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("train.precision", str(precision), PRECISIONS)


def chosen_frame(config: DictConfig) -> FrameChoice | None:
    """What a head's actions are measured from, if it is not the environment's frame. Raises UsageError."""
    setting = config.policy.action_frame
    return read_frame(OmegaConf.to_container(setting, resolve=True) if OmegaConf.is_config(setting) else setting)


def check_no_frame(config: DictConfig, env: Mapping[str, Any]) -> None:
    """A simulator's actions are learned as they are: none of them takes targets of what its state measures.

    Raises:
        UsageError: they are to be learned in another frame.
    """
    choice = chosen_frame(config)
    if choice is not None:
        actions = ", ".join(probe_env(env).spec_of_task.action)
        raise UsageError(
            f"{choice.setting} is for recordings of a robot that takes targets of what its state measures (data=, "
            f"env=none): the actions of env={env['suite']} task={env['task']}, {actions}, are displacements, "
            "velocities, forces, or targets on a scale of their own; leave it out"
        )


def cloning_arguments(config: DictConfig) -> dict[str, Any]:
    """Arguments of `Experiment` that say nothing of demonstrations or environment."""
    rate = config.policy.encoder_learning_rate
    return {
        "encoder": str(config.encoder),
        "policy_target": str(config.policy._target_),
        "policy": policy_arguments(config),
        "instruction": None if config.policy.instruction is None else str(config.policy.instruction),
        "training": Training(**{str(key): value for key, value in config.train.items()}, encoder_learning_rate=rate),
        "episodes": int(config.episodes),
        "selection_episodes": int(config.evaluate.selection_episodes),
        "seed": int(config.seed),
        "device": resolve_device(str(config.device)),
        "workers": resolve_workers(config.workers),
        "cache": resolve_cache(config),
        "cache_bytes": cache_bytes(config),
    }


NOT_OF_THE_POLICY = (
    *("_target_", "head_sizes", "codebook_share", "encoder_learning_rate", "instruction"),
    "action_frame",  # names; the policy is given what recordings make of them
)


def policy_arguments(config: DictConfig) -> dict[str, Any]:
    """Keyword arguments of `BCPolicy` beside the encoder and what the data decide.

    Raises:
        UsageError: names or numbers do not fit each other.
    """
    policy = OmegaConf.to_container(config.policy, resolve=True)
    assert isinstance(policy, dict), type(policy)
    arguments = {str(key): value for key, value in policy.items() if key not in NOT_OF_THE_POLICY}
    for name in ("head_options", "neck_options"):
        if not isinstance(arguments[name], dict | None):
            raise UsageError(f"policy.{name} must be a group of settings, '{{name: value}}', got {arguments[name]!r}")
    assemble(arguments["head"], **{name: arguments[name] for name in ASSEMBLY})  # refuses what does not fit
    if arguments[VIEWS] is None:
        del arguments[VIEWS]  # it came later: protocols that were published do not have it
    elif read_views(arguments[VIEWS]).count and arguments["tune"] != "frozen":
        raise UsageError(
            f"policy.views are features of a frozen encoder, which policy.tune={arguments['tune']} trains: leave one "
            "of them out"
        )
    options = head_options(
        arguments,
        sizes=policy["head_sizes"],
        steps=int(config.train.steps),
        codebook_share=float(policy["codebook_share"]),
    )
    return {**arguments, "head_options": options}
