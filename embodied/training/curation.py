"""How often a pre-training draws a frame: never where it shows little, seldom where it is easy.

Pixio's self-curation (Yang et al. 2025, https://arxiv.org/abs/2512.15715). Its loader reads three numbers per image
that were computed beforehand: the entropy of its colour histogram, its size, and its loss under an earlier MAE. It
leaves out what has 4.5 or less of the first, and takes the rest with a probability equal to the last. Here both are
computed once and kept in the cache.

Departures. What exactly its histogram counts is in neither paper nor code: see `colour_entropy`. An image that is not
taken this time may be the next; here a frame is drawn in proportion to the same number, with replacement, so that the
batch of a step stays a function of seed and step. Small images are not left out: frames have been resized.

Legend: N frames of the data, B frames of a block, S their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import Reporter
from embodied.core.seeding import derive_seed, torch_generator
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.frame_batches import IMAGES
from embodied.datasets.loading.frame_dataset import FrameDataset
from embodied.datasets.loading.npy_rows import ArraySpec
from embodied.objectives.parts.distributed import alone
from embodied.training.batches import to_tensors

LEVELS = 256  # of a channel
BLOCK = 256  # frames between two commits
SCORE = "score"


@dataclass(frozen=True)
class ScoreCache:
    """Where scores of frames are kept.

    Attributes:
        root: the folder of caches, shared by processes.
        max_bytes: of all caches in it; None: no limit.
        reporter: shows progress.
    """

    root: Path
    max_bytes: int | None
    reporter: Reporter


def frame_entropies(frames: FrameDataset, cache: ScoreCache) -> Float[np.ndarray, " N"]:
    """`colour_entropy` of all frames."""
    return _scores(
        frames, colour_entropy, cache, identity={"kind": "colour entropy", "levels": LEVELS}, description="entropies"
    )


def frame_losses(
    frames: FrameDataset, objective: nn.Module, cache: ScoreCache, *, fingerprint: str
) -> Float[np.ndarray, " N"]:
    """The loss of every frame by itself, in eval mode, all with the same crop and mask.

    Args:
        frames: the data.
        objective: trained, on its device; one that rebuilds a single frame. It comes back as it was.
        cache: for the losses.
        fingerprint: changes with the objective's settings and weights.

    Raises:
        UsageError: its loss is not that of rebuilding a frame by itself.
        UserError: a loss is not finite.
    """
    if getattr(objective, "pairing", None) is not None or not hasattr(objective, "reconstruct"):
        raise UsageError(
            f"{type(objective).__name__} does not rebuild single frames, so its loss says nothing about one: take "
            "mae, pixio, ..."
        )
    training = objective.training
    objective.eval()
    try:
        return _scores(
            frames,
            lambda block: np.array([frame_loss(objective, frame) for frame in block], np.float32),
            cache,
            identity={"kind": "frame losses", "objective": fingerprint},
            description="losses",
        )
    finally:
        objective.train(training)


def draw_shares(
    *,
    entropies: Float[np.ndarray, " N"] | None = None,
    least: float = 0.0,
    losses: Float[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N"]:
    """How often each frame is drawn, from 0, never, to 1: its loss, at most 1, where its entropy is above `least`.

    Args:
        entropies: in bits; None: all are above.
        least: in bits.
        losses: about 1 for a normalised target that is guessed at; None: all are 1.
    """
    given = [each for each in (entropies, losses) if each is not None]
    shares = np.ones(len(given[0]))
    if entropies is not None:
        shares *= entropies > least
    return shares if losses is None else shares * np.clip(losses, 0.0, 1.0)


def colour_entropy(frames: UInt8[np.ndarray, "B S S2 3"]) -> Float[np.ndarray, " B"]:
    """Bits: the entropy of the histogram of a channel's 256 levels, mean of the three channels, float32.

    0 for a frame of one colour, 8 at most, about 7 for a photograph.
    """
    apart = np.arange(3) * LEVELS  # a histogram of its own for every channel
    counts = np.stack([np.bincount((frame.reshape(-1, 3) + apart).ravel(), minlength=3 * LEVELS) for frame in frames])
    pixels = frames.shape[1] * frames.shape[2]
    shares = counts.reshape(len(frames), 3, LEVELS) / pixels
    return -(shares * np.log2(np.maximum(shares, 1 / pixels))).sum(axis=2).mean(axis=1).astype(np.float32)


@torch.no_grad()
def frame_loss(objective: nn.Module, frame: UInt8[np.ndarray, "S S2 3"]) -> float:
    """The objective's loss of a batch of this frame alone."""
    device = next(objective.parameters()).device
    batch = to_tensors({IMAGES: frame[None]}, slice(None), device)
    # Every process may be scoring frames of its own: nothing must wait for the others.
    with alone(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(0, "curation layers"))
        loss, _ = objective(batch, torch_generator(0, "curation"))
    if not math.isfinite(float(loss)):
        raise UserError(f"the loss of a frame under the earlier pre-training is {float(loss)}: choose another run")
    return float(loss)


def _scores(
    frames: FrameDataset,
    measure: Callable[[np.ndarray], np.ndarray],
    cache: ScoreCache,
    *,
    identity: dict[str, object],
    description: str,
) -> Float[np.ndarray, " N"]:
    """A number per frame, computed once and kept."""

    def blocks(ranges: Sequence[Range]) -> Blocks:
        return ({SCORE: measure(frames.read(np.arange(*rows)))} for rows in ranges)

    with ArrayCache(
        cache.root,
        identity={**identity, "frames": frames.fingerprint()},
        outputs={SCORE: ArraySpec("float32", ())},
        num_rows=len(frames),
        max_bytes=cache.max_bytes,
    ) as held:
        held.fill(blocks, block=BLOCK, description=description, reporter=cache.reporter)
        return np.array(held.array(SCORE))
