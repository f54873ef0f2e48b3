"""ACT: learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al. 2023, arXiv 2304.13705).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, D width, Z latent.
"""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import ChunkHead, Sizes, Target, weighted_mean
from embodied.policies.heads.networks.detr import DecoderLayer, EncoderLayer, interleaved_sincos
from embodied.policies.heads.randomness import draw_normal, dropout_from


class ACTHead(ChunkHead):
    """A conditional VAE over chunks: its encoder sees the demonstrated chunk and gives the style z, its decoder is a
    transformer from z and the features to the chunk. At test time z = 0, so one input has one answer.

    Combine it with `policies.heads.temporal_ensemble`. Each moment is one token; the paper has one per image patch.

    Departures:
        - the VAE encoder is conditioned on the present moment's features, in the paper on the joint positions
        - the decoder has one layer: the released code sets 7 and reads the first
        - the L1 error is a mean over real steps; the released code divides by padded ones too

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        width: D.
        heads: attention heads, a divisor of D.
        hidden: units of the MLPs.
        encoder_layers, decoder_layers, vae_layers: depths of the two parts of the decoder and of the VAE's encoder.
        latent_dim: Z.
        kl_weight: of the KL divergence, summed over Z, against the L1 error.
        dropout: in every layer.
        sample_prior: draw z from its prior when sampling, instead of 0.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 100,
        width: int = 512,
        heads: int = 8,
        hidden: int = 3200,
        encoder_layers: int = 4,
        decoder_layers: int = 1,
        vae_layers: int = 4,
        latent_dim: int = 32,
        kl_weight: float = 10.0,
        dropout: float = 0.1,
        sample_prior: bool = False,
    ) -> None:
        if width % heads:
            raise UsageError(f"width must be a multiple of heads={heads}, got {width}")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.latent_dim, self.kl_weight, self.sample_prior = latent_dim, kl_weight, sample_prior
        encoder = partial(EncoderLayer, width, heads, hidden=hidden, dropout=dropout)
        decoder = partial(DecoderLayer, width, heads, hidden=hidden, dropout=dropout)
        self.vae_class = nn.Parameter(torch.randn(1, 1, width))
        self.vae_condition, self.vae_actions = nn.Linear(feature_dim, width), nn.Linear(action_dim, width)
        self.vae_layers = nn.ModuleList(encoder() for _ in range(vae_layers))
        self.vae_latent = nn.Linear(width, 2 * latent_dim)
        self.vae_positions: Tensor
        self.register_buffer("vae_positions", interleaved_sincos(2 + horizon, width)[None], persistent=False)
        self.latent, self.moments = nn.Linear(latent_dim, width), nn.Linear(feature_dim, width)
        self.memory_positions = nn.Parameter(torch.randn(1, 1 + history, width))
        self.encoder = nn.ModuleList(encoder() for _ in range(encoder_layers))
        self.queries = nn.Parameter(torch.randn(1, horizon, width))
        self.decoder = nn.ModuleList(decoder() for _ in range(decoder_layers))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, action_dim)
        _xavier(self.encoder, self.decoder)

    @classmethod
    def small(cls, *, history: int = 1, horizon: int = 16, **sizes: Unpack[Sizes]) -> ACTHead:
        """For CPUs: width 128, two layers everywhere but in the decoder."""
        return cls(
            **sizes,
            history=history,
            horizon=horizon,
            width=128,
            heads=4,
            hidden=512,
            encoder_layers=2,
            vae_layers=2,
        )

    def posterior(
        self, features: Float[Tensor, "B T V"], actions: Float[Tensor, "B H A"], pad_mask: Bool[Tensor, "B H"]
    ) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Mean and log variance of z given a chunk; padded steps are not attended to."""
        batch = features.shape[0]
        condition, steps = self.vae_condition(features[:, -1:]), self.vae_actions(actions)
        tokens = torch.cat([self.vae_class.expand(batch, -1, -1), condition, steps], dim=1)  # (B, 2 + H, D)
        hidden = torch.cat([pad_mask.new_zeros(batch, 2), ~pad_mask], dim=1)
        for layer in self.vae_layers:
            tokens = layer(tokens, self.vae_positions, hidden)
        mean, log_variance = self.vae_latent(tokens[:, 0]).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, features: Float[Tensor, "B T V"], z: Float[Tensor, "B Z"]) -> Float[Tensor, "B H A"]:
        """The chunk that features and style ask for."""
        memory = torch.cat([self.latent(z)[:, None], self.moments(features)], dim=1)  # (B, 1 + T, D)
        for layer in self.encoder:
            memory = layer(memory, self.memory_positions, None)
        steps = memory.new_zeros(memory.shape[0], self.horizon, memory.shape[-1])
        for layer in self.decoder:
            steps = layer(steps, self.queries, memory, self.memory_positions)
        return self.last(self.norm(steps))

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """L1 error with z from its posterior, plus the weighted KL divergence."""
        actions = target.actions
        noise = draw_normal((actions.shape[0], self.latent_dim), generator, like=actions)
        with dropout_from(generator if self.training else None, actions.device):
            mean, log_variance = self.posterior(features, actions, target.pad_mask)
            predicted = self.decode(features, mean + (log_variance / 2).exp() * noise)
        error = weighted_mean((predicted - actions).abs(), target.weight)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)  # (B)
        kl = weighted_mean(kl, target.real.to(kl.dtype))
        return error + self.kl_weight * kl, {"action_error": error.detach(), "kl": kl.detach()}

    def noise_shape(self, batch_size: int) -> tuple[int, ...] | None:
        """None, or [B, Z] with `sample_prior`."""
        return (batch_size, self.latent_dim) if self.sample_prior else None

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """The chunk of z = 0, or of a z from the prior."""
        z = noise if self.sample_prior else features.new_zeros(features.shape[0], self.latent_dim)
        return self.decode(features, z)


def _xavier(*modules: nn.Module) -> None:
    """The released code's initialisation of matrices, in-projections of attention as one."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)


HEAD = ACTHead
