"""Mixtures of diagonal Gaussians. Legend: M modes, K values of one draw (an action, or a whole chunk)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import Target
from embodied.policies.heads.randomness import choose


@dataclass(frozen=True)
class Mixture:
    """Logits of the modes, and mean and standard deviation of every mode."""

    logits: Float[Tensor, "*batch M"]
    means: Float[Tensor, "*batch M K"]
    stds: Float[Tensor, "*batch M K"]

    def log_prob(self, values: Float[Tensor, "*batch K"], weight: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
        """Log density over the values whose weight is 1; those with weight 0 are integrated out."""
        distance = (values[..., None, :] - self.means) / self.stds
        density = -0.5 * distance.square() - self.stds.log() - 0.5 * math.log(2 * math.pi)  # (*batch, M, K)
        modes = (density * weight[..., None, :]).sum(dim=-1)  # (*batch, M)
        # Not by log_softmax: this way nothing to explain is exactly 0 nats.
        return torch.logsumexp(self.logits + modes, dim=-1) - torch.logsumexp(self.logits, dim=-1)

    def draw(self, noise: Float[Tensor, "*batch N"], *, std: float | None = None) -> Float[Tensor, "*batch K"]:
        """One draw from N = 1 + K standard normal values: the first picks the mode, the others spread around its mean.

        Args:
            std: in place of the modes' own.
        """
        mode = choose(self.logits.softmax(dim=-1), noise[..., 0])
        index = mode[..., None, None].expand(*mode.shape, 1, self.means.shape[-1])
        mean = self.means.gather(-2, index).squeeze(-2)
        spread = self.stds.gather(-2, index).squeeze(-2) if std is None else std
        return mean + spread * noise[..., 1:]


class MixtureLayer(nn.Module):
    """Linear maps to the parameters of a mixture: means in (-1, 1) by tanh, deviations by softplus plus `min_std`.

    Source: Mandlekar et al. 2021 (https://arxiv.org/abs/2108.03298), robomimic `GMMActorNetwork`.
    """

    def __init__(self, *, width: int, values: int, modes: int, min_std: float) -> None:
        super().__init__()
        if modes < 1:
            raise UsageError(f"modes must be at least 1, got {modes}")
        self.shape = (modes, values)
        self.min_std = min_std
        self.mean, self.scale = nn.Linear(width, modes * values), nn.Linear(width, modes * values)
        self.logit = nn.Linear(width, modes)

    def forward(self, inputs: Float[Tensor, "*batch D"]) -> Mixture:
        means = self.mean(inputs).unflatten(-1, self.shape).tanh()
        stds = F.softplus(self.scale(inputs).unflatten(-1, self.shape)) + self.min_std
        return Mixture(self.logit(inputs), means, stds)


def nats_per_step(likelihood: Float[Tensor, "*batch"], target: Target) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The loss of a mixture and its metric: minus the sum of log densities, over the number of real steps."""
    loss = -likelihood.sum() / target.pad_mask.sum().clamp(min=1)
    return loss, {"nats_per_step": loss.detach()}
