"""Every action dimension as a choice among bins (RT-1, Brohan et al. 2022, https://arxiv.org/abs/2212.06817; OpenVLA,
Kim et al. 2024, https://arxiv.org/abs/2406.09246).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, C bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.heads.chunks import check_features, check_sizes, prepare, visible, weighted_mean
from embodied.policies.heads.networks.feedforward import feedforward
from embodied.policies.heads.randomness import choose, given_or_drawn

Decode = Literal["argmax", "expectation", "sample"]


class BinsHead(nn.Module):
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
        super().__init__()
        if decode not in get_args(Decode):
            raise unknown_name("decode", decode, get_args(Decode))
        if bins < 2:
            raise UsageError(f"bins must be at least 2, got {bins}")
        self.feature_dim, self.history, self.horizon, self.action_dim = feature_dim, history, horizon, action_dim
        check_sizes(self)
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
        check_features(self, features)
        return self.network(features.flatten(1)).unflatten(1, (self.horizon, self.action_dim, self.bins))

    def loss(
        self,
        features: Float[Tensor, "B T V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        *,
        action_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Cross entropy, mean over what is real; see `core.protocols.ActionHead`. Nothing is drawn."""
        actions, weight = prepare(self, actions, pad_mask, action_mask)
        logits, target = self(features), self.encode(actions)
        error = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(actions)
        hit = (logits.detach().argmax(dim=-1) == target).to(error.dtype)
        return weighted_mean(error, weight), {"bin_accuracy": weighted_mean(hit, weight)}

    def noise_shape(self, batch_size: int) -> tuple[int, ...] | None:
        """[B, H, A] with `decode="sample"`, else None."""
        return (batch_size, self.horizon, self.action_dim) if self.decode == "sample" else None

    def sample(
        self,
        features: Float[Tensor, "B T V"],
        *,
        action_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Centres of bins (means of them with `decode="expectation"`)."""
        logits = self(features)
        if self.decode == "expectation":
            return visible(logits.softmax(dim=-1) @ self.centres, action_mask)
        if self.decode == "argmax":
            return visible(self.centres[logits.argmax(dim=-1)], action_mask)
        shape = (len(features), self.horizon, self.action_dim)
        noise = given_or_drawn(noise, shape, generator, like=features)
        return visible(self.centres[choose(logits.softmax(dim=-1), noise)], action_mask)


HEAD = BinsHead
