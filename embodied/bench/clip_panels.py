"""What a model of videos predicts while it trains: PNGs of clips, truth above prediction.

Legend: B clips, T frames, N codes of a frame, S image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.bench.plots import save_image_grid
from embodied.core.seeding import torch_generator
from embodied.datasets.loading.clips import CODES
from embodied.training.batches import Batch, to_tensors

MOST_FRAMES = 12  # of a clip that are shown


class ClipPanels:
    """A `training.pretrain.Monitor`: `predictions_<step>.png`, of the same clips every time.

    For each clip the tokenizer's own pictures of all frames, and below what the model makes of the first ones; the
    given frames are the same in both rows.

    Args:
        batch: a few clips, as the objective's `predict` takes them.
        folder: where the pictures go.
        context: frames that are given.
        every: steps.
        seed: of what is drawn.
        show: is told the step and the file of each.
    """

    def __init__(
        self,
        batch: Batch,
        folder: Path,
        *,
        context: int,
        every: int,
        seed: int,
        show: Callable[[int, Path], None],
    ) -> None:
        self.every = every
        self._batch, self._folder, self._context, self._seed, self._show = batch, folder, context, seed, show

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Draws; there is nothing to log."""
        path = self._folder / f"predictions_{step:06d}.png"
        draw_predictions(objective, self._batch, path, context=self._context, seed=self._seed)
        self._show(step, path)
        return {}


def draw_predictions(objective: nn.Module, batch: Batch, path: Path, *, context: int, seed: int) -> None:
    """One such PNG.

    Args:
        objective: in eval mode, with `predict` and an encoder with a `tokenizer`.
        batch: a few clips.
        path: of the PNG.
        context: frames that are given.
        seed: of what is drawn.
    """
    assert not objective.training
    model: Any = objective
    tensors = to_tensors(batch, slice(None), next(objective.parameters()).device)
    with torch.no_grad():
        predicted = model.predict(tensors, context=context, generator=torch_generator(seed, "pictures"))
        pairs = [_frames(model, codes) for codes in (tensors[CODES], predicted)]
    rows = [row for clip in zip(*pairs, strict=True) for row in clip]
    save_image_grid(rows, path)


def _frames(model: Any, codes: Tensor) -> np.ndarray:
    """Codes [B, T, N] as frames uint8 [B, T, S, S, 3], of long clips evenly chosen ones."""
    steps = codes.shape[1]
    shown = torch.linspace(0, steps - 1, min(steps, MOST_FRAMES)).round().long()
    part = codes[:, shown.to(codes.device)]
    frames: np.ndarray = model.encoder.tokenizer.decode(part.flatten(0, 1)).unflatten(0, part.shape[:2]).cpu().numpy()
    return frames
