"""Features of an episode store under frozen encoders: computed once, resumably, then memory-mapped.

    cache = encode_store(store, encoder, image_key=..., outputs=["pooled", "tokens"], dtype="bfloat16", ...)
    cache.rows("tokens")[10:20]  # float32 [10, N, D]

Several encoders of one store lie side by side, and any number of processes read them at once. Rows are read as float16
or float32; `bfloat16`, which NumPy lacks, lies in its file as uint16 bits and is read through `rows` as float32.

B frames per batch, F frames in the store, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import Reporter
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.bfloat16 import BFLOAT16
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.npy_rows import ArraySpec, Rows
from embodied.datasets.loading.read_ahead import read_ahead
from embodied.datasets.store.episode_store import EpisodeStore

TOKENS = "tokens"  # the output name of the encoder's token map [N, D]
DTYPES = ("float16", BFLOAT16, "float32")


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
        max_bytes: int | None = None,
    ) -> FeatureCache:
        """The cache for exactly these arguments, at as many frames as were completed before.

        Args:
            root: the folder of all feature caches.
            encoder_fingerprint: changes with weights and preprocessing.
            store_fingerprint: changes with the frames.
            image_key: which of the store's keys is encoded.
            outputs: the shape of each output for one frame.
            num_frames: F.
            dtype: of all outputs: float16, bfloat16 or float32.
            wait: for another process that builds the same cache; else raise.
            max_bytes: of all caches under `root`; see `ArrayCache`.

        Raises:
            UsageError, UserError: see `ArrayCache`.
        """
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, DTYPES)
        identity = {"kind": "features", "encoder": encoder_fingerprint, "store": store_fingerprint, "key": image_key}
        specs = {name: ArraySpec(dtype, tuple(shape)) for name, shape in outputs.items()}
        return cls(root, identity=identity, outputs=specs, num_rows=num_frames, wait=wait, max_bytes=max_bytes)


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
    frames: Rows | None = None,
    max_bytes: int | None = None,
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
        dtype: of the cached features: float16, bfloat16 or float32.
        frames: the store's frames under `image_key` where they are materialised, all of them and at their own size.
        max_bytes: of all caches under `cache_root`; those not in use make room, the least recently used first.

    Raises:
        UsageError: there is no such key or output, or no frame.
        UserError: the store is damaged, or the disk fails.
    """
    if image_key not in store.keys:
        raise unknown_name("image key", image_key, store.keys)
    if batch_size < 1 or store.num_frames < 1:
        raise UsageError(f"expected a batch_size and frames of at least 1, got {batch_size} and {store.num_frames}")
    spec = store.keys[image_key]
    if frames is not None and (frames.shape != (store.num_frames, *spec.shape) or frames.dtype != spec.dtype):
        raise UsageError(
            f"frames: expected {spec.describe(store.num_frames)} as in the store, got {frames.dtype} {frames.shape}"
        )
    encoder = encoder.to(device).eval()

    def read(rows: Range) -> np.ndarray:
        return store.read(image_key, *rows) if frames is None else frames.read(*rows)

    def encode(ranges: Sequence[Range]) -> Blocks:
        for block in read_ahead(read, ranges, threads=1):  # the device does not wait for the disk
            yield encode_frames(encoder, block, outputs=outputs, device=device)

    cache = FeatureCache.open_or_create(
        cache_root,
        encoder_fingerprint=encoder_fingerprint,
        store_fingerprint=store.fingerprint(),
        image_key=image_key,
        outputs={name: value.shape[1:] for name, value in next(encode([(0, 1)])).items()},
        num_frames=store.num_frames,
        dtype=dtype,
        max_bytes=max_bytes,
    )
    cache.fill(encode, block=batch_size, description="encode", reporter=reporter)
    return cache


@dataclass(frozen=True)
class FrozenEncoder:
    """One of several encoders for `encode_with_all`: the module, its fingerprint, and which outputs to cache."""

    module: nn.Module
    fingerprint: str
    outputs: Sequence[str]


def encode_with_all(
    store: EpisodeStore,
    encoders: Mapping[str, FrozenEncoder],
    *,
    image_key: str,
    cache_root: str | Path,
    batch_size: int = 64,
    device: str | torch.device,
    reporter: Reporter,
    dtype: str = "float16",
    max_bytes: int | None = None,
) -> dict[str, FeatureCache]:
    """The features of a store under several encoders, side by side; its frames are decoded once for all of them.

    Args:
        store, image_key, cache_root, batch_size, device, reporter, dtype, max_bytes: see `encode_store`.
        encoders: by a name of the caller's.

    Raises:
        UsageError, UserError: see `encode_store`.
    """
    if image_key not in store.keys:
        raise unknown_name("image key", image_key, store.keys)
    found: dict[str, FeatureCache] = {}
    try:
        with materialize(
            store, keys=[image_key], cache_root=cache_root, max_bytes=max_bytes, reporter=reporter
        ) as data:
            for name, encoder in encoders.items():
                with reporter.phase(f"encode with {name}"):
                    found[name] = encode_store(
                        store,
                        encoder.module,
                        image_key=image_key,
                        outputs=encoder.outputs,
                        cache_root=cache_root,
                        encoder_fingerprint=encoder.fingerprint,
                        batch_size=batch_size,
                        device=device,
                        reporter=reporter,
                        dtype=dtype,
                        frames=data.rows[image_key],
                        max_bytes=max_bytes,
                    )
    except BaseException:
        for cache in found.values():
            cache.close()
        raise
    return found


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
