"""The frames that an encoder is judged on: evenly spaced ones of episode stores and of folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import STATE, image_key
from embodied.datasets.files.image_files import list_images, read_square
from embodied.datasets.loading.frame_parts import NamedLabels, folder_labels
from embodied.datasets.storage.location import S3_SCHEME
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore

PHOTO_SIZE = 224  # of images from a folder, which come in any size


@dataclass(frozen=True, kw_only=True)
class Part:
    """Frames of one source.

    Args:
        name: of the store with its camera, or of the folder.
        frames: uint8 [F, H, W, 3], episode after episode.
        episodes: int64 [F]; a photograph is an episode of its own.
        labels: which frame of the source it is, for people.
        states: float64 [F, P], what probes read out; None where the source has none.
        classes: int64 [F], which folder a photograph lies in, or which task its episode is of; None where they are all
            of one, or a photograph lies in none.
    """

    name: str
    frames: np.ndarray
    episodes: np.ndarray
    labels: Sequence[str]
    states: np.ndarray | None = None
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)


def read_sample(
    sources: Sequence[str], *, frames: int, camera: str | None, target: str, skip_damaged: bool = False
) -> list[Part]:
    """About `frames` frames in all, as many from each source.

    Args:
        sources: episode stores (folders, .zip, s3://) and folders of images.
        frames: at least 1.
        camera: of stores; None for the first that each has.
        target: the key of a store that probes read out; only `observation.state` may be missing.
        skip_damaged: leave out image files that cannot be read.

    Raises:
        UsageError: no source; or a store has no such camera or target.
        UserError: a source is missing, empty, damaged, or has no frames.
    """
    if not sources:
        raise UsageError("which frames? write data=<episode store or folder of images>, or data='[a,b]'")
    share = max(1, frames // len(sources))
    found = []
    for source in sources:
        if source.startswith(S3_SCHEME) or source.endswith(".zip") or is_store(Path(source).expanduser()):
            found.append(store_part(source, frames=share, camera=camera, target=target))
        else:
            found.append(folder_part(Path(source).expanduser(), frames=share, skip_damaged=skip_damaged))
    return found


def store_part(source: str, *, frames: int, camera: str | None, target: str) -> Part:
    """Evenly spaced frames of evenly spaced episodes; with their state where the store has that key."""
    store = EpisodeStore.open(source if source.startswith(S3_SCHEME) else Path(source).expanduser())
    name = Path(source).name.removesuffix(".zip")
    if not store.image_keys or not store.num_frames:
        keys = ", ".join(sorted(store.keys))
        raise UserError(f"data={source} has no frames to look at: keys {keys}; {len(store)} episodes")
    key = store.image_keys[0] if camera is None else image_key(camera)
    if key not in store.image_keys:
        raise unknown_name("camera", str(camera), [each.removeprefix(image_key("")) for each in store.image_keys])
    if target not in store.keys and target != STATE:  # most stores have a state; who names another key means it
        raise unknown_name("target", target, store.keys)
    places = store_places(store, frames)
    rows = [store.offsets[episode] + moment for episode, moment in places]
    states = None
    if target in store.keys:
        states = np.concatenate([store.read(target, row, row + 1) for row in rows]).reshape(len(rows), -1)
        states = states.astype(np.float64)
    return Part(
        name=f"{name}, {key.removeprefix(image_key(''))}",
        frames=np.concatenate([store.read(key, row, row + 1) for row in rows]),
        episodes=np.array([episode for episode, _ in places], np.int64),
        labels=[f"episode {episode}, frame {moment}" for episode, moment in places],
        states=states,
        classes=_different(NamedLabels.of([store.episodes[episode].task for episode, _ in places])),
    )


def store_places(store: EpisodeStore, frames: int) -> list[tuple[int, int]]:
    """About `frames` pairs of an episode and a moment of it, evenly spaced, episode after episode."""
    chosen = spaced(len(store), frames)
    each = max(1, frames // len(chosen))
    return [(episode, moment) for episode in chosen for moment in spaced(store.lengths[episode], each)]


def folder_part(folder: Path, *, frames: int, skip_damaged: bool) -> Part:
    """Evenly spaced files of a folder, cut to squares."""
    paths = list_images(folder)
    pictures, kept = [], []
    for path in (paths[number] for number in spaced(len(paths), frames)):
        try:
            pictures.append(read_square(path, PHOTO_SIZE))
        except UserError:
            if not skip_damaged:
                raise
            continue
        kept.append(path)
    if not pictures:
        raise UserError(f"none of the images in {folder} can be read")
    return Part(
        name=folder.name,
        frames=np.stack(pictures),
        episodes=np.arange(len(pictures)),
        labels=[path.name for path in kept],
        classes=_different(folder_labels(kept, folder)),
    )


def _different(labels: NamedLabels | None) -> np.ndarray | None:
    return labels.numbers if labels is not None and len(labels.names) > 1 else None


def spaced(total: int, count: int) -> list[int]:
    """At most `count` evenly spaced numbers below `total`, ascending, the first and the last among them."""
    if count == 1:
        return [total // 2]
    return sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))})
