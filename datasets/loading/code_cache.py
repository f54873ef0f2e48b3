"""Codes of frames under a frozen tokenizer, and frames of such codes: computed once, resumably, then memory-mapped.

F frames, N codes of a frame, S image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied.core.protocols import Reporter
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.npy_rows import ArraySpec, Rows
from embodied.datasets.loading.read_ahead import read_ahead
from embodied.encoders.tokenizer import FrameTokenizer

CODES, FRAMES = "codes", "frames"  # the outputs of the two kinds of caches
BATCH = 64  # frames per call of the tokenizer, and between two commits


def code_dtype(vocabulary: int) -> str:
    """The smallest of two NumPy types that holds every code: `uint16` up to 65,536 codes, else `uint32`."""
    return "uint16" if vocabulary <= 1 << 16 else "uint32"


def encode_codes(
    tokenizer: FrameTokenizer,
    read: Callable[[Range], np.ndarray],
    *,
    fingerprint: str,
    identity: Mapping[str, Any],
    num_frames: int,
    root: Path,
    device: str | torch.device,
    reporter: Reporter,
    max_bytes: int | None = None,
    description: str = "tokenize",
) -> ArrayCache:
    """The codes of every frame, [F, N]; only frames that are not cached yet go through the tokenizer.

    Args:
        tokenizer: frozen; it is moved to `device`.
        read: frames uint8 [B, H, W, 3] of any size, by the first and the one after the last of them.
        fingerprint: of the tokenizer.
        identity: JSON-able, what decides the frames.
        num_frames: F, at least 1.
        root: the folder of caches.
        device: where to encode.
        reporter: shows progress.
        max_bytes: of all caches under `root`; those not in use make room, the least recently used first.
        description: for people.

    Raises:
        UserError: the disk or the cap is too small, or what `read` raises.
    """
    tokenizer = tokenizer.to(device)

    def encode(ranges: Sequence[Range]) -> Blocks:
        for frames in read_ahead(read, ranges, threads=1):  # the device does not wait for the disk
            codes = tokenizer.codes(torch.from_numpy(frames).to(device))
            yield {CODES: codes.cpu().numpy()}

    cache = ArrayCache(
        root,
        identity={"kind": "codes", "tokenizer": fingerprint, "frames": dict(identity)},
        outputs={CODES: ArraySpec(code_dtype(tokenizer.vocabulary), (tokenizer.num_codes,))},
        num_rows=num_frames,
        max_bytes=max_bytes,
    )
    cache.fill(encode, block=BATCH, description=description, reporter=reporter)
    return cache


def decode_codes(
    tokenizer: FrameTokenizer,
    codes: Rows,
    *,
    fingerprint: str,
    identity: Mapping[str, Any],
    root: Path,
    device: str | torch.device,
    reporter: Reporter,
    max_bytes: int | None = None,
) -> ArrayCache:
    """The frames uint8 [F, S, S, 3] that a tokenizer draws of codes [F, N]: what no model of its codes can better.

    Args:
        tokenizer, fingerprint, root, device, reporter, max_bytes: as of `encode_codes`.
        codes: as it gives them.
        identity: JSON-able, what decides the codes.

    Raises:
        UserError: the disk or the cap is too small.
    """
    tokenizer = tokenizer.to(device)

    def decode(ranges: Sequence[Range]) -> Blocks:
        for first, last in ranges:
            part = torch.from_numpy(codes.read(first, last).astype(np.int64)).to(device)
            yield {FRAMES: tokenizer.decode(part).cpu().numpy()}

    height, width = tokenizer.image_size
    cache = ArrayCache(
        root,
        identity={"kind": "decoded codes", "tokenizer": fingerprint, "frames": dict(identity)},
        outputs={FRAMES: ArraySpec("uint8", (height, width, 3))},
        num_rows=len(codes),
        max_bytes=max_bytes,
    )
    cache.fill(decode, block=BATCH, description="decode codes", reporter=reporter)
    return cache
