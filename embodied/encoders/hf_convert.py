"""Vision transformers between `transformers` and our `ViTEncoder`: the same weights, the same features.

    encoder = from_hf("facebook/dinov2-small")          # a folder or repository -> a ViTEncoder, to save or train on
    to_hf(encoder, "folder")                            # -> a folder that AutoModel.from_pretrained loads

Names are those of a model in memory in transformers 5, which itself reads and writes the files of older versions.
"""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from embodied.core.errors import MissingExtraError, UserError, unknown_name
from embodied.core.files import atomic_path
from embodied.encoders import formats
from embodied.encoders.formats.layout import read_state, write_state
from embodied.encoders.formats.position_table import table_kind
from embodied.encoders.hf import open_model, statistics
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from embodied.encoders.vit import ViTEncoder
from embodied.models.positions import resize_positions


def format_names() -> list[str]:
    """The `model_type` of every vision transformer of transformers that is known here, the preferred first."""
    names = [module.name for module in pkgutil.iter_modules(formats.__path__)]
    known = [name for name in names if hasattr(_module(name), "PREFERENCE")]
    return sorted(known, key=lambda name: _module(name).PREFERENCE)


def _module(name: str) -> ModuleType:
    return import_module(f"embodied.encoders.formats.{name}")


def from_hf(path: str) -> ViTEncoder:
    """A model of transformers as our encoder, not frozen: same tokens, `pooled` and `cls` to float tolerance.

    It takes frames at the size of its image processor: a table of positions made for another one (DINOv2's for 518 px,
    used at 224) is resized once and for all.

    Args:
        path: a folder or a repository of the hub.

    Raises:
        MissingExtraError: transformers is not installed.
        UserError: it cannot be loaded, or is no vision transformer that is known here.
    """
    source = open_model(path)
    kind = source.vision.model_type
    if kind not in format_names():
        known = ", ".join(format_names())
        raise UserError(f"hf:{path} is a {kind}, which has no form of ours: expected one of {known}")
    module = _module(kind)
    state = source.model.state_dict()
    try:
        arguments = module.arguments(source.vision)
        names = module.layout(arguments)
        given = arguments.get("positions") in (None, "learned")
        if given and "positions" in names.outer and names.outer["positions"] in state:
            table = state[names.outer["positions"]].reshape(-1, arguments["width"])
            arguments["positions"] = table_kind(table, arguments)
        mean, std = statistics(source.processor, path)
        encoder = ViTEncoder(**arguments, mean=mean, std=std)
        read = getattr(module, "read", read_state)
        encoder.vit.load_state_dict(read(state, names, encoder.vit))
        size = source.input_size()
        if size is not None and size != arguments["image_size"]:
            encoder = _resized(encoder, ViTEncoder(**{**arguments, "image_size": size}, mean=mean, std=std))
    except (UserError, ValueError) as error:
        raise UserError(f"hf:{path} ({kind}): {error}") from error
    return encoder


def _resized(encoder: ViTEncoder, other: ViTEncoder) -> ViTEncoder:
    """`other`, made for another size of image, with the weights of `encoder`."""
    state = encoder.vit.state_dict()
    if "positions" in state:
        grids = encoder.vit.grid, other.vit.grid
        state["positions"] = resize_positions(state["positions"], *grids, antialias=encoder.vit.antialias)
    other.vit.load_state_dict(state)
    return other


def to_hf(encoder: nn.Module, folder: str | Path, *, model_type: str | None = None) -> str:
    """Write an encoder as a folder that `AutoModel.from_pretrained` loads, all or nothing.

    Args:
        encoder: a `ViTEncoder`.
        folder: for `config.json`, `model.safetensors` and `preprocessor_config.json`; it must not exist.
        model_type: see `format_names`; None: the first of them that can hold the encoder.

    Returns:
        The model type that was written.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: there is no such model type.
        UserError: the encoder is no ViT, or the format cannot hold it.
    """
    if not isinstance(encoder, ViTEncoder):
        raise UserError(f"only a ViTEncoder has a form in transformers, got {type(encoder).__name__}")
    if model_type is not None and model_type not in format_names():
        raise unknown_name("model type", model_type, format_names())
    arguments = encoder.network_arguments
    reasons = {name: misfit(name, arguments) for name in ([model_type] if model_type else format_names())}
    fitting = [name for name, reason in reasons.items() if reason is None]
    if not fitting:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UserError(f"this encoder has no form in transformers ({told})")
    chosen = fitting[0]
    model = _filled(encoder, _module(chosen), arguments)
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        text = json.dumps(_processor(encoder), indent=2)
        (temporary / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")
    return chosen


def misfit(model_type: str, arguments: dict[str, Any]) -> str | None:
    """Why a format cannot hold an encoder of these arguments; None if it can."""
    module = _module(model_type)
    for name, allowed in module.FITS.items():
        if arguments[name] not in allowed:
            return f"no {name}={arguments[name]}"
    if not isinstance(arguments["image_size"], int):
        return f"no image_size={arguments['image_size']}"
    try:
        module.settings(arguments)
    except UserError as error:
        return str(error)
    return None


def _filled(encoder: ViTEncoder, module: ModuleType, arguments: dict[str, Any]) -> Any:
    """Their model with our weights."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "hf") from error
    model = getattr(transformers, module.MODEL)(getattr(transformers, module.CONFIG)(**module.settings(arguments)))
    write = getattr(module, "write", write_state)
    model.load_state_dict(write(encoder.vit, module.layout(arguments), model.state_dict()))
    return model.eval()


def _processor(encoder: ViTEncoder) -> dict[str, Any]:
    """Settings of an image processor that does what our preprocessing does, but for the filter of its resizing."""
    config = encoder.config()
    height, width = encoder.normalize.size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.get("mean", IMAGENET_MEAN)),
        "image_std": list(config.get("std", IMAGENET_STD)),
    }
