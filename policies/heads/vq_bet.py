"""VQ-BeT: behavior generation with latent actions (Lee et al. 2024, https://arxiv.org/abs/2403.03181).

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, D width of the GPT,
G quantisers, C codes of each.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple, Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.heads.chunks import ChunkHead, Sizes, Target, weighted_mean
from embodied.policies.heads.networks.feedforward import feedforward
from embodied.policies.heads.networks.gpt import GPT
from embodied.policies.heads.networks.residual_vq import ResidualVQ
from embodied.policies.heads.randomness import choose, draw_normal, dropout_from

logger = logging.getLogger(__name__)
OffsetCodes = Literal["sampled", "demonstrated"]
COMMITMENT_WEIGHT = 5.0  # of the released code


class Prediction(NamedTuple):
    """Logits of the codes float [B, G, C], drawn codes int64 [B, G], and their chunk with its offset [B, H, A]."""

    logits: Tensor
    codes: Tensor
    chunk: Tensor


class VQBeTHead(ChunkHead):
    """First a residual VQ-VAE learns to write a chunk as G codes; then it is frozen, and a GPT that reads the moments
    and a query token predicts the codes, and for every code an offset to the chunk they decode to.

    `loss` is the VQ-VAE's for its first `codebook_steps` calls in train mode and the GPT's afterwards; the count is in
    the state dict, so a resumed run goes on in its phase. Any training loop serves both phases.

    Departures:
        - the query token stands once, after the last moment, since only the present chunk has a target here; in the
          paper every moment of the window predicts its own
        - the offsets of the demonstrated chunk's codes are trained, as in BeT (https://arxiv.org/abs/2206.11251). The
          released code trains those of drawn codes (`offset_codes="sampled"`): where demonstrations disagree, a drawn
          code is often another mode than the target, and its offset learns to pull it between the modes
        - codes start at the first batch, see `ResidualVQ`

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        codes: C.
        code_weights: of the code losses, the primary quantiser first; there are G of them.
        latent_dim: width of a code.
        vq_hidden: units of the two hidden layers of the VQ-VAE's encoder and decoder.
        codebook_steps: updates of the VQ-VAE before the GPT's begin.
        width, depth, heads, dropout: of the GPT.
        offset_weight: of the L1 error of the chunk: 100 for Franka Kitchen, 10 for PushT, 0.1 for the ant.
        offset_codes: whose offsets the L1 error trains.
        gamma: of the focal loss.
        temperature: of the softmax that codes are drawn from.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 10,
        horizon: int = 5,
        codes: int = 16,
        code_weights: Sequence[float] = (5.0, 0.5),
        latent_dim: int = 512,
        vq_hidden: int = 128,
        codebook_steps: int = 20_000,
        width: int = 120,
        depth: int = 6,
        heads: int = 6,
        dropout: float = 0.1,
        offset_weight: float = 100.0,
        offset_codes: OffsetCodes = "demonstrated",
        gamma: float = 2.0,
        temperature: float = 0.1,
    ) -> None:
        if offset_codes not in get_args(OffsetCodes):
            raise unknown_name("offset_codes", offset_codes, get_args(OffsetCodes))
        if not code_weights:
            raise UsageError("code_weights must name at least one quantiser, got none")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.code_weights, self.offset_weight, self.offset_codes = tuple(code_weights), offset_weight, offset_codes
        self.gamma, self.temperature, self.codebook_steps = gamma, temperature, codebook_steps
        chunk, groups = horizon * action_dim, len(self.code_weights)
        self.encoder = feedforward((chunk, vq_hidden, vq_hidden, latent_dim))
        self.quantizer = ResidualVQ(quantizers=groups, codes=codes, width=latent_dim)
        self.decoder = feedforward((latent_dim, vq_hidden, vq_hidden, chunk))
        self.moments, self.query = nn.Linear(feature_dim, width), nn.Parameter(torch.randn(1, 1, width))
        self.gpt = GPT(tokens=history + 1, width=width, depth=depth, heads=heads, dropout=dropout)
        self.code_shape, self.offset_shape = (groups, codes), (groups, codes, chunk)
        self.code_layer, self.offset_layer = nn.Linear(width, groups * codes), nn.Linear(width, groups * codes * chunk)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def small(cls, *, history: int = 2, horizon: int = 8, **sizes: Unpack[Sizes]) -> VQBeTHead:
        """For CPUs and short runs: three blocks, and 1,000 steps for the codes."""
        return cls(**sizes, history=history, horizon=horizon, latent_dim=64, depth=3, codebook_steps=1_000)

    @property
    def learns_codes(self) -> bool:
        """Whether the VQ-VAE is still being trained."""
        return int(self.steps) < self.codebook_steps

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of the present phase. A chunk without a real step is left out."""
        if self.learns_codes:
            result = self._code_loss(target, generator)
            self.steps += int(self.training)
            return result
        self._freeze_codes()
        return self._query_loss(features, target, generator)

    def _query_loss(
        self, features: Tensor, target: Target, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sec. 3.3: focal losses of the codes, L1 error of the chunk."""
        actions = target.actions
        noise = draw_normal((actions.shape[0], len(self.code_weights)), generator, like=actions)
        with torch.no_grad():
            codes = self.quantizer(self.encoder(actions.flatten(1)))[1]  # (B, G)
        with dropout_from(generator if self.training else None, actions.device):
            outputs = self.read(features)
        predicted = self.decide(outputs, noise, codes=codes if self.offset_codes == "demonstrated" else None)
        counted = target.real.to(actions.dtype)
        focal = [
            weighted_mean(self._focal(predicted.logits[:, group], codes[:, group]), counted)
            for group in range(len(self.code_weights))
        ]
        offset = weighted_mean((predicted.chunk - actions).abs(), target.weight)
        error = sum(share * term for share, term in zip(self.code_weights, focal, strict=True))
        hits = weighted_mean((predicted.logits.argmax(dim=-1) == codes).all(dim=1).to(counted.dtype), counted)
        metrics = {"action_error": offset.detach(), "code_accuracy": hits}
        return error + self.offset_weight * offset, metrics

    def _code_loss(self, target: Target, generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Sec. 3.2: L1 error of the reconstruction, and commitment."""
        actions, real = target.actions, target.real
        learn = real if self.training else None
        quantized, codes, commitment = self.quantizer(
            self.encoder(actions.flatten(1)), learn=learn, generator=generator
        )
        error = weighted_mean((self.decoder(quantized).view_as(actions) - actions).abs(), target.weight)
        used = torch.tensor(float(len(codes[real].unique(dim=0))))
        loss = error + COMMITMENT_WEIGHT * weighted_mean(commitment, real.to(commitment.dtype))
        return loss, {"reconstruction_error": error.detach(), "codes_used": used}

    def _freeze_codes(self) -> None:
        """No gradient, hence no update and no weight decay, for the VQ-VAE from here on."""
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            parameter.requires_grad_(False)
            parameter.grad = None

    def read(self, features: Float[Tensor, "B T V"]) -> Float[Tensor, "B D"]:
        """The GPT's output for the query."""
        tokens = torch.cat(
            [self.moments(features), self.query.expand(features.shape[0], -1, -1)], dim=1
        )  # (B, T + 1, D)
        return self.gpt(tokens)[:, -1]

    def decide(
        self, outputs: Float[Tensor, "B D"], noise: Float[Tensor, "B G"], *, codes: Tensor | None = None
    ) -> Prediction:
        """Codes drawn with `noise` unless given, and the chunk they stand for plus the sum of their offsets."""
        logits = self.code_layer(outputs).unflatten(1, self.code_shape)  # (B, G, C)
        if codes is None:
            codes = choose((logits.detach() / self.temperature).softmax(dim=-1), noise)  # (B, G)
        offsets = self.offset_layer(outputs).unflatten(1, self.offset_shape)  # (B, G, C, H * A)
        rows = torch.arange(outputs.shape[0], device=outputs.device)[:, None]
        offset = offsets[rows, torch.arange(codes.shape[1], device=codes.device), codes].sum(dim=1)
        with torch.no_grad():
            decoded = self.decoder(self.quantizer.lookup(codes))
        return Prediction(logits, codes, (decoded + offset).unflatten(1, (self.horizon, self.action_dim)))

    def _focal(self, logits: Float[Tensor, "B C"], target: Tensor) -> Float[Tensor, " B"]:
        """Lin et al. 2017 (arXiv 1708.02002): cross entropy times (1 - p)^gamma."""
        log_p = logits.log_softmax(dim=-1).gather(1, target[:, None]).squeeze(1)
        return -((1 - log_p.exp()) ** self.gamma) * log_p

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, G]: one choice per quantiser."""
        return (batch_size, len(self.code_weights))

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """One chunk; not clipped. Before the codes are frozen it means nothing, and a warning says so."""
        if self.learns_codes:
            logger.warning(
                "vq_bet has trained its codes for %d of %d steps and its GPT not at all: its actions mean nothing. "
                "Train longer, or lower codebook_steps",
                int(self.steps),
                self.codebook_steps,
            )
        return self.decide(self.read(features), noise).chunk


HEAD = VQBeTHead
