"""The loss on frames that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from embodied.core.seeding import derive_seed, torch_generator
from embodied.objectives.parts.distributed import alone
from embodied.training.batches import ReadBatch, as_batch, count_rows, to_tensors


class HoldoutLoss:
    """A `training.pretrain.Monitor`: `holdout_loss`, the mean of the objective's loss in eval mode.

    The frames, crops and masks are the same every time, so that its values can be compared. In eval mode an objective
    may leave terms out that it trains with: `tbm` estimates no noise, drop-path is off.

    Args:
        read_batch: batches by their number, counted from 0.
        batches: how many.
        every: steps.
        seed: of crops and masks.
        reduced: under autocast to bf16, as the training is.
    """

    def __init__(self, read_batch: ReadBatch, *, batches: int, every: int, seed: int, reduced: bool) -> None:
        self.every = every
        self._read_batch, self._batches, self._seed, self._reduced = read_batch, batches, seed, reduced

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Values to log."""
        device = next(objective.parameters()).device
        total, count = 0.0, 0
        # Only the main process is here: what balances or gathers over processes must not wait for the others.
        with alone(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for number in range(self._batches):
                batch = to_tensors(as_batch(self._read_batch(number)), slice(None), device)
                torch.manual_seed(derive_seed(self._seed, "holdout layers", number))
                generator = torch_generator(self._seed, "holdout", number)
                with torch.autocast(device.type, torch.bfloat16, enabled=self._reduced):
                    loss, _ = objective(batch, generator)
                total += float(loss) * count_rows(batch)
                count += count_rows(batch)
        return {"holdout_loss": total / count}
