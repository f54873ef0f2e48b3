"""The transformer of Diffusion Policy.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.networks.time_embedding import LevelEmbedding, TimeEmbedding


class DenoisingTransformer(nn.Module):
    """A pre-norm decoder over the steps of a chunk that attends to the noise level and the moments.

    Source: Chi et al. 2023 (https://arxiv.org/abs/2303.04137), real-stanford/diffusion_policy
    `transformer_for_diffusion.py` with the settings of its image experiments (`n_cond_layers=0`).

    Departure: every step sees every moment. There, chunks begin at the oldest moment and `causal` also hides from a
    step the moments after it; here they begin at the present, so no moment is ahead. `causal_moments` brings it back.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.
        embedding: of the noise level, built with its width.
        width: D.
        depth: blocks.
        heads: attention heads, a divisor of D.
        dropout: inside the blocks.
        embedding_dropout: on what enters them.
        causal: a step sees itself and the steps before it.
        causal_moments: step h sees moments 0..h only.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        history: int,
        horizon: int,
        action_dim: int,
        embedding: type[LevelEmbedding | TimeEmbedding] = LevelEmbedding,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        dropout: float = 0.3,
        embedding_dropout: float = 0.0,
        causal: bool = True,
        causal_moments: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"width must be a multiple of heads={heads}, got {width}")
        self.time = embedding(width)
        self.actions, self.moments = nn.Linear(action_dim, width), nn.Linear(feature_dim, width)
        self.action_positions = nn.Parameter(torch.empty(1, horizon, width))
        self.memory_positions = nn.Parameter(torch.empty(1, 1 + history, width))
        self.memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(embedding_dropout)
        layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout=dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, action_dim)
        self.causal_mask: Tensor | None
        self.register_buffer("causal_mask", _hidden(horizon, horizon) if causal else None, persistent=False)
        self.memory_mask: Tensor | None
        # position 0 of the memory is the noise level
        ahead = _hidden(horizon, 1 + history, offset=1) if causal_moments else None
        self.register_buffer("memory_mask", ahead, persistent=False)
        self.apply(_initialize)
        nn.init.normal_(self.action_positions, std=0.02)
        nn.init.normal_(self.memory_positions, std=0.02)

    def forward(
        self, actions: Float[Tensor, "B H A"], time: Shaped[Tensor, " B"], features: Float[Tensor, "B T V"]
    ) -> Float[Tensor, "B H A"]:
        """What the head trains for: noise, clean actions or velocity, at `time` (a level, or in [0, 1])."""
        memory = torch.cat([self.time(time)[:, None], self.moments(features)], dim=1)  # (B, 1 + T, D)
        memory = self.memory(self.dropout(memory + self.memory_positions))
        steps = self.dropout(self.actions(actions) + self.action_positions)  # (B, H, D)
        steps = self.decoder(steps, memory, tgt_mask=self.causal_mask, memory_mask=self.memory_mask)
        return self.last(self.norm(steps))


def _hidden(rows: int, columns: int, *, offset: int = 0) -> Tensor:
    """bool [rows, columns], True = hidden: column minus offset is ahead of the row."""
    return torch.ones(rows, columns, dtype=torch.bool).triu(diagonal=1 + offset)


def _initialize(module: nn.Module) -> None:
    """GPT's initialisation, as the released code does it."""
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
