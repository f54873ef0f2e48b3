"""What a model of videos saw until a frame: the frames of a sample, each with the window that ends there.

Legend: F frames of the sample, T steps of a window, N codes of a frame, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embodied.bench.inspection.features import BATCH, device_of
from embodied.bench.inspection.samples import Part, store_part, store_places
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, PAD_SUFFIX, image_key
from embodied.datasets.storage.location import S3_SCHEME
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.video import VideoEncoder


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Frames of one store with what came before them.

    Args:
        part: the frames that are probed, the last ones of their windows.
        window: of every frame, by the names of the encoder: codes int64 [F, T, N], `action` [F, T, A] where the encoder
            reads actions and the store has them; `<key>_is_pad` bool [F, T], True = before the episode.
    """

    part: Part
    window: Mapping[str, Tensor]


def read_windows(
    source: str, encoder: VideoEncoder, *, frames: int, camera: str | None, target: str, stride: int = 1
) -> Windows:
    """About `frames` evenly spaced frames of a store, each with the window of the encoder's context.

    Args:
        source: an episode store.
        encoder: makes the codes; its context is the windows' length.
        frames: F.
        camera: None: the one of the encoder's name, or the first that the store has.
        target: the key that probes read out.
        stride: frames from one of a window to the next.

    Raises:
        UsageError: it is no store, or has no such camera or target.
    """
    path = Path(source).expanduser()
    remote = source.startswith(S3_SCHEME)
    if not (remote or source.endswith(".zip") or is_store(path)):
        raise UsageError(f"data={source} is no episode store: a model of videos is probed on what came before a frame")
    store = EpisodeStore.open(source if remote else path)
    own = encoder.cameras[0]
    if camera is None and image_key(own) in store.image_keys:
        camera = own
    part = store_part(source, frames=frames, camera=camera, target=target)
    key = store.image_keys[0] if camera is None else image_key(camera)
    moments = stride * np.arange(1 - encoder.context, 1)
    number = np.array([moment for _, moment in store_places(store, frames)])[:, None] + moments  # (F, T)
    first = np.array(store.offsets)[part.episodes][:, None]
    away = number < 0
    rows = first + np.maximum(number, 0)
    used, places = np.unique(rows, return_inverse=True)
    codes = _codes(encoder, store, key, used)[torch.from_numpy(places.reshape(rows.shape))]
    window = {image_key(own): codes, image_key(own) + PAD_SUFFIX: torch.from_numpy(away)}
    if encoder.sequence.sizes.get(ACTION) and ACTION in store.keys:
        window |= _actions(store, rows, away, stride)
    return Windows(part=part, window=window)


def _codes(encoder: VideoEncoder, store: EpisodeStore, key: str, rows: np.ndarray) -> Tensor:
    """Codes int64 [R, N] of rows of a store."""
    device, found = device_of(encoder), []
    for chosen in np.split(rows, range(BATCH, len(rows), BATCH)):
        frames = np.concatenate([store.read(key, int(row), int(row) + 1) for row in chosen])
        found.append(encoder.tokenizer.codes(torch.from_numpy(frames).to(device)).cpu())
    return torch.cat(found)


def _actions(store: EpisodeStore, rows: np.ndarray, away: np.ndarray, stride: int) -> dict[str, Tensor]:
    """The actions from each frame of a window until the next, side by side; that of the last is not looked at."""
    taken = np.minimum(rows[..., None] + np.arange(stride), store.num_frames - 1)  # (F, T, s)
    used, places = np.unique(taken, return_inverse=True)
    values = np.concatenate([store.read(ACTION, int(row), int(row) + 1) for row in used])
    actions = values[places.reshape(taken.shape)].reshape(*rows.shape, -1).astype(np.float32)
    return {ACTION: torch.from_numpy(actions), ACTION + PAD_SUFFIX: torch.from_numpy(away)}
