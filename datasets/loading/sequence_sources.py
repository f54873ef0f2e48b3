"""From episode stores to windows of image latents, proprioception and actions: what they must agree on, and do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, STATE, Reporter, image_key
from embodied.datasets.loading.feature_cache import FeatureCache, encode_store
from embodied.datasets.loading.materialized import Materialized, materialize, materialize_index
from embodied.datasets.loading.mixture_manifest import SUFFIXES
from embodied.datasets.loading.sequences import SequenceDataset, SequenceSource
from embodied.datasets.loading.source_kinds import source_kind
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore

VECTORS = (STATE, ACTION)


@dataclass(frozen=True, kw_only=True)
class Latents:
    """How the frames of a store become vectors.

    Attributes:
        encoder: a frozen image encoder.
        fingerprint: of it.
        output: which of its outputs is a frame's latent.
    """

    encoder: nn.Module
    fingerprint: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Where decoded and encoded data lie.

    Attributes:
        root: holds `features` and `materialized`.
        max_bytes: of either; None: no limit.
        device: where frames are encoded.
        reporter: shows progress.
    """

    root: Path
    max_bytes: int | None
    device: torch.device
    reporter: Reporter


def open_sequences(
    paths: Sequence[str | Path],
    *,
    latents: Latents,
    caches: Caches,
    context: int,
    cameras: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    mixed_robots: bool = False,
    weights: Sequence[float] | None = None,
) -> SequenceDataset:
    """Windows over every frame of episode stores; their frames are encoded once, into the feature cache.

    Args:
        paths: of stores, which need not have the same keys.
        latents: of the cameras.
        caches: where what is decoded and encoded lies.
        context: T.
        cameras: which; None: all that any store has.
        leave_out: `observation.state` or `action`, where stores have it but it shall not be read.
        mixed_robots: stores of several robots are declared to have states and actions of one meaning.
        weights: see `SequenceDataset`.

    Raises:
        UsageError: a store lacks all that is read, states or actions do not go together, or every episode of a store
            is shorter than a window.
        UserError: a store is missing, empty or damaged. (Not-a-number values are refused when a store is written.)
    """
    if unknown := [name for name in leave_out if name not in VECTORS]:
        raise unknown_name("modality to leave out", str(unknown[0]), VECTORS)
    stores = {str(path): open_store(path) for path in paths}
    if len(stores) < len(paths):
        raise UsageError(f"data: a store is named twice in {', '.join(map(str, paths))}")
    keys = chosen_keys(stores, cameras, leave_out)
    require_agreement(stores, keys, mixed_robots=mixed_robots)
    _note_rates(stores, caches.reporter.note)
    for path, store in stores.items():
        _require_length(path, store, context, caches.reporter.note)
    sources = [_source(path, store, keys[path], latents, caches, context) for path, store in stores.items()]
    sizes: dict[str, int] = {}
    names = dict.fromkeys(name for found in keys.values() for name in found)
    for name in sorted(names, key=lambda name: (name == ACTION, name == STATE)):  # cameras, proprioception, action
        row = next(source.rows[name] for source in sources if name in source.windows.windows)
        sizes[name] = int(row.shape[-1])
    return SequenceDataset(sources, sizes=sizes, context=context, weights=weights)


def chosen_keys(
    stores: Mapping[str, EpisodeStore], cameras: Sequence[str] | None, leave_out: Sequence[str]
) -> dict[str, list[str]]:
    """What is read of each store: cameras, proprioception and actions, as far as it has them.

    Raises:
        UsageError: no store has a camera of that name, or a store has nothing that is read.
    """
    there = dict.fromkeys(key for store in stores.values() for key in store.image_keys)
    wanted = list(there) if cameras is None else [image_key(camera) for camera in cameras]
    for key in wanted:
        if key not in there:
            short = image_key("")
            raise unknown_name("camera", key.removeprefix(short), [name.removeprefix(short) for name in there])
    found = {}
    for path, store in stores.items():
        keys = [key for key in (*wanted, *VECTORS) if key in store.keys and key not in leave_out]
        if not keys:
            raise UsageError(f"{path} has nothing to learn from: it holds {', '.join(store.keys)}")
        found[path] = keys
    if not any(key in there for keys in found.values() for key in keys):
        raise UsageError("no store has frames: a window is of image latents, proprioception and actions")
    return found


def open_store(path: str | Path) -> EpisodeStore:
    """A store with episodes.

    Raises:
        UserError: there is none, it has none, or it is something else that data may be.
    """
    place = Path(path)
    if place.suffix in SUFFIXES and place.is_file():
        raise UserError(
            f"{path} is no episode store: only objective=hpt reads manifests, name the stores, data='[a,b]'"
        )
    if place.exists() and not is_store(place) and source_kind(place) == "videos":
        raise UserError(f"{path} holds videos: make an episode store of them, embodied data import {path} to=<store>")
    store = EpisodeStore.open(path)
    if not len(store):
        raise UserError(f"{path} holds no episodes: collect or import some before training on it")
    return store


def require_agreement(
    stores: Mapping[str, EpisodeStore],
    keys: Mapping[str, Sequence[str]],
    *,
    mixed_robots: bool,
    settings: str = "sequence",
) -> None:
    """A state or an action must mean the same everywhere: as many values, of one robot.

    Args:
        stores: by path.
        keys: that are read of each.
        mixed_robots: several robots' values are declared to mean the same.
        settings: the part of the configuration that messages point to.

    Raises:
        UsageError: they do not.
    """
    for name in VECTORS:
        having = [path for path in stores if name in keys[path]]
        shapes = {path: stores[path].keys[name].shape for path in having}
        if flat := [path for path in having if len(shapes[path]) != 1]:
            raise UsageError(f"{name} of {flat[0]} has frames of shape {shapes[flat[0]]}: expected a vector")
        if len(set(shapes.values())) > 1:
            counts = ", ".join(f"{shape[0]} in {path}" for path, shape in shapes.items())
            raise UsageError(
                f"{name} has different numbers of values ({counts}): take stores of one robot, or leave it out with "
                f"{settings}.leave_out='[{name}]'"
            )
        meanings = {path: meaning_of(stores[path], name) for path in having}
        if len(set(meanings.values())) > 1 and not mixed_robots:
            told = ", ".join(f"{meaning} in {path}" for path, meaning in meanings.items())
            raise UsageError(
                f"{name} is of different robots ({told}): if the values mean the same (units, frames, order), say so "
                f"with {settings}.mixed_robots=true, else leave it out with {settings}.leave_out='[{name}]'"
            )


def meaning_of(store: EpisodeStore, name: str) -> str:
    """What a store says of a vector: whose it is, and the names of its values."""
    names = ", ".join(store.keys[name].names)
    return (store.robot or "unnamed") + (f": {names}" if names else "")


def _note_rates(stores: Mapping[str, EpisodeStore], note: Callable[[str], None]) -> None:
    """A step of a window is a frame, however long that lasts."""
    if len({store.fps for store in stores.values()}) > 1:
        rates = ", ".join(f"{store.fps:g}/s in {path}" for path, store in stores.items())
        note(f"frames come at different rates ({rates}): a step of a window lasts longer in some")


def _require_length(path: str, store: EpisodeStore, context: int, note: Callable[[str], None]) -> None:
    longest = max(store.lengths)
    if longest < context:
        raise UsageError(
            f"a window of {context} steps is longer than every episode of {path}, the longest has {longest}: "
            f"set sequence.context to at most {longest}"
        )
    short = sum(length < context for length in store.lengths)
    if short:
        note(f"{path}: {short} of {len(store)} episodes are shorter than a window; what they lack is masked")


def _source(
    path: str, store: EpisodeStore, keys: Sequence[str], latents: Latents, caches: Caches, context: int
) -> SequenceSource:
    vectors = [key for key in keys if key in VECTORS]
    root = caches.root / "materialized"
    data: Materialized
    if vectors:
        data = materialize(store, keys=vectors, cache_root=root, max_bytes=caches.max_bytes, reporter=caches.reporter)
    else:
        data = materialize_index(store, cache_root=root)
    held = []
    for key in keys:
        if key not in VECTORS:
            held.append(encode_camera(store, key, latents, caches))
            data = data.with_rows(key, held[-1].rows(latents.output))
    windows = WindowDataset(data, windows=dict.fromkeys(keys, range(1 - context, 1)))
    return SequenceSource(path, windows, store.fingerprint(), tuple(held))


def encode_camera(store: EpisodeStore, key: str, latents: Latents, caches: Caches) -> FeatureCache:
    """The latents of a camera's frames, from the feature cache or into it."""
    return encode_store(
        store,
        latents.encoder,
        image_key=key,
        outputs=[latents.output],
        cache_root=caches.root / "features",
        encoder_fingerprint=latents.fingerprint,
        device=caches.device,
        reporter=caches.reporter,
        dtype="float32",  # as behaviour cloning caches them: what is encoded here is not encoded again there
        max_bytes=caches.max_bytes,
    )
