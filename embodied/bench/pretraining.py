"""What a pre-training leaves for people: pictures of what it predicts, and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embodied.bench.plots import save_image_grid
from embodied.core.run_folder import versions
from embodied.core.seeding import numpy_generator, torch_generator
from embodied.datasets.loading.frames import FrameDataset

PICTURES = 8


def draw_reconstructions(objective: nn.Module, frames: FrameDataset, path: Path, *, seed: int) -> None:
    """A PNG with the rows of `objective.reconstruct` for a few frames."""
    chosen = numpy_generator(seed, "pictures").choice(len(frames), size=min(PICTURES, len(frames)), replace=False)
    device = next(objective.parameters()).device
    batch = torch.from_numpy(frames.read(np.sort(chosen))).to(device)
    objective.eval()
    rows = objective.reconstruct(batch, torch_generator(seed, "pictures"))  # type: ignore[operator]
    save_image_grid([row.cpu().numpy() for row in rows], path)


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
    end = ", ".join(f"{name} {value:.5g}" for name, value in last.items() if name not in ("frames_per_second", "mfu"))
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
