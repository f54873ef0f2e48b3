"""Encoder artifacts: a folder that rebuilds an encoder with no other file; and an encoder's fingerprint."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from torch import nn

from embodied.core.errors import UserError
from embodied.core.extensions import VARIABLE
from embodied.core.files import atomic_path, hash_json

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"
FORMAT = "embodied-encoder-1"
TRUSTED_PACKAGE = "embodied.encoders."  # an artifact may name classes in here only: it is not code

Module = TypeVar("Module", bound=nn.Module)


def save_encoder(encoder: nn.Module, folder: str | Path, *, card: str) -> None:
    """Write `model.safetensors`, `config.yaml` and `README.md` (the model card) to `folder`, all or nothing.

    Raises:
        UserError: nobody could load it, since its class is no module of `embodied.encoders`.
    """
    config = encoder.config()  # type: ignore[operator]
    if not str(config.get("name", "")).startswith(TRUSTED_PACKAGE):
        raise UserError(
            f"the encoder class {config.get('name')!r} is not one of {TRUSTED_PACKAGE}*, which is all that loads: put "
            f"its file into encoders/ of a folder that {VARIABLE} names"
        )
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        safetensors.torch.save_file(tensors, temporary / WEIGHTS, metadata={"format": FORMAT})
        text = yaml.safe_dump({"format": FORMAT, "encoder": config}, sort_keys=False)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")


def load_artifact(folder: str | Path) -> nn.Module:
    """The encoder that `save_encoder` wrote, not yet frozen.

    Raises:
        UserError: the folder is missing, incomplete, damaged, or not an encoder artifact of ours.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no encoder artifact at {folder}: there is no such folder")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not an encoder artifact: it holds no {name}")
    encoder = build_encoder(read_config(folder / CONFIG))
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({error}): copy the artifact again") from error
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {reason}") from error
    return encoder


def read_config(path: Path) -> dict[str, Any]:
    """What rebuilds the encoder of an artifact, from its `config.yaml`; raises UserError unless it is one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML: copy the artifact again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(f"{path} is not the config of an encoder artifact: expected format {FORMAT}, got {found}")
    if not isinstance(content.get("encoder"), dict):
        raise UserError(f"{path} does not say how to build its encoder: copy the artifact again")
    return dict(content["encoder"])


def build_encoder(config: dict[str, Any]) -> nn.Module:
    """A fresh encoder from its `config()`."""
    target = str(config.get("name", ""))
    if not target.startswith(TRUSTED_PACKAGE):
        raise UserError(f"the encoder class {target!r} is not one of {TRUSTED_PACKAGE}*: refusing to import it")
    module, _, name = target.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"there is no encoder class {target!r}: upgrade embodied, or name the folder that has it in {VARIABLE}"
        ) from error
    try:
        return factory(**{key: value for key, value in config.items() if key != "name"})
    except (TypeError, ValueError) as error:
        raise UserError(f"{target} cannot be built with the arguments of its config: {error}") from error


def fingerprint(encoder: nn.Module) -> str:
    """SHA-256 (hex) of everything that decides an encoder's features: weights, architecture, preprocessing.

    Two encoders with the same fingerprint give the same features; it keys the feature cache.
    """
    digest = hashlib.sha256(hash_json(encoder.config()).encode())  # type: ignore[operator]
    # named_buffers too: preprocessing constants are buffers that the state dict leaves out
    tensors = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def freeze(encoder: Module) -> Module:
    """Evaluation mode for good and no gradients: no parameter or buffer changes while a controller trains on it."""
    encoder.requires_grad_(False)
    encoder.eval()
    # A policy that holds the encoder calls .train() on all its parts; a frozen one must not follow.
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]
    return encoder
