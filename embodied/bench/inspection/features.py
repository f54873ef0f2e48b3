"""What an encoder gives for the frames of a sample. Legend: F frames, N tokens, D width, V values of an output."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UserError
from embodied.encoders.pixels import PixelEncoder
from embodied.models.patches import patchify
from embodied.objectives.parts.targets import FLAT_VARIANCE

BATCH = 32
CELLS = 4  # tokens are averaged in a grid of this many rows and columns
COARSE = f"tokens {CELLS}x{CELLS}"
LOOKED_AT = 64  # frames for what is the same in any: flat patches, cosines of patches
_REPEATS = 5


def device_of(encoder: nn.Module) -> torch.device:
    """Where its weights are; an encoder without weights computes anywhere."""
    return next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))


@torch.no_grad()  # not inference_mode: what a module keeps of a pass must serve in training too (see `monitor`)
def read_features(encoder: nn.Module, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Per output float32 [F, V] for uint8 frames [F, H, W, 3].

    `pooled`, `cls` where there is one, and `tokens 4x4`: the tokens averaged in the cells of a coarse grid, side by
    side, which keeps where something is.

    Raises:
        UserError: the encoder has no output `pooled`.
    """
    found: dict[str, list[Tensor]] = {}
    for first in range(0, len(frames), BATCH):
        tokens, out = _forward(encoder, frames[first : first + BATCH])
        if "pooled" not in out:
            raise UserError(
                f"{type(encoder).__name__} gives no output `pooled` (it gives {', '.join(out) or 'none'}): an encoder "
                "returns its tokens and a dict with `pooled` [B, V], see docs/encoders.md"
            )
        outputs: dict[str, Tensor] = {name: out[name] for name in ("pooled", "cls") if name in out}
        outputs[COARSE] = F.adaptive_avg_pool2d(as_map(tokens, encoder), CELLS).flatten(1)
        for name, values in outputs.items():
            found.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(values).numpy() for name, values in found.items()}


@torch.no_grad()
def read_tokens(encoder: nn.Module, frames: np.ndarray) -> np.ndarray:
    """Patch tokens float32 [F, N, D]."""
    parts = [_forward(encoder, frames[first : first + BATCH])[0] for first in range(0, len(frames), BATCH)]
    return torch.cat([part.float().cpu() for part in parts]).numpy()


def raw_pixels(frames: np.ndarray) -> np.ndarray:
    """The baseline: 16x16 pixels, float32 [F, 768]."""
    return read_features(PixelEncoder(), frames)["pooled"]


def as_map(tokens: Tensor, encoder: nn.Module) -> Tensor:
    """Tokens [B, N, D] as [B, D, rows, columns]."""
    return tokens.transpose(1, 2).unflatten(2, encoder.grid)


@torch.no_grad()
def flat_patches(encoder: nn.Module, frames: np.ndarray) -> float | None:
    """The share of patches that show one colour and nothing else, of a table, say.

    None where the encoder has no square patches of pixels. An objective's `flat_patches` counts less: patches that
    its per-patch normalisation makes noise of, which one of a colour other than grey is not.
    """
    images = encoder.preprocess(torch.from_numpy(frames).to(device_of(encoder)))  # type: ignore[operator]
    rows, columns = encoder.grid  # type: ignore[misc]
    height, width = images.shape[-2:]
    side = height // rows
    if side < 2 or height % rows or width % columns or width // columns != side:
        return None
    patches = patchify(images, side).unflatten(-1, (side * side, -1))  # (F, N, PP, 3)
    # By channel: the mean and standard deviation that a colour is normalised with differ between channels.
    return float((patches.var(dim=2, unbiased=False).mean(dim=-1) < FLAT_VARIANCE).float().mean())


@torch.no_grad()
def seconds_per_frame(encoder: nn.Module, frames: np.ndarray) -> Mapping[int, float]:
    """By size of the batch, preprocessing included: the median of a few tries, one of which warms up."""
    found = {}
    for size in sorted({1, min(BATCH, len(frames))}):
        taken = []
        for _ in range(_REPEATS + 1):
            start = perf_counter()
            _forward(encoder, frames[:size])[0].float().cpu()  # waits for the device
            taken.append(perf_counter() - start)
        found[size] = float(np.median(taken[1:])) / size
    return found


def _forward(encoder: nn.Module, frames: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
    batch = torch.from_numpy(np.ascontiguousarray(frames)).to(device_of(encoder))
    return encoder(encoder.preprocess(batch))  # type: ignore[operator]
