"""Attention pooling whose queries come from the instruction.

Legend: B batch, T moments, N tokens, C width of a token, E width of an instruction, Q queries, D width of a query,
V = Q * D + C values of a moment.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.necks.attention import QueryPooling


class TextQuery(nn.Module):
    """The instruction's embedding is mapped to Q queries that read the tokens; the mean token is put beside them.

    Source: the portable idea of EmbodiedGPT (Mu et al. 2023, https://arxiv.org/abs/2305.15021): an instance feature
    that the plan asks for, and a global feature. Departures: one attention layer in place of its Q-Former, and the
    mean of the same tokens in place of a second encoder.

    Args:
        width: C.
        text_width: E, of the frozen text encoder.
        queries: Q.
        query_width: D; None for C.
        heads: attention heads, a divisor of D.
    """

    def __init__(
        self, *, width: int, text_width: int, queries: int = 4, query_width: int | None = None, heads: int = 4
    ) -> None:
        super().__init__()
        size = query_width or width
        self.text_width, self.shape = text_width, (queries, size)
        self.ask = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, queries * size))
        self.pooling = QueryPooling(tokens=width, width=size, heads=heads)
        self.output_dim = queries * size + width

    def forward(self, features: Float[Tensor, "B T N C"], instruction: Float[Tensor, "B E"]) -> Float[Tensor, "B T V"]:
        batch = features.shape[0]
        # Number by number: a comparison of whole shapes would build the number of rows into an exported graph.
        if instruction.ndim != 2 or instruction.shape[0] != batch or instruction.shape[1] != self.text_width:
            raise UsageError(f"instruction: expected [B={batch}, {self.text_width}], got {list(instruction.shape)}")
        queries = self.ask(instruction).unflatten(1, self.shape)  # (B, Q, D)
        asked = self.pooling(queries, features).flatten(2)  # (B, T, Q*D)
        return torch.cat([asked, features.mean(dim=2)], dim=-1)


NECK = TextQuery
