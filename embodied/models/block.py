"""The transformer block and its options. Legend: B batch, T tokens, D width, H heads, E = D / H, M width of the MLP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.models.attention import attention
from embodied.models.in_place import BranchGELU, plus_branch
from embodied.models.positions import rotate

Rotation = tuple[Tensor, Tensor]  # cosine and sine of the rotary angles, each [.., T, E]; see `models.positions`


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP."""

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(tokens)) * self.up(tokens))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": BranchGELU,
    "gelu_tanh": lambda: BranchGELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
}
MLPS = (*ACTIVATIONS, "swiglu")


def make_mlp(kind: str, width: int, hidden: int, *, bias: bool) -> nn.Module:
    """The MLP of a block: `SwiGLU`, or Linear, activation, Linear."""
    if kind not in MLPS:
        raise ValueError(f"mlp must be one of {', '.join(MLPS)}, got {kind!r}")
    if kind == "swiglu":
        return SwiGLU(width, hidden, bias=bias)
    return nn.Sequential(nn.Linear(width, hidden, bias=bias), ACTIVATIONS[kind](), nn.Linear(hidden, width, bias=bias))


def drop_branches(values: Float[Tensor, "B ..."], rate: float) -> Float[Tensor, "B ..."]:
    """Drop the whole branch of a sample with probability `rate`, scale the others up (Huang et al. 2016).

    It draws from the global random state of the device: only call it in training.
    """
    keep = values.new_empty(values.shape[0], *[1] * (values.ndim - 1)).bernoulli_(1 - rate)
    return values * keep / (1 - rate)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then an MLP (Dosovitskiy et al. 2021, arXiv 2010.11929).

    Args:
        width: D.
        heads: H.
        mlp_ratio: M / D. For "swiglu", 8/3 has as many weights as 4 has for the others.
        mlp: "gelu", "gelu_tanh" (SigLIP), "quick_gelu" (CLIP), "relu" (GR-1) or "swiglu".
        bias: of the linear layers.
        layer_scale: initial value of a learned factor per channel on either branch (Touvron et al. 2021); None: none.
        drop_path: probability in training that a sample skips a branch.
        qk_norm: layer norms over E on queries and keys (Dehghani et al. 2023).
        eps: of the layer norms.
        dropout: of the attention's weights and of what either branch adds, in training (GPT-2).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        eps: float = 1e-6,
        mlp: str = "gelu",
        bias: bool = True,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        qk_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be in [0, 1), got {rate}")
        self.heads, self.drop_path, self.dropout = heads, drop_path, dropout
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = make_mlp(mlp, width, round(width * mlp_ratio), bias=bias)
        self.query_norm = nn.LayerNorm(width // heads, eps=eps) if qk_norm else None
        self.key_norm = nn.LayerNorm(width // heads, eps=eps) if qk_norm else None
        self.scale1 = None if layer_scale is None else nn.Parameter(torch.full((width,), float(layer_scale)))
        self.scale2 = None if layer_scale is None else nn.Parameter(torch.full((width,), float(layer_scale)))

    def forward(
        self, tokens: Float[Tensor, "B T D"], *, rotation: Rotation | None = None, mask: Tensor | None = None
    ) -> Float[Tensor, "B T D"]:
        """The tokens after both branches.

        Args:
            tokens: as they come.
            rotation: of queries and keys; one row per token, or per sample and token.
            mask: broadcastable to [B, H, T, T]: bool, True = the row may look at the column; or float, added to the
                logits of attention.
        """
        tokens = plus_branch(tokens, self._branch(self.attend(self.norm1(tokens), rotation, mask), self.scale1))
        return plus_branch(tokens, self._branch(self.mlp(self.norm2(tokens)), self.scale2))

    def last(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B 1 D"]:
        """What `forward` makes of the last token, up to rounding; what only the others need is not computed."""
        attended = self.attend(self.norm1(tokens), None, None, last=True)
        tokens = plus_branch(tokens[:, -1:], self._branch(attended, self.scale1))
        return plus_branch(tokens, self._branch(self.mlp(self.norm2(tokens)), self.scale2))

    def attend(self, tokens: Tensor, rotation: Rotation | None, mask: Tensor | None, *, last: bool = False) -> Tensor:
        """Multi-head self-attention of normalised tokens, [B, T, D]; [B, 1, D] of the `last` one alone."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, E)
        # Split before they are turned: the gradient then comes back in the order of the linear layer, uncopied.
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, H, T, E)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        if last:
            query = query[:, :, -1:]
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(query.dtype)
        dropped = self.dropout if self.training else 0.0
        attended = attention(query, key, value, mask=mask, dropout=dropped)
        del tokens, qkv, query, key, value  # where nothing learns, what follows gets their memory
        return self.project(attended.transpose(1, 2).flatten(2))  # (B, T, D)

    def _branch(self, values: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            values = values * scale
        if self.dropout:
            values = F.dropout(values, self.dropout, self.training)
        return drop_branches(values, self.drop_path) if self.training and self.drop_path > 0 else values


def initialize(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform for every Linear (the patch embedding too), zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
