"""Tensors and JSON in one safetensors file, written atomically and never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embodied.core.errors import UserError
from embodied.core.files import atomic_path

FORMAT = "embodied-checkpoint-1"


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata to `path` (`.safetensors`); a crash leaves the old file or the new one."""
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "metadata": json.dumps(dict(metadata), sort_keys=True)}
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(plain, temporary, metadata=header)
        except SafetensorError as error:
            # The library hides the operating system's error; a full disk is the one that users meet.
            raise UserError(
                f"{path} cannot be written ({error}): free some space, then go on with resume=true"
            ) from error


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            names = handle.keys()  # a list: `safe_open` itself cannot be iterated
            tensors = {name: handle.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged or not a safetensors file ({error}): restore it from a copy, or train again"
        ) from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a checkpoint written by embodied ({FORMAT})")
    return tensors, json.loads(header["metadata"])
