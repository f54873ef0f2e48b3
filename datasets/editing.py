"""New stores from old ones: several as one, one as several, or a part of one.

Episodes are copied one after the other in blocks; the same command goes on after an interruption. What a new store is
made from (the names and fingerprints of its parents, with their own provenance) stands in `provenance["edit"]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import Reporter
from embodied.core.seeding import numpy_generator
from embodied.datasets.episode_source import BLOCK_BYTES
from embodied.datasets.resumable_store import resumable_store
from embodied.datasets.store.episode_index import JPEG, EpisodeInfo, KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.ticking import ticking

PROVENANCE = "edit"


def merge(stores: Sequence[EpisodeStore], path: str | Path, *, reporter: Reporter) -> None:
    """All episodes of several stores in a new one, in their order.

    Keys must agree in name, dtype, shape and the names of elements, and the stores in frames per second; images stay
    lossless if they are so in any of them.

    Raises:
        UsageError: the stores do not fit together; says where.
    """
    if len(stores) < 2:
        raise UsageError(f"merge takes two stores or more, got {len(stores)}")
    locations = [str(store.path) for store in stores]
    for location in locations:
        if locations.count(location) > 1:
            raise UsageError(f"{location} is given twice: its episodes would be in the new store twice")
    selection = [(store, info) for store in stores for info in store.episodes]
    robots = list(dict.fromkeys(store.robot for store in stores if store.robot))
    made = _provenance({"verb": "merge"}, stores, len(selection))
    _write(selection, path, _common_keys(stores), robot=", ".join(robots), made=made, reporter=reporter)


def select(
    store: EpisodeStore,
    *,
    success: bool | None = None,
    task: str | None = None,
    episodes: Sequence[int] | None = None,
    min_length: int = 1,
    max_length: int | None = None,
) -> list[int]:
    """The numbers of the episodes that meet every condition, in order.

    Args:
        store: to choose from.
        success: only episodes of which this is known.
        task: a shell pattern, `*drawer*`; upper and lower case are the same.
        episodes: numbers.
        min_length, max_length: frames, both included.

    Raises:
        UserError: none does.
    """
    chosen = None if episodes is None else set(episodes)
    found = [
        info.index
        for info in store.episodes
        if (success is None or info.success is success)
        and (task is None or fnmatchcase(info.task.lower(), task.lower()))
        and (chosen is None or info.index in chosen)
        and min_length <= info.length <= (max_length or info.length)
    ]
    if not found:
        tasks = sorted({info.task for info in store.episodes})
        raise UserError(f"no episode of {store.path} is left; its tasks are {', '.join(map(repr, tasks[:6]))}")
    return found


def copy_part(
    store: EpisodeStore,
    path: str | Path,
    *,
    episodes: Sequence[int],
    keys: Sequence[str] | None = None,
    settings: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Some episodes and keys of a store in a new one.

    Args:
        store: to copy from.
        path: of the new store.
        episodes: numbers, in the order wanted.
        keys: names or shell patterns of keys; all by default.
        settings: JSON-able; what the part is, for the provenance.
        reporter: shows progress.
    """
    infos = store.episodes
    selection = [(store, infos[number]) for number in episodes]
    made = _provenance(settings, [store], len(selection))
    _write(selection, path, chosen_keys(store, keys), robot=store.robot, made=made, reporter=reporter)


def split_episodes(store: EpisodeStore, fractions: Mapping[str, float], *, seed: int) -> dict[str, list[int]]:
    """The episodes of a store divided at random into disjoint parts, each in the store's order.

    Args:
        store: to divide.
        fractions: per part, above 0; their sum may stay below 1, and the rest is left out then.
        seed: of the draw.

    Raises:
        UsageError: fractions that make no sense, or a part that would get no episode.
    """
    if not fractions or any(not fraction > 0 for fraction in fractions.values()) or sum(fractions.values()) > 1 + 1e-9:
        raise UsageError(f"fractions must be above 0 and add up to at most 1, got {dict(fractions)}")
    order = numpy_generator(seed, "split").permutation(len(store))
    bounds = np.rint(np.cumsum([0.0, *fractions.values()]) * len(store)).astype(int)
    parts = {
        name: sorted(int(number) for number in order[start:stop])
        for name, start, stop in zip(fractions, bounds[:-1], bounds[1:], strict=True)
    }
    for name, numbers in parts.items():
        if not numbers:
            raise UsageError(f"{name} gets none of the {len(store)} episodes: choose a larger fraction, or episodes=")
    return parts


def chosen_keys(store: EpisodeStore, wanted: Sequence[str] | None) -> dict[str, KeySpec]:
    """The keys of a store that names or shell patterns choose, in the store's order."""
    if wanted is None:
        return dict(store.keys)
    for pattern in wanted:
        if not any(fnmatchcase(key, pattern) for key in store.keys):
            raise unknown_name("key", pattern, store.keys)
    return {key: spec for key, spec in store.keys.items() if any(fnmatchcase(key, pattern) for pattern in wanted)}


def _common_keys(stores: Sequence[EpisodeStore]) -> dict[str, KeySpec]:
    first = stores[0]
    keys = dict(first.keys)
    for other in stores[1:]:
        if other.fps != first.fps:
            raise UsageError(
                f"{first.path} has {first.fps:g} frames/s and {other.path} {other.fps:g}: one store has one"
            )
        different = sorted(keys.keys() ^ other.keys.keys())
        if different:
            owner = first if different[0] in keys else other
            raise UsageError(
                f"only {owner.path} has {', '.join(different)}: bring the stores to the same keys first, "
                "embodied data filter STORE to=... keys='[...]'"
            )
        for key, spec in other.keys.items():
            keys[key] = _common_spec(key, keys[key], spec, f"{first.path} and {other.path}")
    return keys


def _common_spec(key: str, one: KeySpec, two: KeySpec, where: str) -> KeySpec:
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        raise UsageError(f"{where} differ in {key}: {one.describe()} and {two.describe()}")
    if one.names and two.names and one.names != two.names:
        raise UsageError(f"{where} differ in the names of {key}: {', '.join(one.names)} and {', '.join(two.names)}")
    return replace(one, names=one.names or two.names, codec=one.codec if one.codec == two.codec else "zstd")


def _provenance(settings: Mapping[str, Any], parents: Sequence[EpisodeStore], episodes: int) -> dict[str, Any]:
    described = [
        {"name": Path(store.path).name, "fingerprint": store.fingerprint(), "provenance": dict(store.provenance)}
        for store in parents
    ]
    return {**settings, "parents": described, "episodes": episodes}


def _write(
    selection: Sequence[tuple[EpisodeStore, EpisodeInfo]],
    path: str | Path,
    keys: Mapping[str, KeySpec],
    *,
    robot: str,
    made: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Copy the episodes that the store at `path` has not yet; it may be one in which this was interrupted."""
    if not selection:
        raise UserError(f"there are no episodes to write to {path}")
    total = sum(info.length for _, info in selection)
    provenance, fps = {PROVENANCE: made}, selection[0][0].fps
    with (
        resumable_store(path, keys=keys, fps=fps, robot=robot, provenance=provenance, part=PROVENANCE) as target,
        ticking(reporter, total=total, description="frames", done=target.num_frames) as advance,
    ):
        for store, info in selection[len(target) :]:
            _copy(store, info, target)
            advance(info.length)


def _copy(store: EpisodeStore, info: EpisodeInfo, target: EpisodeStore) -> None:
    frame = max(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in target.keys.values())
    block = max(1, BLOCK_BYTES // frame)
    # JPEG files are copied as they are: compressing the pixels again would lose a little more each time.
    lossy = [key for key, spec in target.keys.items() if spec.codec == JPEG == store.keys[key].codec]
    with target.writer(
        task=info.task, seed=info.seed, success=info.success, origin=info.origin, notes=info.notes
    ) as writer:
        for start in range(info.start, info.start + info.length, block):
            stop = min(start + block, info.start + info.length)
            frames = {key: store.read(key, start, stop) for key in target.keys}
            writer.write(frames, encoded={key: store.read_encoded(key, start, stop) for key in lossy})
