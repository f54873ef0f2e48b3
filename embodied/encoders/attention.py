"""Where an encoder looks. Legend: B batch, T tokens, N patches, H heads, E width of a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from embodied.encoders.hf import HuggingFaceEncoder
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import Block, Rotation
from embodied.models.positions import rotate


@torch.no_grad()
def class_attention(encoder: nn.Module, images: Tensor) -> Tensor | None:
    """How much the class token looks at every patch in the last block, float [B, H, N]; the mean of several tokens.

    A row sums to at most 1: the rest goes to class tokens and registers. None where that is not to be had: there is no
    class token, or the network is not ours and not one of transformers'.

    Args:
        encoder: in eval mode; unchanged afterwards.
        images: preprocessed, float [B, 3, S, S].
    """
    if isinstance(encoder, LayersEncoder):
        return class_attention(encoder.encoder, images)
    if isinstance(encoder, ViTEncoder) and encoder.vit.class_tokens:
        return _of_vit(encoder, images)
    if isinstance(encoder, HuggingFaceEncoder):
        return _of_transformers(encoder, images)
    return None


def attention_weights(block: Block, tokens: Tensor, *, rotation: Rotation | None, mask: Tensor | None) -> Tensor:
    """What `block.attend` multiplies the values with, [B, H, T, T]; the tokens [B, T, D] are normalised."""
    query, key, _ = block.qkv(tokens).unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, E)
    if block.query_norm is not None and block.key_norm is not None:
        query, key = block.query_norm(query), block.key_norm(key)
    if rotation is not None:
        query, key = rotate(query, rotation), rotate(key, rotation)
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1)


def _of_vit(encoder: ViTEncoder, images: Tensor) -> Tensor:
    network, found = encoder.vit, []
    last = network.blocks[-1]
    assert isinstance(last, Block)

    def keep(block: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        assert isinstance(block, Block)
        tokens = block.norm1(arguments[0])
        found.append(attention_weights(block, tokens, rotation=options["rotation"], mask=options["mask"]))

    handle = last.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        encoder(images)
    finally:
        handle.remove()
    return found[0][:, :, : network.class_tokens, network.leading :].mean(dim=2)


def _of_transformers(encoder: HuggingFaceEncoder, images: Tensor) -> Tensor | None:
    model: Any = encoder.model
    leading = encoder.grid[0] * encoder.grid[1]
    if "cls" not in encoder(images[:1])[1] or not hasattr(model, "set_attn_implementation"):
        return None
    found: list[Any] = []

    def ask(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**options, "output_attentions": True}

    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fused kernels keep no weights
    handles = [
        model.register_forward_pre_hook(ask, with_kwargs=True),
        model.register_forward_hook(lambda _, __, output: found.append(output.attentions)),
    ]
    try:
        encoder(images)
    finally:
        for handle in handles:
            handle.remove()
        model.set_attn_implementation(before)
    if not found or not found[0]:
        return None
    weights = found[0][-1]  # (B, H, T, T)
    return weights[:, :, : encoder.class_tokens, weights.shape[-1] - leading :].mean(dim=2)
