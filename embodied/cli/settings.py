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

from embodied.bench.experiment import ASSEMBLY, VIEWS, Experiment, Training
from embodied.bench.policy_episodes import REPORT_SEEDS, SELECTION_SEEDS, episode_seeds
from embodied.bench.reinforcement import Reinforcement
from embodied.cli.config import positive
from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import cache_folder, hash_json
from embodied.core.protocols import ENVIRONMENT_STATE, STATE
from embodied.core.run_folder import versions
from embodied.envs.experts.behaviours import check_expert, expert_names
from embodied.envs.registry import NO_SIMULATOR, load_suite, suite_names
from embodied.envs.task_env import TaskEnv
from embodied.envs.visuals.draw import make_visuals
from embodied.policies.action_space import ActionSpace
from embodied.policies.assembly import assemble, head_options
from embodied.policies.augmented_views import read_views
from embodied.policies.frame_choice import FrameChoice, read_frame
from embodied.policies.rl.policy import agent_module
from embodied.training.checkpoints import checkpoint_steps

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
    installed = versions()
    options = env_options(config)
    identity = {
        "env": options,
        "collect": collect_options(config),
        "episodes": episodes,
        "versions": {name: installed[name] for name in ("mujoco", load_suite(options["suite"]).distribution)},
    }
    return resolve_cache(config) / "stores" / f"{options['task']}-{episodes}-{hash_json(identity)[:12]}"


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


def action_space_of(env: Mapping[str, Any]) -> ActionSpace:
    """Of an environment with these options."""
    spec = probe_env(env).spec_of_task
    return ActionSpace(
        low=tuple(spec.action_low.tolist()),
        high=tuple(spec.action_high.tolist()),
        names=tuple(spec.action),
        gripper=tuple(spec.gripper),
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
    if not isinstance(config.evaluate.selection_episodes, int) or config.evaluate.selection_episodes < 0:
        raise UsageError(f"evaluate.selection_episodes must be 0 or more, got {config.evaluate.selection_episodes!r}")
    if config.train.learning_rate <= 0 or config.train.weight_decay < 0:
        raise UsageError(
            f"train.learning_rate must be positive and train.weight_decay not negative, got "
            f"{config.train.learning_rate} and {config.train.weight_decay}"
        )
    episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes))  # refuses what would reach into other seeds
    rate = config.policy.encoder_learning_rate
    if rate is not None and (isinstance(rate, bool | str) or not rate > 0):
        raise UsageError(f"policy.encoder_learning_rate must be a positive number, got {rate!r}")


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


def reported_options(config: DictConfig, env: Mapping[str, Any]) -> dict[str, Any]:
    """What the reported episodes of `embodied train` have of their own: a visual shift, options of the environment."""
    return {**reported_shift(config), **trial_options(config.evaluate.env, env, setting="evaluate.env")}


def reported_shift(config: DictConfig) -> dict[str, Any]:
    """The visual shift of the reported episodes; UsageError, before anything is trained, if there is none such."""
    shift, strength = config.evaluate.shift, config.evaluate.shift_strength
    make_visuals(visuals="static", shift=shift, strength=strength)
    return {"shift": shift, "shift_strength": strength}


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


def make_reinforcement(config: DictConfig) -> Reinforcement:
    """The experiment that `embodied train policy=<agent>` runs."""
    names = ("steps", "num_envs", "checkpoint_every")
    positive(config, "episodes", *(f"reinforce.{name}" for name in names))
    numbers: dict[str, Any] = {name: int(config.reinforce[name]) for name in names}
    if not isinstance(config.evaluate.selection_episodes, int) or config.evaluate.selection_episodes < 0:
        raise UsageError(f"evaluate.selection_episodes must be 0 or more, got {config.evaluate.selection_episodes!r}")
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
