"""Predicted clips beside the truth and beside two baselines, in numbers.

Legend: B clips, T frames of a clip, N codes of a frame, S image size of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.bench.video_metrics import (
    FeatureNetwork,
    bootstrap_distance,
    bootstrap_mean,
    clip_features,
    frechet_distance,
    kernel_distance,
    perceptual_distance,
    psnr,
    ssim,
)
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, Reporter
from embodied.core.seeding import torch_generator
from embodied.datasets.loading.clips import CODES, ClipDataset
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.encoders.video import VideoEncoder

MODEL, COPY, TOKENIZER, MEANS = "prediction", "copy last frame", "tokenizer only", "patch means"
MEANINGS = {
    MODEL: "the model, from the frames of the context and the actions",
    COPY: "the newest frame that the model saw, again: what a model that sees no motion predicts",
    TOKENIZER: "the true frames, encoded and decoded: no prediction of these codes can be nearer in pixels by much",
    MEANS: "the true patches, each of its mean colour: the prediction borrows the patches' true means and deviations, "
    "so what it adds is what lies beyond this row",
}
PIXELS = ("psnr_db", "ssim")  # higher is better
FEATURES = ("perceptual",)  # lower is better
PER_FRAME = (*PIXELS, *FEATURES)
SETS = {"frechet": frechet_distance, "kernel": kernel_distance}  # lower is better
_AT_ONCE = 8  # clips


@dataclass(frozen=True, kw_only=True)
class Clips:
    """What is compared: uint8 [B, T, S, S, 3] of the truth, as the model sees it, and of every row of the table.

    Args:
        truth, rows: see above; all share the first `context` frames.
        context: frames that are given.
        seconds_per_clip: of the prediction.
        codes: int64 [B, T, N] by row, `truth` among them; empty of a model of pixels.
        ahead: where each frame is predicted from the true ones until so many before it; None: all from the context.
    """

    truth: np.ndarray
    rows: Mapping[str, np.ndarray]
    context: int
    seconds_per_clip: float
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)
    ahead: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The numbers.

    Args:
        rows: by row and metric [value, low, high], 95 % intervals over clips.
        horizon: by row and metric the mean over clips of every predicted frame, the first first.
        code_accuracy: by row the share of codes after the context that are the truth's; empty of a model of pixels.
        halves: distances between the sets of every second clip of the truth and the others: what remains of a distance
            where nothing differs, with half as many clips.
        clips, context, frames: B, and of T frames those that are given.
        seconds_per_clip: of the prediction.
        ahead: see `Clips`.
    """

    rows: Mapping[str, Mapping[str, Sequence[float]]]
    horizon: Mapping[str, Mapping[str, Sequence[float]]]
    code_accuracy: Mapping[str, float]
    halves: Mapping[str, float] = field(default_factory=dict)
    clips: int
    context: int
    frames: int
    seconds_per_clip: float
    ahead: int | None = None


def predict_clips(
    objective: nn.Module, data: ClipDataset, indices: np.ndarray, *, context: int, seed: int, reporter: Reporter
) -> Clips:
    """Predictions of the clips at indices int64 [B], and the baselines; the model sees no code after the context.

    Args:
        objective: with `predict` and an encoder over the tokenizer that `data` was encoded with, on its device.
        data: the clips.
        indices: which.
        context: frames that are given, in [1, T).
        seed: of what the model draws.
        reporter: shows progress.

    Raises:
        UsageError: the context leaves nothing to predict.
        UserError: the actions have another size than those that the model knows.
    """
    if not 1 <= context < data.frames:
        raise UsageError(f"context must be in [1, {data.frames - 1}], to leave a frame to predict; got {context}")
    encoder = objective.encoder
    assert isinstance(encoder, VideoEncoder), type(encoder)
    _check_actions(encoder, data)
    device = next(objective.parameters()).device
    generator = torch_generator(seed, "predict")
    truth: list[np.ndarray] = []
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (MODEL, COPY, TOKENIZER)}
    codes: dict[str, list[np.ndarray]] = {name: [] for name in ("truth", MODEL, COPY)}
    seconds = 0.0
    parts = np.array_split(indices, -(-len(indices) // _AT_ONCE))
    for part in reporter.track(parts, total=len(parts), description="predict"):
        batch = {key: torch.from_numpy(value).to(device) for key, value in data.batch(part).items()}
        start = perf_counter()
        predicted = objective.predict(_blinded(batch, context), context=context, generator=generator)  # type: ignore[operator]
        predicted = predicted.cpu()  # waits for the device
        seconds += perf_counter() - start
        true = batch[CODES].cpu()
        last = true[:, context - 1 : context].expand(-1, true.shape[1] - context, -1)
        frames = np.stack([as_seen(encoder.tokenizer, clip) for clip in data.pictures(part)])
        truth.append(frames)
        for name, found in ((MODEL, predicted), (TOKENIZER, true)):
            rows[name].append(np.concatenate([frames[:, :context], _decoded(encoder, found[:, context:])], axis=1))
        still = np.repeat(frames[:, context - 1 : context], frames.shape[1] - context, axis=1)
        rows[COPY].append(np.concatenate([frames[:, :context], still], axis=1))
        for name, found in (("truth", true), (MODEL, predicted), (COPY, torch.cat([true[:, :context], last], dim=1))):
            codes[name].append(found.numpy())
    return Clips(
        truth=np.concatenate(truth),
        rows={name: np.concatenate(found) for name, found in rows.items()},
        codes={name: np.concatenate(found) for name, found in codes.items()},
        context=context,
        seconds_per_clip=seconds / len(indices),
    )


def _check_actions(encoder: VideoEncoder, data: ClipDataset) -> None:
    known, found = encoder.sequence.sizes.get(ACTION, 0), data.sizes[ACTION]
    if known and found and known != found:
        raise UserError(
            f"this model was trained on actions of {known} values per step of a clip, the data have {found}: give data "
            "of the same robot and stride"
        )


def _blinded(batch: Mapping[str, Tensor], context: int) -> dict[str, Tensor]:
    """The batch with the codes after the context set to zero: whatever a model does, it cannot look."""
    codes = batch[CODES].clone()
    codes[:, context:] = 0
    return {**batch, CODES: codes}


def as_seen(tokenizer: FrameTokenizer, frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] at the tokenizer's size, [T, S, S, 3]."""
    if frames.shape[1:3] == tuple(tokenizer.image_size):
        return frames
    device = next(tokenizer.parameters()).device
    images = tokenizer.preprocess(torch.from_numpy(np.ascontiguousarray(frames)).to(device))
    return np.asarray(tokenizer.encoder.normalize.inverse(images).cpu().numpy())


def _decoded(encoder: VideoEncoder, codes: Tensor) -> np.ndarray:
    device = next(encoder.parameters()).device
    return np.asarray(encoder.decode_clip(codes.to(device)).cpu().numpy())


def judge(clips: Clips, network: FeatureNetwork, *, seed: int, reporter: Reporter) -> Judgement:
    """The numbers of every row, over the frames after the context alone.

    Distances between sets see the last frame of the context, too: the step out of it is motion that is predicted.
    """
    start = clips.context
    later = clips.truth[:, start:]
    seen = clip_features(clips.truth[:, start - 1 :], network)
    rows: dict[str, dict[str, Sequence[float]]] = {}
    horizon: dict[str, dict[str, Sequence[float]]] = {}
    for name in reporter.track(list(clips.rows), total=len(clips.rows), description="judge"):
        found = clips.rows[name]
        frames = {
            "psnr_db": psnr(later, found[:, start:]),
            "ssim": ssim(later, found[:, start:]),
            "perceptual": perceptual_distance(later, found[:, start:], network),
        }
        rows[name] = {key: bootstrap_mean(values.mean(axis=1), seed=seed) for key, values in frames.items()}
        horizon[name] = {key: values.mean(axis=0).tolist() for key, values in frames.items()}
        if len(seen) >= 2:
            features = clip_features(found[:, start - 1 :], network)
            rows[name] |= {
                key: bootstrap_distance(distance, seen, features, seed=seed) for key, distance in SETS.items()
            }
    known = [name for name in (MODEL, COPY) if name in clips.codes]
    enough = len(seen) >= 4
    return Judgement(
        rows=rows,
        horizon=horizon,
        code_accuracy={
            name: float((clips.codes[name][:, start:] == clips.codes["truth"][:, start:]).mean()) for name in known
        },
        halves={key: distance(seen[::2], seen[1::2]) for key, distance in SETS.items()} if enough else {},
        clips=len(clips.truth),
        context=start,
        frames=clips.truth.shape[1],
        seconds_per_clip=clips.seconds_per_clip,
        ahead=clips.ahead,
    )


def judgement_record(judgement: Judgement, network: FeatureNetwork) -> dict[str, Any]:
    """JSON-able, for metrics.json."""
    rows = {
        name: {key: dict(zip(("value", "low", "high"), values, strict=True)) for key, values in row.items()}
        for name, row in judgement.rows.items()
    }
    return {
        "clips": judgement.clips,
        "context": judgement.context,
        "frames": judgement.frames,
        "feature_network": {"spec": network.spec, "fingerprint": network.fingerprint},
        "comparable_with_published_lpips_or_fvd": False,
        "rows": rows,
        "by_horizon": {name: dict(curves) for name, curves in judgement.horizon.items()},
        "code_accuracy": dict(judgement.code_accuracy),
        "between_halves_of_the_truth": dict(judgement.halves),
        "seconds_per_clip": judgement.seconds_per_clip,
        "frames_ahead": judgement.ahead,
    }
