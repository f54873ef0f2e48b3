"""Flow matching of chunks, as pi0 does it (Black et al. 2024, https://arxiv.org/abs/2410.24164).

Rectified flow (Liu et al. 2023, arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747): on the straight line between
noise and actions the velocity is constant, and a network learns its mean.

Direction of time: tau = 1 is noise, tau = 0 the actions, as in pi0's released code and LeRobot. The paper and GR00T run
the other way, so their velocities have the opposite sign.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.heads.chunks import ChunkHead, Sizes, Target, prepare, visible, weighted_mean
from embodied.policies.heads.networks.denoiser import SMALL_UNET, Network, build_denoiser
from embodied.policies.heads.networks.time_embedding import TimeEmbedding
from embodied.policies.heads.randomness import draw_normal, draw_uniform, dropout_from

Times = Literal["beta", "uniform"]


class FlowHead(ChunkHead):
    """x_tau = tau * noise + (1 - tau) * actions; the network learns noise - actions; Euler steps go from 1 to 0.

    Departure: the network is a U-Net or a transformer on fused features, not an expert inside a language model.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        network: `unet` or `transformer`.
        network_options: further arguments of `networks.unet.UNet` or `networks.denoising_transformer`'s class.
        times: how tau is drawn: `beta` is 0.001 + 0.999 Beta(1.5, 1), more often near the noise (pi0); or `uniform`.
        sample_steps: Euler steps, pi0's 10; may be set anew on a trained head.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 16,
        network: Network = "unet",
        network_options: Mapping[str, Any] | None = None,
        times: Times = "beta",
        sample_steps: int = 10,
    ) -> None:
        if times not in get_args(Times):
            raise unknown_name("times", times, get_args(Times))
        if sample_steps < 1:
            raise UsageError(f"sample_steps must be at least 1, got {sample_steps}")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.times, self.sample_steps = times, sample_steps
        self.network = build_denoiser(network, network_options, head=self, embedding=TimeEmbedding)

    @classmethod
    def small(cls, *, history: int = 1, horizon: int = 16, **sizes: Unpack[Sizes]) -> FlowHead:
        """For CPUs: a U-Net of 64, 128, 256 channels."""
        return cls(**sizes, history=history, horizon=horizon, network_options=SMALL_UNET)

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Mean squared error of the velocity at a random time per chunk."""
        actions = target.actions
        tau = draw_uniform((actions.shape[0],), generator, like=actions)
        if self.times == "beta":
            tau = 0.001 + 0.999 * tau.pow(1 / 1.5)  # the distribution function of Beta(1.5, 1) is x^1.5
        noise = draw_normal(tuple(actions.shape), generator, like=actions)
        with dropout_from(generator if self.training else None, actions.device):
            loss = self.velocity_loss(features, actions, target.pad_mask, tau, noise, action_mask=target.action_mask)
        return loss, {"velocity_error": loss.detach()}

    def velocity_loss(
        self,
        features: Float[Tensor, "B T V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        tau: Float[Tensor, " B"],
        noise: Float[Tensor, "B H A"],
        *,
        action_mask: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss at given times and noise."""
        actions, weight = prepare(self, actions, pad_mask, action_mask)
        place = tau[:, None, None]
        x = visible(place * noise + (1 - place) * actions, action_mask)
        return weighted_mean((self.network(x, tau, features) - (noise - actions)).square(), weight)

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, H, A]."""
        return (batch_size, self.horizon, self.action_dim)

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """`sample_steps` Euler steps from noise to actions; not clipped."""
        x = visible(noise, action_mask)
        for step in range(self.sample_steps):
            tau = torch.full((x.shape[0],), 1 - step / self.sample_steps, device=x.device, dtype=x.dtype)
            x = visible(x - self.network(x, tau, features) / self.sample_steps, action_mask)
        return x


HEAD = FlowHead
