"""robomimic's HDF5: one file that its `SequenceDataset` and scripts read.

| in the store | in the file |
| --- | --- |
| action | actions |
| observation.images.<camera> | obs/<camera>_image, uint8 [T, H, W, 3] |
| observation.depth.<camera>, observation.raw.<camera> | obs/<camera>_depth, obs/<camera>_raw, [H, W] as [H, W, 1] |
| observation.<name>, obs.<name> | obs/<name> |
| next.reward | rewards; else next.success as 0 and 1; else 1 in the last step of an episode that succeeded |
| next.done | dones; else 1 in the last step |
| any other | its own name, where robomimic's loader does not look |

`next_obs` is `obs` one step later; the last step, after which a store has no observation, repeats its own. The task is
kept as `lang` in `ep_meta`, as RoboCasa does. A store has no simulator states, so `states` is empty, as robomimic's
documentation asks for, unless the store has a key of that name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.core.files import atomic_path
from embodied.core.protocols import ACTION, DONE, IMAGE_PREFIX, REWARD, SUCCESS, Reporter
from embodied.datasets.episode_source import Format
from embodied.datasets.files.hdf5_files import import_h5py
from embodied.datasets.files.hdf5_writing import create_hdf5
from embodied.datasets.importers.foreign_keys import frames_per_block
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.store.episode_index import EpisodeInfo, KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

FORMAT = Format("robomimic", "robomimic's HDF5, read by its SequenceDataset")

_CAMERAS = {IMAGE_PREFIX: "_image", "observation.depth.": "_depth", "observation.raw.": "_raw"}
_RESERVED = frozenset({"actions", "rewards", "dones", "obs", "next_obs"})
_GYM_TYPE = 2  # of robomimic's EnvType


def export(
    store: EpisodeStore,
    path: Path,
    *,
    reporter: Reporter,
    env_args: Mapping[str, Any] | None = None,
    filter_keys: Mapping[str, Sequence[int]] | None = None,
    next_obs: bool = True,
    any_actions: bool = False,
    compression: str | None = None,
) -> None:
    """Write a store as `path`, whole or not at all.

    Args:
        store: opened; needs the key `action`.
        path: of the file; must not exist.
        reporter: shows progress and what is made up or repeated.
        env_args: of robomimic, for its rollouts: `{"env_name": ..., "type": ..., "env_kwargs": {...}}`; by default
            those of the robomimic file that the store was imported from, else a Gym environment of the first task's
            name.
        filter_keys: named lists of episodes, such as `{"train": [0, 1], "valid": [2]}`; by default those the episodes
            had when they were imported from robomimic.
        next_obs: whether to write them; without, the file is half as large and takes `hdf5_load_next_obs=False`.
        any_actions: write actions beyond [-1, 1] too, which robomimic's networks can only reach with
            `actions.normalization` set; otherwise they are refused, as by its `get_dataset_info.py`.
        compression: `gzip` for everything in obs and next_obs, or None.

    Raises:
        UsageError: an option makes no sense, or the store does not fit the format.
        UserError: something is at `path`, the store is damaged, or the disk fails.
        MissingExtraError: h5py is not installed.
    """
    import_h5py()
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: choose another path, or delete it")
    if compression not in (None, "gzip"):
        raise UsageError(f"compression must be gzip or null, got {compression!r}")
    names = _names(store)
    _check_actions(store, any_actions=any_actions)
    masks, env = _masks(store, filter_keys), json.dumps(_env_args(store, env_args))
    _note(store, next_obs, reporter)
    create = partial(_create, compression=compression)
    with (
        disk_errors(path, "writing the robomimic file"),
        atomic_path(path) as temporary,
        create_hdf5(temporary) as (file, disk),
    ):
        data = file.create_group("data")
        data.attrs["total"] = store.num_frames
        data.attrs["env_args"] = env
        data.attrs["fps"] = store.fps
        episodes = store.episodes
        for info in reporter.track(episodes, total=len(episodes), description="export"):
            demo = data.create_group(f"demo_{info.index}")
            for key, name in names.items():
                _write_key(demo, store, info, key, name, next_obs=next_obs, create=create)
                disk.check()
            _write_ends(demo, store, info, names)
        for name, members in masks.items():
            file[f"mask/{name}"] = np.array([f"demo_{index}" for index in members], dtype="S")


def _names(store: EpisodeStore) -> dict[str, str]:
    """The path in a demonstration of each key of the store."""
    if not len(store):
        raise UsageError(f"{store.path} has no episodes to export")
    if ACTION not in store.keys or len(store.keys[ACTION].shape) != 1:
        raise UsageError(f"robomimic needs a vector under the key {ACTION}: {store.path} has {', '.join(store.keys)}")
    names: dict[str, str] = {}
    for key in store.keys:
        name = _name(key)
        if name in names.values() or (name in _RESERVED and key not in (ACTION, REWARD, DONE)):
            raise UsageError(f"the key {key} and another would both be {name} in the robomimic file: rename one")
        names[key] = name
    if not any(name.startswith("obs/") for name in names.values()):
        raise UsageError(f"robomimic needs observations: {store.path} has {', '.join(store.keys)}")
    return names


def _name(key: str) -> str:
    for prefix, suffix in _CAMERAS.items():
        if key.startswith(prefix):
            camera = key.removeprefix(prefix)
            return f"obs/{camera}" if camera.endswith(suffix) else f"obs/{camera}{suffix}"
    for prefix in ("observation.", "obs."):
        if key.startswith(prefix):
            return f"obs/{key.removeprefix(prefix)}"
    return {ACTION: "actions", REWARD: "rewards", DONE: "dones"}.get(key, key)


def _check_actions(store: EpisodeStore, *, any_actions: bool) -> None:
    statistics = store.statistics(ACTION)
    low, high = float(statistics["min"].min()), float(statistics["max"].max())
    if (low < -1 or high > 1) and not any_actions:
        raise UsageError(
            f"robomimic takes actions in [-1, 1], and those of {store.path} reach from {low:g} to {high:g}: scale "
            "them, or write them as they are (options.any_actions=true) and set robomimic's actions.normalization"
        )


def _masks(store: EpisodeStore, filter_keys: Mapping[str, Sequence[int]] | None) -> dict[str, list[int]]:
    masks: dict[str, list[int]] = {}
    if filter_keys is None:
        for info in store.episodes:
            for name in (info.notes or {}).get("filter_keys", ()):
                masks.setdefault(str(name), []).append(info.index)
        return masks
    if not isinstance(filter_keys, Mapping):
        raise UsageError(f"filter_keys must name lists of episodes, such as {{train: [0, 1]}}, got {filter_keys!r}")
    for name, members in filter_keys.items():
        wrong = [member for member in members if member not in range(len(store))]
        if wrong or not members or "/" in name:
            got = wrong[0] if wrong else list(members)
            raise UsageError(f"filter_keys: {name} must list episodes 0 to {len(store) - 1}, got {got}")
        masks[name] = list(members)
    return masks


def _env_args(store: EpisodeStore, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"env_args must be a mapping with env_name, type and env_kwargs, got {given!r}")
    source = store.provenance.get("source", store.provenance)
    found = given or (source.get("env_args") if isinstance(source, Mapping) else None)
    return dict(found or {"env_name": store.episodes[0].task, "type": _GYM_TYPE, "env_kwargs": {}})


def _note(store: EpisodeStore, next_obs: bool, reporter: Reporter) -> None:
    if REWARD not in store.keys:
        made_of = SUCCESS if SUCCESS in store.keys else "the success of whole episodes, at their last step"
        reporter.note(f"rewards: made of {made_of}, since the store has no {REWARD}")
    if next_obs:
        reporter.note("next_obs: the last step of each episode repeats its own observation")


def _create(group: Any, name: str, shape: tuple[int, ...], dtype: str, *, compression: str | None) -> Any:
    if compression and name.startswith(("obs/", "next_obs/")):
        return group.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), compression=compression)
    return group.create_dataset(name, shape, dtype)


def _write_key(
    demo: Any,
    store: EpisodeStore,
    info: EpisodeInfo,
    key: str,
    name: str,
    *,
    next_obs: bool,
    create: Callable[..., Any],
) -> None:
    spec = store.keys[key]
    shape = (info.length, *_shape(spec, name))
    following = next_obs and name.startswith("obs/")
    written = [create(demo, name, shape, spec.dtype)]
    written += [create(demo, f"next_{name}", shape, spec.dtype)] if following else []
    step = frames_per_block({key: spec})
    for start in range(0, info.length, step):
        stop = min(start + step, info.length)
        frames = store.read(key, info.start + start, info.start + stop).reshape(stop - start, *shape[1:])
        written[0][start:stop] = frames
        if following:
            first = max(start - 1, 0)
            written[1][first : stop - 1] = frames[first + 1 - start :]
            written[1][info.length - 1] = frames[-1]  # the last of all blocks stays


def _shape(spec: KeySpec, name: str) -> tuple[int, ...]:
    """Of a frame in the file: pictures of one channel say so."""
    plane = len(spec.shape) == 2 and name.endswith(("_depth", "_raw"))
    return (*spec.shape, 1) if plane else spec.shape


def _write_ends(demo: Any, store: EpisodeStore, info: EpisodeInfo, names: Mapping[str, str]) -> None:
    """Attributes; `rewards` and `dones`, where the store has none of its own, and `states`."""
    demo.attrs["num_samples"] = info.length
    demo.attrs["ep_meta"] = json.dumps({"lang": info.task})
    for name, value in (("seed", info.seed), ("success", info.success)):
        if value is not None:
            demo.attrs[name] = value
    ends = np.arange(info.length) == info.length - 1
    if REWARD not in names:
        succeeded = ends & bool(info.success)
        flags = store.read(SUCCESS, info.start, info.start + info.length) if SUCCESS in names else succeeded
        demo.create_dataset("rewards", data=flags.astype(np.float64))
    if DONE not in names:
        demo.create_dataset("dones", data=ends.astype(np.int64))
    if "states" not in names.values():
        demo.create_dataset("states", shape=(info.length, 0), dtype="f8")
