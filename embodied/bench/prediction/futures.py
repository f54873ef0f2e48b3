"""What GR-1 expects to see some steps later, beside what came: clips to be judged as other predictions are.

Legend: B clips, T frames of a clip, n frames ahead, S image size of what is predicted, P its patches' size.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
import torch
from jaxtyping import UInt8

from embodied.bench.inspection.samples import spaced
from embodied.bench.prediction.judge import COPY, MEANS, MODEL, Clips
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import Reporter
from embodied.datasets.loading.future_windows import FutureWindows
from embodied.objectives.video.gr1 import GR1
from embodied.training.batches import to_tensors

_AT_ONCE = 32  # windows


def predict_futures(
    objective: GR1, data: FutureWindows, *, camera: str, frames: int, clips: int, reporter: Reporter
) -> Clips:
    """Every frame of clips but the first n, predicted from the true frames until n before it, the newest included.

    Args:
        objective: in eval mode, on its device.
        data: windows with all that it reads, and futures n ahead.
        camera: of the network, whose frames are predicted.
        frames: T, more than n.
        clips: B, at most; evenly spaced over the episodes.
        reporter: shows progress.

    Returns:
        Clips with a context of n frames. Beside the model: the frame n before, again, which is the newest that it saw;
        and of a model of standardised patches the patches' true means, since its pictures borrow these (and their
        deviations).

    Raises:
        UsageError: there is nothing to predict.
        UserError: no episode is long enough.
    """
    ahead = objective.next_frames
    if frames <= ahead:
        raise UsageError(f"frames must be above the {ahead} that this model predicts ahead, got {frames}")
    device = next(objective.parameters()).device
    truth: list[np.ndarray] = []
    names = (MODEL, COPY, *([MEANS] if objective.norm_pixels else []))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    seconds = 0.0
    chosen = clip_windows(data, frames=frames, ahead=ahead, clips=clips)
    for windows in reporter.track(chosen, total=len(chosen), description="predict"):
        start = perf_counter()
        predicted, true = _pictures(objective, data, windows, camera, device)
        seconds += perf_counter() - start
        truth.append(true)
        means = patch_means(true, objective.decoder.patch_size)
        later = {MODEL: predicted[ahead:], COPY: true[:-ahead], MEANS: means[ahead:]}
        for name, found in rows.items():
            found.append(np.concatenate([true[:ahead], later[name]]))
    return Clips(
        truth=np.stack(truth),
        rows={name: np.stack(found) for name, found in rows.items()},
        context=ahead,
        seconds_per_clip=seconds / len(chosen),
        ahead=ahead,
    )


def clip_windows(data: FutureWindows, *, frames: int, ahead: int, clips: int) -> list[np.ndarray]:
    """Indices int64 [T] of windows that follow each other; the window of a frame of a clip ends n frames earlier.

    Raises:
        UserError: no episode is long enough.
    """
    found: list[np.ndarray] = []
    before = longest = 0
    for source in data.sources:
        stored = source.windows.materialized
        lengths = dict(zip(stored.episodes.tolist(), stored.lengths.tolist(), strict=True))
        for episode in source.windows.episodes.tolist():
            length = lengths[episode]
            longest = max(longest, length)
            first = before + source.windows.index_of(episode, 0)
            found += [first + start + np.arange(frames) for start in range(0, length - ahead - frames + 1, frames)]
        before += len(source.windows)
    if not found:
        raise UserError(
            f"{frames} frames that are predicted {ahead} ahead take {frames + ahead} frames of an episode, the longest "
            f"has {longest}: lower frames"
        )
    return [found[number] for number in spaced(len(found), clips)]


def _pictures(
    objective: GR1, data: FutureWindows, windows: np.ndarray, camera: str, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted and what came, of the last step of every window, uint8 [T, S, S, 3]."""
    pairs = []
    for part in np.array_split(windows, -(-len(windows) // _AT_ONCE)):
        shown = objective.pictures(to_tensors(data.batch(part), slice(None), device))[camera]
        pairs.append([frames.cpu().numpy() for frames in shown])
    predicted, true = (np.concatenate(each) for each in zip(*pairs, strict=True))
    return predicted, true


def patch_means(frames: UInt8[np.ndarray, "T S S 3"], patch_size: int) -> UInt8[np.ndarray, "T S S 3"]:
    """The frames with every patch of one colour, its mean."""
    count, side = frames.shape[0], frames.shape[1] // patch_size
    patches = frames.reshape(count, side, patch_size, side, patch_size, 3)
    means = patches.mean(axis=(2, 4), keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(means, patches.shape).reshape(frames.shape)
