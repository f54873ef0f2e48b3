"""BC-GMM: a mixture of Gaussians over the chunk (Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, M modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import check_features, check_sizes, prepare, visible
from embodied.policies.heads.mixture import Mixture, MixtureLayer
from embodied.policies.heads.networks.feedforward import feedforward
from embodied.policies.heads.randomness import given_or_drawn


class GMMHead(nn.Module):
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
        super().__init__()
        if not hidden:
            raise UsageError("hidden must name at least one width, got none")
        self.feature_dim, self.history, self.horizon, self.action_dim = feature_dim, history, horizon, action_dim
        check_sizes(self)
        self.low_noise_std = 1e-4 if low_noise_eval else None
        self.trunk = nn.Sequential(feedforward((history * feature_dim, *hidden)), nn.ReLU())
        self.mixture = MixtureLayer(width=hidden[-1], values=horizon * action_dim, modes=modes, min_std=min_std)

    def forward(self, features: Float[Tensor, "B T V"]) -> Mixture:
        """The mixture over flattened chunks [B, H * A]."""
        check_features(self, features)
        return self.mixture(self.trunk(features.flatten(1)))

    def loss(
        self,
        features: Float[Tensor, "B T V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        *,
        action_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Negative log-likelihood of what is real, in nats per step; see `core.protocols.ActionHead`."""
        actions, weight = prepare(self, actions, pad_mask, action_mask)
        likelihood = self(features).log_prob(actions.flatten(1), weight.flatten(1))  # (B)
        loss = -likelihood.sum() / pad_mask.sum().clamp(min=1)
        return loss, {"nats_per_step": loss.detach()}

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, 1 + H * A]: the choice of the mode, then the spread."""
        return (batch_size, 1 + self.horizon * self.action_dim)

    def sample(
        self,
        features: Float[Tensor, "B T V"],
        *,
        action_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """One draw; not clipped to [-1, 1]."""
        mixture = self(features)
        noise = given_or_drawn(noise, self.noise_shape(len(features)), generator, like=features)
        chunk = mixture.draw(noise, std=self.low_noise_std).unflatten(1, (self.horizon, self.action_dim))
        return visible(chunk, action_mask)


HEAD = GMMHead
