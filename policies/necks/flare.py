"""Frame differences. Legend: B batch, T moments, V values of a moment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Flare(nn.Module):
    """Every moment but the last is replaced by the change to the one after it: [e1-e0, e2-e1, ..., e_last].

    Source: Shang et al. 2021 (Flare, arXiv 2101.01857), as CortexBench fuses history (eai-vc
    `fuse_embeddings_flare`).

    Args:
        width: V.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.output_dim = width

    def forward(self, features: Float[Tensor, "B T V"]) -> Float[Tensor, "B T V"]:
        return torch.cat([features[:, 1:] - features[:, :-1], features[:, -1:]], dim=1)


def flare(features: Float[Tensor, "B T V"]) -> Float[Tensor, "B TV"]:
    """`Flare`, flattened."""
    return Flare(width=features.shape[-1])(features).flatten(1)


NECK = Flare
READS_VECTORS = FUSES_HISTORY = True
