"""Means of a pre-training since its last record, over all processes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from embodied.core.run_folder import Stopwatch
from embodied.training.optimization import first_bad_step


class Window:
    """Values of the steps since the last record.

    Args:
        accelerator: whose processes the means are over.
        flops: of one image, forward and backward.
        peak: FLOP/s of one process's device.
    """

    def __init__(self, accelerator: Accelerator, *, flops: float, peak: float) -> None:
        self._accelerator, self._flops, self._peak = accelerator, flops, peak
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}
        self._steps, self._frames, self._waited, self._watch = 0, 0, 0.0, Stopwatch()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """The loss and metrics of a part of a batch; nan says nothing, and is left out of the mean."""
        for name, value in values.items():
            self._rows.setdefault(name, []).append(torch.as_tensor(value).detach())

    def wait(self, seconds: float) -> None:
        """Time that went by until a batch was there."""
        self._waited += seconds

    def end_step(self, values: Mapping[str, Tensor], frames: int) -> None:
        """The values of a whole step, and the frames of all processes in it."""
        self.add(values)
        self._steps += 1
        self._frames += frames

    def first_bad(self, last_step: int) -> tuple[int, str, float] | None:
        """Step, counted from 1, name and value of the first loss or gradient norm that is not finite.

        Args:
            last_step: the number of the step that ended last.
        """
        losses = torch.stack(self._rows["loss"]).float().view(self._steps, -1).sum(1)
        norms = torch.stack(self._rows["gradient_norm"]).float()
        # Every process must stop at the same step.
        both = self._accelerator.reduce(torch.stack([losses, norms]), "sum")
        index = first_bad_step(both[0], both[1])
        if index is None:
            return None
        name, values = ("gradient", norms) if bool(losses[index].isfinite()) else ("loss", losses)
        return last_step - self._steps + 1 + index, name, float(values[index])

    def record(self) -> dict[str, float]:
        """The means, and how fast it went; the next ones start from here."""
        stacked = [torch.stack(rows).float() for rows in self._rows.values()]
        sums = torch.stack([rows.nansum() for rows in stacked])
        counts = torch.stack([(~rows.isnan()).sum() for rows in stacked])
        means = self._accelerator.reduce(sums, "sum") / self._accelerator.reduce(counts, "sum")
        found = {name: mean for name, mean in zip(self._rows, means.tolist(), strict=True) if not math.isnan(mean)}
        seconds = self._watch.seconds
        found["frames_per_second"] = round(self._frames / seconds, 1)
        # While the loop waits, a GPU may still be busy with what it was given: there it is idle for at most this share.
        found["data_wait"] = round(self._waited / seconds, 4)
        own = self._frames / self._accelerator.num_processes
        found["mfu"] = round(own * self._flops / seconds / self._peak, 4)
        self._clear()
        return found
