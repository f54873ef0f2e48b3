"""From `embodied train data=<episode store>` to an experiment: which episodes, what they hold, whether it all fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied.bench.experiment import Experiment
from embodied.bench.imitation_data import read_episodes
from embodied.bench.recorded import Recorded
from embodied.bench.reinforcement import AGENTS
from embodied.cli.cloning_settings import check_cloning, check_no_frame, chosen_frame, cloning_arguments
from embodied.cli.config import positive
from embodied.cli.planning_settings import PLANNER
from embodied.cli.recorded_fits import check_fits_environment, recorded_cameras, spec_names
from embodied.cli.recorded_frames import recorded_frame
from embodied.cli.settings import (
    action_space_of,
    env_options,
    reported_options,
)
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, ENVIRONMENT_STATE, STATE, image_key
from embodied.core.run_folder import RunFolder
from embodied.datasets.formats import recognize
from embodied.datasets.loading.demonstrations import require_finite
from embodied.datasets.loading.holdout import split_episodes
from embodied.datasets.storage.s3 import SCHEME as S3_SCHEME
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.modality import VECTORS
from embodied.envs.registry import NO_SIMULATOR
from embodied.policies.action_space import ActionSpace
from embodied.policies.frame_choice import frame_words

HOLDOUT = 0.1
MARGIN = 0.1  # of its range in the demonstrations, by which an action may leave it: they seldom reach an axis's end
_TWO_TURNS = 4 * math.pi
SIMULATED = ("task", "episodes", "evaluate", "reinforce")  # settings that mean nothing without a simulator


def resolved(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration with `demos` and `holdout` as they will be used with `data`.

    Args:
        given: names of the settings that the command has.

    Raises:
        UsageError: settings contradict each other.
        UserError: there is no episode store.
    """
    if not isinstance(config.data, str):
        raise UsageError(f"data must be an episode store, or a list of several robots' stores, got {config.data!r}")
    if config.mixing is not None:
        raise UsageError(f"mixing={config.mixing} is for several robots, data='[a,b]': leave it out")
    target, alone = str(config.policy._target_), config.env.suite == NO_SIMULATOR
    if target.startswith(AGENTS) or target == PLANNER:
        raise UsageError("data: policies of behaviour cloning learn from recordings; use policy=bc, or leave data out")
    for name in given:
        if name.split(".")[0] == "collect":
            raise UsageError(f"{name}: with data= nothing is collected; leave one of the two out")
        if alone and name.split(".")[0] in SIMULATED:
            raise UsageError(f"{name}: env=none has no simulator to run episodes in; leave it out")
    if config.holdout is not None and not alone:
        raise UsageError("holdout is for env=none: in a simulator, the policy is judged on fresh episodes")
    store = open_recorded(config.data)
    count = len(store)
    demos = config.demos if "demos" in given and config.demos is not None else count
    positive(OmegaConf.create({"demos": demos}), "demos")
    if demos > count:
        raise UsageError(f"demos={demos}: {config.data} holds {count} episode{'s' * (count != 1)}")
    chosen = {"demos": demos, "holdout": HOLDOUT if alone and config.holdout is None else config.holdout}
    merged = OmegaConf.merge(config, chosen)
    assert isinstance(merged, DictConfig), type(merged)
    return merged


def open_recorded(data: str) -> EpisodeStore:
    """The episode store at `data`.

    Raises:
        UserError: there is none; if something else is there, the message says what, and what makes a store of it.
    """
    place = data if data.startswith(S3_SCHEME) else str(Path(data).expanduser())
    try:
        store = EpisodeStore.open(place)
    except UserError as error:
        try:
            kind = recognize(place)
        except UsageError as unclear:  # something is there
            if is_store(place):
                raise error from None
            raise UserError(
                f"data={data} is not an episode store: {unclear}\nembodied data import {data} to=<store> "
                "format=<format> makes one of it; what has none of these formats is written with EpisodeStore.create "
                '("From your own arrays" in docs/data.md)'
            ) from error
        except UserError:
            raise error from None
        if kind == "images":
            raise UserError(
                f"data={data} is a folder of images: a policy learns from episodes with actions, which images have not "
                "(embodied pretrain learns from images)"
            ) from error
        raise UserError(
            f"data={data} is a dataset of the format {kind}, not an episode store: import it with "
            f"embodied data import {data} to=<store>, then write data=<store>"
        ) from error
    if not len(store):
        raise UserError(f"{data} holds no episodes: record or import some first")
    if ACTION not in store.keys:
        raise UserError(f"{data} holds no {ACTION!r}, only {', '.join(store.keys)}: import it with map= that names it")
    for key in (ACTION, STATE):
        if key in store.keys and (len(store.keys[key].shape) != 1 or store.keys[key].dtype != "float32"):
            raise UserError(f"{data}: {key} must be float32 [T, values], got {store.keys[key].describe()}")
    return store


def make_recorded(config: DictConfig) -> Experiment:
    """The experiment of a `resolved` configuration.

    Raises:
        UsageError: settings, store and environment do not fit each other.
        UserError: the store is damaged, or holds numbers that are none.
    """
    check_cloning(config)
    store, encoder = open_recorded(config.data), str(config.encoder)
    check_vectors(store, encoder)
    used = list(range(int(config.demos)))
    action = finite(store, used)
    env: dict[str, Any]
    frame = None
    if config.env.suite == NO_SIMULATOR:
        trained, held_out = split(used, config)
        env = recorded_env(store, config)
        learned = action[np.isin(np.repeat(used, store.lengths[: len(used)]), trained)]
        space, shift = demonstrated_space(store, learned), {}
        frame = recorded_frame(chosen_frame(config), store, used, action)
        space = without_ends(space, (frame or {}).get("turning", ()))
    else:
        trained, held_out = used, []
        env = env_options(config)
        check_no_frame(config, env)
        check_fits_environment(store, action, env, looks=encoder not in VECTORS)
        space, shift = action_space_of(env), reported_options(config, env)
    arguments = cloning_arguments(config)
    if frame is not None:
        arguments["policy"] = {**arguments["policy"], "action_frame": frame}
    experiment = Experiment(
        store=Path(config.data).expanduser(),
        env=env,
        action_space=space,
        demos=len(trained),
        shift=shift,
        recorded=Recorded(location=str(store.path), trained=tuple(trained), held_out=tuple(held_out)),
        **arguments,
    )
    if experiment.followed is not None:
        check_instructions(store, used)
    return experiment


def check_vectors(store: EpisodeStore, encoder: str) -> None:
    """An encoder of vectors has its vector. Raises UsageError."""
    if encoder in VECTORS and VECTORS[encoder] not in store.keys:
        what = "the simulator's state" if VECTORS[encoder] == ENVIRONMENT_STATE else "proprioception"
        raise UsageError(
            f"encoder={encoder} reads {what}, {VECTORS[encoder]}, which {store.path} does not hold: choose another "
            "encoder (embodied list encoders)"
        )


def finite(store: EpisodeStore, episodes: list[int]) -> np.ndarray:
    """Actions of the episodes, [F, A]; they and the states are numbers. Raises UserError."""
    lengths = [store.lengths[number] for number in episodes]
    action = read_episodes(store, ACTION, episodes)
    require_finite(ACTION, action, lengths, episodes)
    if STATE in store.keys:
        require_finite(STATE, read_episodes(store, STATE, episodes), lengths, episodes)
    return action


def split(episodes: list[int], config: DictConfig) -> tuple[list[int], list[int]]:
    """The episodes that are trained on, and those that are held out. Raises UsageError."""
    share = config.holdout
    if isinstance(share, bool | str) or not 0 < share < 1:
        raise UsageError(f"holdout must be in (0, 1), got {share!r}")
    if len(episodes) < 2:
        raise UsageError(
            "env=none holds whole episodes out to judge the policy on, and there is only one: record another one, or "
            "raise demos"
        )
    ((trained, held_out),) = split_episodes([np.asarray(episodes)], float(share), seed=int(config.seed))
    return trained.tolist(), held_out.tolist()


def recorded_env(store: EpisodeStore, config: DictConfig) -> dict[str, Any]:
    """What stands in a policy file in place of an environment's options: what a robot must be like."""
    cameras = recorded_cameras(store, config.camera) if str(config.encoder) not in VECTORS else []
    shapes = [store.keys[image_key(camera)].shape for camera in cameras]
    size = config.env.image_size
    if size is None:
        size = min((side for shape in shapes for side in shape[:2]), default=1)
    positive(OmegaConf.create({"env": {"image_size": size}}), "env.image_size")
    return {
        "suite": NO_SIMULATOR,
        "task": Path(str(store.path)).name.removesuffix(".zip"),
        "camera": cameras[0] if len(cameras) == 1 else cameras,
        "image_size": size,
        "fps": store.fps,
        "robot": store.robot,
        "state": list(spec_names(store, STATE)),
        "instructions": list(dict.fromkeys(info.task for info in store.episodes if info.task.strip())),
    }


def demonstrated_space(store: EpisodeStore, action: np.ndarray) -> ActionSpace:
    """What the demonstrations did, and a little more: nothing else is known of what a robot takes."""
    low, high = action.min(axis=0).astype(np.float64), action.max(axis=0).astype(np.float64)
    margin = MARGIN * (high - low)
    return ActionSpace(
        low=tuple((low - margin).tolist()), high=tuple((high + margin).tolist()), names=spec_names(store, ACTION)
    )


def without_ends(space: ActionSpace, turning: Sequence[int]) -> ActionSpace:
    """The same with room for every target of joints that turn without an end: two turns beside a state in [-pi, pi]."""
    low, high = list(space.low), list(space.high)
    for index in turning:
        low[index], high[index] = -_TWO_TURNS, _TWO_TURNS
    return replace(space, low=tuple(low), high=tuple(high))


def check_instructions(store: EpisodeStore, episodes: list[int]) -> None:
    """All episodes say what is done in them. Raises UserError."""
    if missing := [number for number in episodes if not store.episodes[number].task.strip()]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{store.path}: episode {missing[0]}{more} has no instruction, which policy.instruction learns from: "
            "import it with a task, leave such episodes out (embodied data filter), or train without"
        )


def data_record(experiment: Experiment) -> dict[str, Any]:
    """What was learned from, JSON-able: the result of the phase `data`."""
    assert experiment.recorded is not None
    store = experiment.episode_store
    return {
        "store": experiment.recorded.location,
        "fingerprint": store.fingerprint(),
        "robot": store.robot,
        "fps": store.fps,
        "frames": store.num_frames,
        "trained": list(experiment.recorded.trained),
        "held_out": list(experiment.recorded.held_out),
    }


def check_same_data(run: RunFolder, experiment: Experiment) -> None:
    """A run that goes on finds the store that it began with. Raises UserError."""
    require_same(run.result("data"), experiment, run)


def require_same(before: Mapping[str, Any] | None, experiment: Experiment, run: RunFolder) -> None:
    """A store is the one of the record that `data_record` made, if there is one. Raises UserError."""
    if before is not None and before["fingerprint"] != experiment.episode_store.fingerprint():
        raise UserError(
            f"{before['store']} has changed since {run.path} began to learn from it: start a new run (without resume)"
        )


def notes(experiment: Experiment) -> list[str]:
    """What a person should know of the data before it is trained on."""
    assert experiment.recorded is not None
    store = experiment.episode_store
    said = []
    if experiment.open_loop:
        held = ", ".join(map(str, experiment.recorded.held_out))
        said.append(f"{experiment.demos} episodes to learn from; held out: {held}")
    if (frame := experiment.policy.get("action_frame")) is not None:
        said.append(f"actions: {frame_words(frame, store.keys[ACTION].names)}")
    if STATE not in store.keys:
        said.append(f"{store.path} holds no {STATE}: the policy sees nothing of the robot's own pose")
    if not store.keys[ACTION].names:
        said.append(f"{store.path} does not name its actions: a robot can be compared with them by number only")
    return said
