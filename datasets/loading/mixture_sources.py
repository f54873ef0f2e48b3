"""From the entries of a manifest to windows of many embodiments: what is opened, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE, image_key
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.mixture_manifest import DatasetEntry, checked_entries
from embodied.datasets.loading.mixtures import Embodiment, Mixing, MixtureDataset, MixtureSource
from embodied.datasets.loading.sequence_sources import Caches, Latents, encode_camera, meaning_of, open_store
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_store import EpisodeStore


@dataclass(frozen=True, kw_only=True)
class OpenedStore:
    """A store of a dataset, and its name of each of our keys."""

    path: str
    store: EpisodeStore
    dataset: int
    keys: Mapping[str, str]

    @property
    def cameras(self) -> list[str]:
        """Names of its views, as they are called here."""
        return [key.removeprefix(IMAGE_PREFIX) for key in self.keys if key.startswith(IMAGE_PREFIX)]

    def size(self, key: str) -> int:
        """The number of values of a vector, 0 where it has none."""
        return self.store.keys[self.keys[key]].shape[0] if key in self.keys else 0


def open_mixture(
    entries: Sequence[DatasetEntry],
    *,
    latents: Latents,
    caches: Caches,
    context: int,
    chunk: int,
    mixing: Mixing = "inverse_sqrt",
    temperature: float = 2.0,
    instructions: Mapping[str, np.ndarray] | None = None,
) -> MixtureDataset:
    """Windows over every frame of every dataset; frames are encoded once, into the feature cache.

    Args:
        entries: see `mixture_manifest`.
        latents: of the cameras.
        caches: where what is decoded and encoded lies.
        context: T, steps up to the present.
        chunk: H, actions from the present on.
        mixing, temperature: see `mixtures.mixing_weights`.
        instructions: the embedding of every task's words; None: they are not read.

    Raises:
        UsageError: a key or camera is missing, datasets of one embodiment do not fit each other, or every episode of a
            store is shorter than a window.
        UserError: a store is missing, empty or damaged, or a value is not a number.
    """
    entries = checked_entries(entries)
    opened = [
        _opened(path, entry, number) for number, entry in enumerate(entries) for path in dict.fromkeys(entry.paths)
    ]
    embodiments = {
        name: _embodiment(name, entries, opened) for name in dict.fromkeys(each.embodiment for each in entries)
    }
    for each in opened:
        _require_length(each, context)
    sources = [_source(each, latents, caches, context, chunk) for each in opened]
    shapes = {
        rows.spec.shape for source in sources for key, rows in source.rows.items() if key.startswith(IMAGE_PREFIX)
    }
    if not shapes:
        raise UsageError("no dataset has frames: a window is of image latents and proprioception")
    if len(shapes) > 1:
        told = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise UsageError(
            f"the image encoder gives latents of shapes {told}, by the size of the frames: use one that resizes, or "
            "sequence.latent=pooled"
        )
    return MixtureDataset(
        sources,
        names=[entry.name for entry in entries],
        owners=[entry.embodiment for entry in entries],
        embodiments=embodiments,
        frame_shape=shapes.pop(),
        context=context,
        chunk=chunk,
        mixing=mixing,
        temperature=temperature,
        factors=[entry.weight for entry in entries],
        instructions=instructions,
    )


def _opened(path: str, entry: DatasetEntry, number: int) -> OpenedStore:
    store = open_store(path)
    keys = {key: key for key in (*store.image_keys, STATE, ACTION) if key in store.keys}
    taken = set(entry.keys.values())
    keys = {ours: theirs for ours, theirs in keys.items() if theirs not in taken} | dict(entry.keys)
    for theirs in entry.keys.values():
        if theirs not in store.keys:
            raise unknown_name(f"key in {path}, named by keys of {entry.name}", theirs, store.keys)
    if entry.cameras is not None:
        there = [key.removeprefix(IMAGE_PREFIX) for key in keys if key.startswith(IMAGE_PREFIX)]
        for camera in entry.cameras:
            if camera not in there:
                raise unknown_name(f"camera of {entry.name}", camera, there)
        chosen = [image_key(camera) for camera in entry.cameras]
        keys = {key: keys[key] for key in (*chosen, STATE, ACTION) if key in keys}
    if ACTION not in keys:
        raise UsageError(
            f"{path} has no actions: HPT learns by predicting them alone, so a video teaches it nothing; name them "
            f"with keys, leave {entry.name} out, or pre-train on it with objective=rpt"
        )
    for key in (STATE, ACTION):
        if key in keys and len(store.keys[keys[key]].shape) != 1:
            raise UsageError(
                f"{keys[key]} of {path} has frames of shape {store.keys[keys[key]].shape}: expected a vector"
            )
    return OpenedStore(path=path, store=store, dataset=number, keys=keys)


def _embodiment(name: str, entries: Sequence[DatasetEntry], opened: Sequence[OpenedStore]) -> Embodiment:
    """What all stores of an embodiment have in common."""
    own = [each for each in opened if entries[each.dataset].embodiment == name]
    for key in (STATE, ACTION):
        sizes = {each.path: each.size(key) for each in own}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} in {path}" for path, size in sizes.items())
            raise UsageError(
                f"{key} of the embodiment {name} has different numbers of values ({told}): give the datasets different "
                "embodiments"
            )
        meanings = {each.path: meaning_of(each.store, each.keys[key]) for each in own if key in each.keys}
        if len(set(meanings.values())) > 1 and entries[own[0].dataset].action_meaning is None:
            told = ", ".join(f"{meaning} in {path}" for path, meaning in meanings.items())
            raise UsageError(
                f"{key} of the embodiment {name} is of different robots ({told}): give the datasets different "
                "embodiments, or say with the same action_meaning in each that they mean the same"
            )
    cameras = dict.fromkeys(camera for each in own for camera in each.cameras)
    if not cameras and not own[0].size(STATE):
        raise UsageError(f"the embodiment {name} has neither frames nor {STATE}: there is nothing to act on")
    return Embodiment(cameras=tuple(cameras), state_dim=own[0].size(STATE), action_dim=own[0].size(ACTION))


def _require_length(each: OpenedStore, context: int) -> None:
    """Shorter episodes than a window are all right where others are longer: what they lack is not there."""
    longest = max(each.store.lengths)
    if longest < context:
        raise UsageError(
            f"a window of {context} steps is longer than every episode of {each.path}, the longest has {longest}: "
            f"set sequence.context to at most {longest}"
        )


def _source(each: OpenedStore, latents: Latents, caches: Caches, context: int, chunk: int) -> MixtureSource:
    vectors = [key for key in (STATE, ACTION) if key in each.keys]
    data = materialize(
        each.store,
        keys=[each.keys[key] for key in vectors],
        cache_root=caches.root / "materialized",
        max_bytes=caches.max_bytes,
        reporter=caches.reporter,
    )
    held = []
    for key in vectors:
        data = data.with_rows(key, data.rows[each.keys[key]])
        _require_numbers(each, key, data.rows[key][:], data.starts)
    for camera in each.cameras:
        held.append(encode_camera(each.store, each.keys[image_key(camera)], latents, caches))
        data = data.with_rows(image_key(camera), held[-1].rows(latents.output))
    windows = {image_key(camera): range(1 - context, 1) for camera in each.cameras}
    windows |= {STATE: range(1 - context, 1)} if STATE in each.keys else {}
    made = WindowDataset(data, windows={**windows, ACTION: range(chunk)})
    return MixtureSource(each.path, made, each.store.fingerprint(), tuple(held), dataset=each.dataset)


def _require_numbers(each: OpenedStore, key: str, rows: np.ndarray, starts: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        episode = int(np.searchsorted(starts, bad[0], side="right")) - 1
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        step = bad[0] - starts[episode]
        raise UserError(
            f"{each.keys[key]} of {each.path} is not a number in episode {episode}, step {step}{more}: "
            "leave such episodes out (embodied data filter), or name another key"
        )
