"""DINOv2 of transformers (Oquab et al. 2023). A plain ViT fits too: its layer scales are one."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.core.errors import UserError
from embodied.encoders.formats.arguments import ANY, MLPS, PLAIN, common_arguments, common_settings, whole_ratio
from embodied.encoders.formats.layout import Layout, separate_qkv

CONFIG, MODEL, PREFERENCE = "Dinov2Config", "Dinov2Model", 2
FITS: dict[str, Container[Any]] = {**PLAIN, "layer_scale": ANY, "mlp": (*MLPS, "swiglu")}


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `Dinov2Model`."""
    gated = arguments.get("mlp") == "swiglu"
    mlp = (
        {"mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}
        if gated
        else {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    )
    return Layout(
        outer={
            "embed": "embeddings.patch_embeddings.projection",
            "class_token": "embeddings.cls_token",
            "registers": "embeddings.register_tokens",
            "positions": "embeddings.position_embeddings",
            "norm": "layernorm",
        },
        blocks="encoder.layer",
        block={
            "norm1": "norm1",
            "project": "attention.o_proj",
            "norm2": "norm2",
            "scale1": "layer_scale1.lambda1",
            "scale2": "layer_scale2.lambda1",
            **mlp,
        },
        qkv=separate_qkv("attention"),
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    mlp = "swiglu" if config.use_swiglu_ffn else None
    hidden = gated_width(config.hidden_size, config.mlp_ratio) if mlp else config.hidden_size * config.mlp_ratio
    return {
        **common_arguments(config, mlp=mlp),
        "mlp_ratio": hidden / config.hidden_size,
        "positions": "learned",
        "layer_scale": float(config.layerscale_value),
    }


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments.

    Raises:
        UserError: the hidden width of the MLPs is none that their config can say.
    """
    found = common_settings(arguments)
    scale = {"layerscale_value": 1.0 if arguments["layer_scale"] is None else arguments["layer_scale"]}
    if arguments["mlp"] != "swiglu":
        return {**whole_ratio(found), **scale}
    hidden, width = found.pop("intermediate_size"), arguments["width"]
    for ratio in range(1, 17):
        if gated_width(width, ratio) == hidden:
            return {**found, **scale, "mlp_ratio": ratio, "use_swiglu_ffn": True}
    raise UserError(f"this format cannot hold a hidden width of {hidden} for mlp=swiglu at width={width}")


def gated_width(width: int, ratio: int) -> int:
    """The hidden width of their gated MLP: two thirds of `ratio * width`, rounded up to a multiple of 8."""
    return (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8
