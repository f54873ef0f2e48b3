"""Attention by whichever way is quick. Legend: B batch, H heads, Q queries, T tokens, E width of a head."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def attention(
    query: Float[Tensor, "B H Q E"],
    key: Float[Tensor, "B H T E"],
    value: Float[Tensor, "B H T E"],
    *,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H Q E"]:
    """softmax(query key^T / sqrt(E)) value, as `scaled_dot_product_attention`, which it is but for one case.

    On a CPU the fused kernel's backward pass in bfloat16 takes several times as long as plain products do (PyTorch
    2.13, benchmarks/pretrain.py), and more than all other parts of a small ViT. There it is plain products; the softmax
    is of float32, the weights that it gives are rounded to bfloat16 before they meet the values.

    Args:
        query, key, value: as they come.
        mask: broadcastable to [B, H, Q, T]: bool, True = the row may look at the column; or float, added to the logits.
        dropout: of the weights.
    """
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and mask is None and not dropout
    if not (plain and torch.is_grad_enabled() and query.requires_grad):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value
