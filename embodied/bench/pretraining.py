"""What a pre-training leaves for people: pictures of what it predicts, and the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from embodied.bench.plots import save_image_grid
from embodied.core.run_folder import versions
from embodied.core.seeding import torch_generator
from embodied.datasets.loading.frame_batches import IMAGES, PARTNERS
from embodied.datasets.loading.frames import FrameDataset
from embodied.training.batches import Batch, batches_for, to_tensors

PICTURES = 8
PANEL = "reconstructions"  # of their files, in plots/


def picture_batch(objective: nn.Module, frames: FrameDataset, *, seed: int, only: np.ndarray | None = None) -> Batch:
    """A few frames as the objective asks for them, `images` uint8 [F, S, S, 3], the same every time.

    Args:
        objective: which may want partners.
        frames: the data.
        seed: of the choice.
        only: frames to choose from, bool [N]; None: all.

    Raises:
        UsageError: the data lack what the objective asks for.
    """
    return batches_for(objective, frames, batch_size=1, seed=seed, only=only).sample(PICTURES)


def draw_reconstructions(objective: nn.Module, batch: Batch, path: Path, *, seed: int) -> None:
    """A PNG with the rows of `objective.reconstruct`; the objective is in eval mode.

    Args:
        objective: gets the `images` of the batch, and where it has a `pairing` also the `partners`.
        batch: see `picture_batch`.
        path: of the PNG.
        seed: of masks.
    """
    assert not objective.training
    tensors = to_tensors(batch, slice(None), next(objective.parameters()).device)
    pair = {PARTNERS: tensors[PARTNERS]} if PARTNERS in tensors else {}
    rows = objective.reconstruct(tensors[IMAGES], torch_generator(seed, "pictures"), **pair)  # type: ignore[operator]
    save_image_grid([row.cpu().numpy() for row in rows], path)


class Panels:
    """A `training.pretrain.Monitor`: `reconstructions_<step>.png`, of the same frames and masks every time.

    Args:
        batch: see `picture_batch`.
        folder: where the pictures go.
        every: steps.
        seed: of the masks.
        show: is told the step and the file of each.
    """

    def __init__(self, batch: Batch, folder: Path, *, every: int, seed: int, show: Callable[[int, Path], None]) -> None:
        self.every = every
        self._batch, self._folder, self._seed, self._show = batch, folder, seed, show

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Draws; there is nothing to log."""
        path = self._folder / f"{PANEL}_{step:06d}.png"
        draw_reconstructions(objective, self._batch, path, seed=self._seed)
        self._show(step, path)
        return {}


def model_card(
    *,
    objective: str,
    encoder: Mapping[str, Any],
    command: str,
    config_yaml: str,
    data: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    seconds: float,
) -> str:
    """The README.md of an encoder artifact: objective, data, command, measured end of the training."""
    sources = "\n".join(
        f"| {row['kind']} | {Path(str(row['name'])).name} | {row['frames']} | `{str(row['fingerprint'])[:12]}` |"
        for row in data
    )
    last: dict[str, Any] = {}  # a monitor's values are a record of their own, after the loss of the same step
    for record in metrics:
        last |= record if record["step"] == metrics[-1]["step"] else {}
    speed = ("frames_per_second", "mfu", "data_wait")
    end = ", ".join(f"{name} {value:.5g}" for name, value in last.items() if name not in speed)
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"""# Encoder pre-trained by embodied

- **Objective:** `{objective}`
- **Architecture:** {", ".join(f"{name} {value}" for name, value in encoder.items())}
- **Frames:** {sum(int(row["frames"]) for row in data)}
- **End of training:** {end}
- **Time:** {seconds:.0f} s
- **Versions:** {installed}

Load it with `embodied.load_encoder("<this folder>")`, or `embodied train encoder=path=<this folder>`.
It takes uint8 frames through its own `preprocess`; weights are safetensors, nothing is unpickled.

## Command

    {command}

## Data

| kind | name | frames | fingerprint |
| --- | --- | --- | --- |
{sources}

## Configuration

```yaml
{config_yaml.strip()}
```
"""
