"""Weights between our MAE and `ViTMAEForPreTraining` of transformers, decoder and all.

Encoders alone: `hf_convert` for folders of transformers, `checkpoint_file` for released `.pth` files.

Names are those of a model in memory (`model.state_dict()`, transformers 5), which also loads older files.
Position tables are fixed on both sides and equal by construction, so they are written and never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from embodied.core.errors import UserError

# ours -> theirs inside one block
_BLOCK = {
    "norm1": "layernorm_before",
    "project": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
# ours -> theirs outside the blocks
_OUTER = {
    "encoder.vit.class_token": "vit.embeddings.cls_token",
    "encoder.vit.norm.weight": "vit.layernorm.weight",
    "encoder.vit.norm.bias": "vit.layernorm.bias",
    "embed.weight": "decoder.decoder_embed.weight",
    "embed.bias": "decoder.decoder_embed.bias",
    "mask_token": "decoder.mask_token",
    "norm.weight": "decoder.decoder_norm.weight",
    "norm.bias": "decoder.decoder_norm.bias",
    "head.weight": "decoder.decoder_pred.weight",
    "head.bias": "decoder.decoder_pred.bias",
}
_ROLES = ("q_proj", "k_proj", "v_proj")
_EMBED = ("encoder.vit.embed", "vit.embeddings.patch_embeddings.projection")
_PREFIXES = {"encoder.vit.blocks": "vit.layers", "blocks": "decoder.decoder_layers"}


def to_transformers(
    state: Mapping[str, Tensor], *, patch_size: int, positions: Tensor, decoder_positions: Tensor
) -> dict[str, Tensor]:
    """The state dict of `ViTMAEForPreTraining` from that of `objectives.masked.mae.MAE`.

    Args:
        state: ours.
        patch_size: P.
        positions, decoder_positions: our tables [1 + N, D], written to their `position_embeddings`.

    Raises:
        UserError: the encoder has more than theirs can hold (registers, layer scales, another MLP, ...).
    """
    found = {
        "vit.embeddings.position_embeddings": positions[None],
        "decoder.decoder_pos_embed": decoder_positions[None],
        f"{_EMBED[1]}.bias": state[f"{_EMBED[0]}.bias"],
        # A patch is ordered row, column, channel; a convolution's kernel channel, row, column.
        f"{_EMBED[1]}.weight": state[f"{_EMBED[0]}.weight"]
        .unflatten(1, (patch_size, patch_size, 3))
        .permute(0, 3, 1, 2)
        .contiguous(),
    }
    for ours, theirs in _OUTER.items():
        found[theirs] = state[ours]
    written = {f"{_EMBED[0]}.weight", f"{_EMBED[0]}.bias", *_OUTER}
    for name, tensor in state.items():
        match = re.fullmatch(r"((?:encoder\.vit\.)?blocks)\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None or match[3] not in ("qkv", *_BLOCK):
            if name not in written:
                raise UserError(f"a ViTMAEForPreTraining has no place for {name}")
            continue
        prefix, number, part, kind = match.groups()
        block = f"{_PREFIXES[prefix]}.{number}"
        if part == "qkv":
            for role, rows in zip(_ROLES, tensor.chunk(3), strict=True):
                found[f"{block}.attention.{role}.{kind}"] = rows
        else:
            found[f"{block}.{_BLOCK[part]}.{kind}"] = tensor
    return found


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of our `MAE` from that of `ViTMAEForPreTraining`.

    Raises:
        UserError: a tensor of theirs is missing.
    """
    try:
        kernel = state[f"{_EMBED[1]}.weight"]  # (D, 3, P, P)
        found = {
            f"{_EMBED[0]}.weight": kernel.permute(0, 2, 3, 1).flatten(1).contiguous(),
            f"{_EMBED[0]}.bias": state[f"{_EMBED[1]}.bias"],
            **{ours: state[theirs] for ours, theirs in _OUTER.items()},
        }
        for prefix, theirs in _PREFIXES.items():
            numbers = {int(name[len(theirs) + 1 :].split(".")[0]) for name in state if name.startswith(theirs + ".")}
            for number in sorted(numbers):
                source, target = f"{theirs}.{number}", f"{prefix}.{number}"
                for kind in ("weight", "bias"):
                    roles = [state[f"{source}.attention.{role}.{kind}"] for role in _ROLES]
                    found[f"{target}.qkv.{kind}"] = torch.cat(roles)
                    for part, name in _BLOCK.items():
                        found[f"{target}.{part}.{kind}"] = state[f"{source}.{name}.{kind}"]
    except KeyError as error:
        raise UserError(f"these are not the weights of a ViTMAEForPreTraining: {error.args[0]} is missing") from error
    return found
