"""Features of an episode store under one frozen encoder: computed once, resumably, then memory-mapped.

B frames per batch, F frames in the store, N tokens, D width.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import Reporter
from embodied.datasets.array_cache import PROGRESS, ArrayCache, lock_path
from embodied.datasets.disk import FileLock, disk_errors
from embodied.datasets.episode_store import EpisodeStore
from embodied.datasets.npy_rows import ArraySpec

TOKENS = "tokens"  # the output name of the encoder's token map [N, D]


class FeatureCache(ArrayCache):
    """The cached outputs of one encoder for one image key of one store: `array("pooled")` is [F, V]."""

    @classmethod
    def open_or_create(
        cls,
        root: str | Path,
        *,
        encoder_fingerprint: str,
        store_fingerprint: str,
        image_key: str,
        outputs: Mapping[str, tuple[int, ...]],
        num_frames: int,
        dtype: str = "float16",
        wait: bool = True,
    ) -> FeatureCache:
        """The cache for exactly these arguments, at as many frames as were completed before.

        Args:
            root: the folder of all feature caches.
            encoder_fingerprint: changes with weights and preprocessing.
            store_fingerprint: changes with the frames.
            image_key: which of the store's keys is encoded.
            outputs: the shape of each output for one frame.
            num_frames: F.
            dtype: of all outputs.
            wait: for another process that builds the same cache; else raise.

        Raises:
            UsageError, UserError: see `ArrayCache`.
        """
        identity = {"kind": "features", "encoder": encoder_fingerprint, "store": store_fingerprint, "key": image_key}
        specs = {name: ArraySpec(dtype, tuple(shape)) for name, shape in outputs.items()}
        return cls(root, identity=identity, outputs=specs, num_rows=num_frames, wait=wait)


def encode_store(
    store: EpisodeStore,
    encoder: nn.Module,
    *,
    image_key: str,
    outputs: Sequence[str],
    cache_root: str | Path,
    encoder_fingerprint: str,
    batch_size: int = 64,
    device: str | torch.device,
    reporter: Reporter,
    dtype: str = "float16",
) -> FeatureCache:
    """The features of every frame of a store; only frames that are not cached yet go through the encoder.

    Args:
        store: with at least one frame.
        encoder: see `protocols.Encoder`; it is moved to `device` and put into eval mode.
        image_key: the key to encode; for an encoder of states the key of the state.
        outputs: `"tokens"` or names in the encoder's `out`.
        cache_root: the folder of all feature caches.
        encoder_fingerprint: changes with weights and preprocessing.
        batch_size: B, frames per call of the encoder.
        device: where to encode.
        reporter: shows progress.
        dtype: of the cached features.

    Raises:
        UsageError: there is no such key or output, or no frame.
        UserError: the store is damaged, or the disk fails.
    """
    if image_key not in store.keys:
        raise unknown_name("image key", image_key, store.keys)
    if batch_size < 1 or store.num_frames < 1:
        raise UsageError(f"expected a batch_size and frames of at least 1, got {batch_size} and {store.num_frames}")
    encoder = encoder.to(device).eval()

    def encode(start: int, stop: int) -> dict[str, np.ndarray]:
        return encode_frames(encoder, store.read(image_key, start, stop), outputs=outputs, device=device)

    cache = FeatureCache.open_or_create(
        cache_root,
        encoder_fingerprint=encoder_fingerprint,
        store_fingerprint=store.fingerprint(),
        image_key=image_key,
        outputs={name: value.shape[1:] for name, value in encode(0, 1).items()},
        num_frames=store.num_frames,
        dtype=dtype,
    )
    cache.fill(encode, block=batch_size, description="encode", reporter=reporter)
    return cache


def encode_frames(
    encoder: nn.Module, frames: np.ndarray, *, outputs: Sequence[str], device: str | torch.device
) -> dict[str, np.ndarray]:
    """The named outputs of frames uint8 [B, H, W, 3] (or states float [B, S]), each float32 [B, ...]."""
    with torch.inference_mode():
        images = encoder.preprocess(torch.from_numpy(frames).to(device))  # type: ignore[operator]
        tokens, out = encoder(images)
        found: dict[str, Tensor] = {**out, TOKENS: tokens}
        for name in outputs:
            if name not in found:
                raise unknown_name("encoder output", name, found)
        return {name: found[name].float().cpu().numpy() for name in outputs}


@dataclass(frozen=True)
class CacheInfo:
    """One cache folder: its size, whether it is complete, when it was last used (seconds since 1970) and what for."""

    path: Path
    size_bytes: int
    complete: bool
    last_used_s: float
    identity: Mapping[str, Any]


def list_caches(root: str | Path) -> list[CacheInfo]:
    """The caches under `root`, least recently used first."""
    found = []
    for progress in Path(root).glob(f"*/{PROGRESS}"):
        folder = progress.parent
        try:
            record = json.loads(progress.read_bytes())
            complete, identity = record["done"] == record["rows"], record["identity"]
            size = sum(path.stat().st_size for path in folder.iterdir())
            found.append(CacheInfo(folder, size, complete, progress.stat().st_mtime, identity))
        except (ValueError, KeyError, TypeError):
            found.append(CacheInfo(folder, 0, False, 0.0, {}))  # damaged: whoever opens it computes it again
        except FileNotFoundError:
            continue  # somebody deleted it meanwhile
    return sorted(found, key=lambda cache: cache.last_used_s)


def prune(root: str | Path, max_bytes: int) -> list[Path]:
    """Delete complete caches that nobody has open, least recently used first, until `max_bytes` remain.

    Returns:
        The folders that were deleted.
    """
    caches = list_caches(root)
    total, deleted = sum(cache.size_bytes for cache in caches), []
    for cache in caches:
        lock = FileLock(lock_path(cache.path))
        if total <= max_bytes or not cache.complete or not lock.acquire(wait=False):
            continue
        with disk_errors(cache.path, "deleting the cache"):
            shutil.rmtree(cache.path)
        lock.release()
        total -= cache.size_bytes
        deleted.append(cache.path)
    return deleted
