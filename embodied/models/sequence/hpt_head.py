"""HPT's head for one embodiment. Legend: B batch, V values of a feature, H chunk, A action."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.models.block import initialize


class RegressionHead(nn.Module):
    """The authors' MLP: 256 and 128 wide, SiLU, dropout and layer norm after the second layer, tanh at the end.

    An `ActionHead` that draws nothing but dropout. The loss is smooth L1 with beta 0.05 on actions within [-1, 1].

    Args:
        feature_dim: V.
        action_dim: A.
        horizon: H.
    """

    history, bounded, beta = 1, True, 0.05

    def __init__(self, *, feature_dim: int, action_dim: int, horizon: int) -> None:
        super().__init__()
        self.feature_dim, self.action_dim, self.horizon = feature_dim, action_dim, horizon
        self.first = nn.Linear(feature_dim, 256)
        self.second, self.norm = nn.Linear(256, 128), nn.LayerNorm(128)
        self.last = nn.Linear(128, horizon * action_dim)
        initialize(self)

    def noise_shape(self, batch_size: int) -> None:
        """Nothing is drawn."""

    def sample(
        self,
        features: Float[Tensor, "B 1 V"],
        *,
        action_mask: Bool[Tensor, "*B A"] | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Normalised actions; `noise` and `generator` are of no use."""
        hidden = F.dropout(self.second(F.silu(self.first(features[:, -1]))), 0.1, self.training)
        chunk = self.last(F.silu(self.norm(hidden))).unflatten(-1, (self.horizon, self.action_dim)).tanh()
        return chunk if action_mask is None else chunk * action_mask.unsqueeze(-2)

    def loss(
        self,
        features: Float[Tensor, "B 1 V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        *,
        action_mask: Bool[Tensor, "*B A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The mean over windows of the mean over what is real of each; dropout draws from the global state."""
        error = F.smooth_l1_loss(self.sample(features).float(), actions, beta=self.beta, reduction="none")
        real = pad_mask[..., None].expand_as(error)
        if action_mask is not None:
            real = real & action_mask.unsqueeze(-2)
        total = torch.where(real, error, torch.zeros_like(error)).sum(dim=(1, 2))
        return (total / real.sum(dim=(1, 2)).clamp(min=1)).mean(), {}
