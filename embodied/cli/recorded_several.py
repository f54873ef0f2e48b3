"""From `embodied train data='[a,b]' env=none` to an experiment: one policy for several robots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from omegaconf import DictConfig, OmegaConf

from embodied.bench.experiment import Experiment
from embodied.bench.session import KeptSession
from embodied.bench.several_robots import SeveralRobots
from embodied.cli.recorded_fits import spec_names
from embodied.cli.recorded_settings import data_record, make_recorded, notes, open_recorded, require_same, resolved
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX
from embodied.core.run_folder import RunFolder
from embodied.datasets.loading.mixtures import Mixing
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.modality import VECTORS
from embodied.envs.registry import NO_SIMULATOR

_NAME = re.compile(r"[\w.-]+")
MIXINGS = tuple(name for name in get_args(Mixing) if name != "weights")  # a command has no factors


def make_several(config: DictConfig, given: Sequence[str]) -> tuple[DictConfig, SeveralRobots]:
    """The configuration with `demos` and `holdout` as they will be used, and its experiment.

    Args:
        given: names of the settings that the command has.

    Raises:
        UsageError: settings, stores and robots do not fit each other.
        UserError: a store is not there, is damaged, or holds numbers that are none.
    """
    if config.env.suite != NO_SIMULATOR:
        raise UsageError(
            "data: recordings of several robots are learned from without a simulator, which would be of one: write "
            "env=none, or one store"
        )
    if config.mixing is not None and config.mixing not in MIXINGS:
        raise unknown_name("mixing", str(config.mixing), MIXINGS)
    places = robot_stores(config.data)
    stores = {name: open_recorded(place) for name, place in places.items()}
    cameras, frames = robot_cameras(stores, config), robot_frames(stores, config)
    members, single = {}, config
    for name, place in places.items():
        own: dict[str, Any] = {"data": place, "camera": cameras[name], "mixing": None}
        if name in frames:
            own["policy"] = {**config.policy, "action_frame": frames[name]}
        try:
            single = resolved(_changed(config, own), given)
            members[name] = replace(make_recorded(single), embodiment=name)
        except UserError as error:
            raise (UsageError if isinstance(error, UsageError) else UserError)(f"robot {name}: {error}") from error
    experiment = SeveralRobots(members=_alike(members, config), mixing=cast(Mixing | None, config.mixing))
    experiment.build()  # refuses what does not go together
    told = {"holdout": single.holdout, "demos": config.demos if "demos" in given else None}
    return _changed(config, told), experiment


def robot_stores(data: Any) -> dict[str, str]:
    """The stores of `data` by the names of their robots: those given, or the last parts of the paths.

    Raises:
        UsageError: it is no such list, or two robots have one name.
    """
    stores = OmegaConf.to_container(data)
    known: list[Any] = list(stores.values()) if isinstance(stores, dict) else list(stores or ())
    if len(known) < 2 or not all(isinstance(store, str) for store in known):
        raise UsageError(
            "data must be one episode store, or of several robots a list, '[a,b]' or '{name: a, other: b}', got "
            f"{stores!r}"
        )
    given = stores if isinstance(stores, dict) else [Path(store).name.removesuffix(".zip") for store in known]
    pairs = list(zip(map(str, given), known, strict=True))
    names = [name for name, _ in pairs]
    hint = "name the robots yourself, data='{left: a/arm, right: b/arm}'"
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"data: two robots are called {name}: {hint}, or join stores of one robot with embodied data merge"
            )
        if not _NAME.fullmatch(name):
            raise UsageError(f"data: a robot's name has letters, digits, ., - and _, got {name!r}: {hint}")
    return dict(pairs)


def robot_frames(stores: Mapping[str, EpisodeStore], config: DictConfig) -> dict[str, Any]:
    """Groups of `policy.action_frame` by robot: of parts of names those that its actions have, or nobody's."""
    setting = OmegaConf.select(config, "policy.action_frame")
    if not OmegaConf.is_dict(setting):
        return {}
    names = {name: spec_names(store, ACTION) for name, store in stores.items()}

    def having(part: str) -> list[str]:
        whole = [name for name in names if part in names[name]]  # as in `match_actions`: then it is no part of another
        return whole or [name for name in names if any(part in axis for axis in names[name])]

    def kept(parts: Any, name: str) -> Any:
        if not OmegaConf.is_list(parts):
            return parts  # refused where it is read
        return [part for part in parts if name in (found := having(str(part))) or not found]

    return {name: {entry: kept(value, name) for entry, value in setting.items()} for name in stores}


def robot_cameras(stores: Mapping[str, EpisodeStore], config: DictConfig) -> dict[str, Any]:
    """What `camera` is for each robot.

    Features of several cameras are put side by side, so that what stands where must be the same for all.

    Raises:
        UsageError: robots look through different cameras, and it is not said which goes with which.
    """
    chosen = OmegaConf.to_container(config.camera) if OmegaConf.is_config(config.camera) else config.camera
    if isinstance(chosen, Mapping) and {str(name) for name in chosen} != set(stores):
        told = ", ".join(map(str, chosen))
        raise UsageError(f"camera: expected cameras of {', '.join(stores)}, got those of {told}")
    if str(config.encoder) in VECTORS or (chosen is not None and not isinstance(chosen, Mapping)):
        return dict.fromkeys(stores, chosen)
    seen = {name: _listed(chosen[name]) if chosen else _cameras(store) for name, store in stores.items()}
    first = next(iter(seen.values()))
    told = "; ".join(f"{name} has {', '.join(cameras) or 'none'}" for name, cameras in seen.items())
    if any(len(cameras) != len(first) for cameras in seen.values()):
        example = ", ".join(f"{name}: <camera>" for name in stores)
        raise UsageError(
            f"camera: the encoder looks through as many cameras of every robot, and {told}: choose with "
            f"camera='{{{example}}}'"
        )
    if chosen or len(first) < 2:
        return dict(seen)
    if any(set(cameras) != set(first) for cameras in seen.values()):
        example = ", ".join(f"{name}: [{', '.join(cameras)}]" for name, cameras in seen.items())
        raise UsageError(f"camera: {told}: say which go together, in order, with camera='{{{example}}}'")
    return dict.fromkeys(stores, first)


def _cameras(store: EpisodeStore) -> list[str]:
    return [key.removeprefix(IMAGE_PREFIX) for key in store.image_keys]


def _listed(cameras: Any) -> list[str]:
    return [str(camera) for camera in cameras] if isinstance(cameras, list) else [str(cameras)]


def _changed(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """A configuration with other values, of another kind as well: a list of stores becomes one."""
    container = OmegaConf.to_container(config)
    assert isinstance(container, dict), type(container)
    return OmegaConf.create({**container, **values})


def _alike(members: Mapping[str, Experiment], config: DictConfig) -> dict[str, Experiment]:
    """The members with one size of pictures, the smallest unless it is given, and one frozen encoder."""
    size, session = min(int(member.env["image_size"]) for member in members.values()), KeptSession()
    looks = str(config.encoder) not in VECTORS
    return {
        name: replace(member, session=session, env={**member.env, **({"image_size": size} if looks else {})})
        for name, member in members.items()
    }


def several_record(experiment: SeveralRobots) -> dict[str, Any]:
    """What was learned from, by robot; see `data_record`."""
    return {"robots": {name: data_record(member) for name, member in experiment.members.items()}}


def check_same_stores(run: RunFolder, experiment: SeveralRobots) -> None:
    """See `check_same_data`."""
    before = run.result("data")
    for name, member in experiment.members.items():
        require_same(before and before["robots"][name], member, run)


def several_notes(experiment: SeveralRobots) -> list[str]:
    """What a person should know of the data before it is trained on."""
    return [f"{name}: {note}" for name, member in experiment.members.items() for note in notes(member)]
