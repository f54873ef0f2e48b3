"""Every action dimension as a choice among bins (RT-1, Brohan et al. 2022, https://arxiv.org/abs/2212.06817; OpenVLA,
Kim et al. 2024, https://arxiv.org/abs/2406.09246).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, C bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.heads.chunks import ChunkHead, Target, weighted_mean
from embodied.policies.heads.networks.feedforward import feedforward
from embodied.policies.heads.randomness import choose

Decode = Literal["argmax", "expectation", "sample"]


class BinsHead(ChunkHead):
    """An MLP gives a distribution over C equal bins of [-1, 1] for every step and dimension, trained by cross entropy.

    Actions in [-1, 1], outside they count as the outermost bin. Dimensions and steps are independent given the
    features, so with `sample` the modes of a distribution may mix across them; the papers decode one after the other.

    256 bins have 257 edges and 256 centres here. OpenVLA's "256 bins" are 256 edges, so 255 bins with 255 centres:
    `bins=255` gives its codes.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        bins: C.
        hidden: widths of the MLP.
        decode: centre of the likeliest bin, mean of the centres, or the centre of a bin drawn by its probability.
    """

    bounded = True

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 1,
        bins: int = 256,
        hidden: Sequence[int] = (512, 512),
        decode: Decode = "argmax",
    ) -> None:
        if decode not in get_args(Decode):
            raise unknown_name("decode", decode, get_args(Decode))
        if bins < 2:
            raise UsageError(f"bins must be at least 2, got {bins}")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.bins, self.decode = bins, decode
        self.network = feedforward((history * feature_dim, *hidden, horizon * action_dim * bins))
        edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)
        self.inner_edges: Tensor
        self.register_buffer("inner_edges", edges[1:-1].float(), persistent=False)
        self.centres: Tensor
        self.register_buffer("centres", ((edges[:-1] + edges[1:]) / 2).float(), persistent=False)

    def encode(self, actions: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The bin of every action, 0..C-1; an action on an edge belongs to the bin above it."""
        return torch.bucketize(actions, self.inner_edges, right=True)

    def forward(self, features: Float[Tensor, "B T V"]) -> Float[Tensor, "B H A C"]:
        """Logits of the bins."""
        return self.network(features.flatten(1)).unflatten(1, (self.horizon, self.action_dim, self.bins))

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Cross entropy, mean over what is real. Nothing is drawn."""
        logits, bins = self(features), self.encode(target.actions)
        error = F.cross_entropy(logits.flatten(0, 2), bins.flatten(), reduction="none").view_as(target.actions)
        hit = (logits.detach().argmax(dim=-1) == bins).to(error.dtype)
        return weighted_mean(error, target.weight), {"bin_accuracy": weighted_mean(hit, target.weight)}

    def noise_shape(self, batch_size: int) -> tuple[int, ...] | None:
        """[B, H, A] with `decode="sample"`, else None."""
        return (batch_size, self.horizon, self.action_dim) if self.decode == "sample" else None

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """Centres of bins (means of them with `decode="expectation"`)."""
        logits = self(features)
        if self.decode == "expectation":
            return logits.softmax(dim=-1) @ self.centres
        if self.decode == "argmax":
            return self.centres[logits.argmax(dim=-1)]
        return self.centres[choose(logits.softmax(dim=-1), noise)]


HEAD = BinsHead
