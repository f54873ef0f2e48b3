"""Diffusion Policy: visuomotor policy learning via action diffusion (Chi et al. 2023, arXiv 2303.04137).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, K noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import unknown_name
from embodied.policies.heads.chunks import ChunkHead, Sizes, Target, prepare, visible, weighted_mean
from embodied.policies.heads.networks.denoiser import SMALL_UNET, Network, build_denoiser
from embodied.policies.heads.networks.time_embedding import LevelEmbedding
from embodied.policies.heads.noise_schedule import NoiseSchedule, Prediction
from embodied.policies.heads.randomness import draw_normal, draw_uniform, dropout_from

Sampler = Literal["ddpm", "ddim"]
DDIM_STEPS = 10  # the paper's, for real robots


class DiffusionHead(ChunkHead):
    """A network learns the noise in noisy chunks (Eq. 5); from pure noise it denoises step by step (Eq. 4).

    Actions in [-1, 1], since the inferred clean ones are clipped there. Evaluate an average of the weights
    (`policies.heads.ema`), as the paper does. `sampler` and `sample_steps` may be set anew on a trained head: DDIM
    with 10 steps samples from weights trained for DDPM.

    Departures: padded steps count in no loss (there they are copies of the last action, and count); chunks begin at
    the present moment, there at the oldest one.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A. The paper executes the first 8 of 16.
        network: `unet` (DP-C) or `transformer` (DP-T, the paper's horizon there is 10).
        network_options: further arguments of `networks.unet.UNet` or `networks.denoising_transformer`'s class.
        levels: K.
        prediction: what the network gives, the noise or the clean actions.
        clip: of inferred clean actions; None for none.
        sampler: `ddpm` adds fresh noise at every step, `ddim` does not.
        sample_steps: None for K with `ddpm`, 10 with `ddim`.
    """

    bounded = True

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 2,
        horizon: int = 16,
        network: Network = "unet",
        network_options: Mapping[str, Any] | None = None,
        levels: int = 100,
        prediction: Prediction = "epsilon",
        clip: float | None = 1.0,
        sampler: Sampler = "ddpm",
        sample_steps: int | None = None,
    ) -> None:
        if sampler not in get_args(Sampler):
            raise unknown_name("sampler", sampler, get_args(Sampler))
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.schedule = NoiseSchedule(levels=levels, prediction=prediction, clip=clip)
        self.sampler = sampler
        if sample_steps is None:
            sample_steps = levels if sampler == "ddpm" else min(DDIM_STEPS, levels)
        self.sample_steps = sample_steps
        self.schedule.levels_down(self.sample_steps)  # refuses what cannot be sampled
        self.network = build_denoiser(network, network_options, head=self, embedding=LevelEmbedding)

    @classmethod
    def small(cls, *, history: int = 2, horizon: int = 16, **sizes: Unpack[Sizes]) -> DiffusionHead:
        """For CPUs: a U-Net of 64, 128, 256 channels and DDIM."""
        return cls(**sizes, history=history, horizon=horizon, network_options=SMALL_UNET, sampler="ddim")

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Mean squared error of the network at a random level per chunk."""
        actions = target.actions
        levels = self.schedule.levels
        t = draw_uniform((actions.shape[0],), generator, like=actions).mul(levels).long().clamp(max=levels - 1)
        noise = draw_normal(tuple(actions.shape), generator, like=actions)
        with dropout_from(generator if self.training else None, actions.device):
            loss = self.denoising_loss(features, actions, target.pad_mask, t, noise, action_mask=target.action_mask)
        return loss, {"denoising_error": loss.detach()}

    def denoising_loss(
        self,
        features: Float[Tensor, "B T V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        t: Tensor,
        noise: Float[Tensor, "B H A"],
        *,
        action_mask: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """Eq. (5) at given levels int64 [B] and noise."""
        actions, weight = prepare(self, actions, pad_mask, action_mask)
        noisy = visible(self.schedule.add_noise(actions, noise, t), action_mask)
        target = noise if self.schedule.prediction == "epsilon" else actions
        return weighted_mean((self.network(noisy, t, features) - target).square(), weight)

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, draws, H, A]: pure noise first; with `ddpm` then one for every step but the last, which adds none."""
        draws = self.sample_steps if self.sampler == "ddpm" else 1
        return (batch_size, draws, self.horizon, self.action_dim)

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """Eq. (4), `sample_steps` times."""
        steps = self.schedule.levels_down(self.sample_steps)
        x = visible(noise[:, 0], action_mask)
        for number, (t, after) in enumerate(steps, start=1):
            output = self.network(x, torch.full((x.shape[0],), t, device=x.device), features)
            if self.sampler == "ddim":
                x = self.schedule.ddim_step(output, x, t=t, after=after)
            else:
                fresh = noise[:, number] if after >= 0 else torch.zeros_like(x)
                x = self.schedule.ddpm_step(output, x, fresh, t=t, after=after)
            x = visible(x, action_mask)
        return x


HEAD = DiffusionHead
