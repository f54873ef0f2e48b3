"""BC-GMM: a mixture of Gaussians over the chunk (Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, M modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import ChunkHead, Target
from embodied.policies.heads.mixture import Mixture, MixtureLayer, nats_per_step
from embodied.policies.heads.networks.feedforward import feedforward


class GMMHead(ChunkHead):
    """An MLP gives one mixture per chunk; training minimises its negative log-likelihood. Actions in [-1, 1].

    A mode is a whole chunk, as in HPT's GMM head: with modes per step, successive steps of one chunk would come from
    different modes. With `horizon=1` this is robomimic's BC-GMM.

    Departures: the loss uses the learned deviations in eval mode too (robomimic evaluates it at 1e-4 there), and is
    nats per real step, so that its scale does not depend on the horizon.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        hidden: widths of the MLP.
        modes: M.
        min_std: smallest deviation while training. 1e-4 is the published runs' setting; robomimic's class has 0.01.
        low_noise_eval: samples spread by 1e-4 around the mode they picked instead of by its deviation.
    """

    bounded = True

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 1,
        hidden: Sequence[int] = (1024, 1024),
        modes: int = 5,
        min_std: float = 1e-4,
        low_noise_eval: bool = True,
    ) -> None:
        if not hidden:
            raise UsageError("hidden must name at least one width, got none")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.low_noise_std = 1e-4 if low_noise_eval else None
        self.trunk = nn.Sequential(feedforward((history * feature_dim, *hidden)), nn.ReLU())
        self.mixture = MixtureLayer(width=hidden[-1], values=horizon * action_dim, modes=modes, min_std=min_std)

    def forward(self, features: Float[Tensor, "B T V"]) -> Mixture:
        """The mixture over flattened chunks [B, H * A]."""
        return self.mixture(self.trunk(features.flatten(1)))

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Negative log-likelihood of what is real, in nats per step."""
        likelihood = self(features).log_prob(target.actions.flatten(1), target.weight.flatten(1))  # (B)
        return nats_per_step(likelihood, target)

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, 1 + H * A]: the choice of the mode, then the spread."""
        return (batch_size, 1 + self.horizon * self.action_dim)

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """One draw; not clipped to [-1, 1]."""
        drawn = self(features).draw(noise, std=self.low_noise_std)  # (B, H * A)
        return drawn.unflatten(1, (self.horizon, self.action_dim))


HEAD = GMMHead
