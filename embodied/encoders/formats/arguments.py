"""What the configs of transformers' vision models have in common, in our words and back."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.core.errors import UserError

ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}  # theirs -> ours
_THEIRS = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
MLPS = tuple(_THEIRS)


class _Anything:
    def __contains__(self, value: object) -> bool:
        return True


ANY = _Anything()
SOME = range(1, 1000)  # tokens

# Allowed values of our arguments in the plainest format
PLAIN: dict[str, Container[Any]] = {
    "registers": (0,),
    "relative_bias": (None,),
    "layer_scale": (None,),
    "qk_norm": (False,),
    "pre_norm": (False,),
    "final_norm": (True,),
    "mlp": MLPS,
    "positions": ("sincos", "learned"),
    "class_tokens": (1,),
    "tubelet": (1,),
}


def activation(config: Any) -> str:
    """Our name of their `hidden_act`.

    Raises:
        UserError: we have no such activation.
    """
    if config.hidden_act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"hidden_act={config.hidden_act} is not known here: expected one of {known}")
    return ACTIVATIONS[config.hidden_act]


def common_arguments(config: Any, *, mlp: str | None = None) -> dict[str, Any]:
    """Sizes and activation, or the given kind of `mlp`; the hidden width of the MLPs where the config gives it."""
    found = {
        "image_size": square(config.image_size, "image_size"),
        "patch_size": square(config.patch_size, "patch_size"),
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "eps": config.layer_norm_eps,
        "mlp": mlp or activation(config),
    }
    hidden = getattr(config, "intermediate_size", None)
    if hidden is not None:
        found["mlp_ratio"] = hidden / config.hidden_size
    return found


def common_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `common_arguments`, with the hidden width as `intermediate_size`."""
    return {
        "image_size": arguments["image_size"],
        "patch_size": arguments["patch_size"],
        "hidden_size": arguments["width"],
        "num_hidden_layers": arguments["depth"],
        "num_attention_heads": arguments["heads"],
        "layer_norm_eps": arguments["eps"],
        "hidden_act": _THEIRS.get(arguments["mlp"], "gelu"),
        "intermediate_size": round(arguments["width"] * arguments["mlp_ratio"]),
    }


def whole_ratio(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with `mlp_ratio`, a whole number, instead of `intermediate_size`.

    Raises:
        UserError: the ratio is no whole number.
    """
    hidden = settings.pop("intermediate_size")
    ratio, left = divmod(hidden, settings["hidden_size"])
    if left:
        raise UserError(f"this format needs a whole mlp_ratio, got {hidden / settings['hidden_size']:g}")
    return {**settings, "mlp_ratio": ratio}


def square(value: Any, name: str) -> int:
    """The side of a square given as a number or a pair.

    Raises:
        UserError: it is no square.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if not isinstance(value, int):
        raise UserError(f"{name} must be a square, got {value}")
    return value
