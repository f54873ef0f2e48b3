"""The checkpoint that a pre-training goes on from: weights, buffers, teacher and all, and the optimiser's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UserError
from embodied.training.optimization import WeightAverage

STATE = "state.safetensors"
MODEL, OPTIMIZER, AVERAGE = "model/", "optimizer/", "average/"


def resume_step(checkpoint_folder: Path) -> int:
    """The step that `pretrain` would continue from."""
    path = checkpoint_folder / STATE
    return _read(path)[1] if path.is_file() else 0


def save_state(module: nn.Module, optimizer: Any, average: WeightAverage | None, path: Path, step: int) -> None:
    """Write everything a training needs to go on with the same bits."""
    tensors = {MODEL + name: tensor for name, tensor in module.state_dict().items()}
    for name, parameter in _trained(module, optimizer).items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{OPTIMIZER}{name}/{key}"] = torch.as_tensor(value)
    for name, tensor in average.values.items() if average is not None else ():
        tensors[AVERAGE + name] = tensor
    save_checkpoint(path, tensors, {"step": step})


def restore_state(module: nn.Module, optimizer: Any, average: WeightAverage | None, path: Path) -> int:
    """Load the last checkpoint, if there is one; returns its step.

    Raises:
        UserError: it belongs to another model or to another optimiser.
    """
    if not path.is_file():
        return 0
    tensors, step = _read(path)
    try:
        module.load_state_dict(_under(tensors, MODEL))
    except RuntimeError as error:
        raise UserError(f"{path} belongs to another model: {str(error).splitlines()[-1].strip()}") from error
    for name, parameter in _trained(module, optimizer).items():
        saved = _under(tensors, f"{OPTIMIZER}{name}/")
        # A fused optimiser counts its steps on the device, others on the CPU.
        moved = bool(optimizer.defaults.get("fused"))
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if value.ndim or moved else value for key, value in saved.items()
        }
    if average is not None:
        saved = _under(tensors, AVERAGE)
        if not average.values.keys() <= saved.keys():
            raise UserError(f"{path} holds no average of the weights: it was written with train.average=0")
        average.load(saved)
    return step


def load_weights(module: nn.Module, path: Path) -> int:
    """Load the weights that the training of a checkpoint would end with, its average where it has one; its step.

    Of `schedule_free` they are the point where gradients were taken, which lies close by.

    Raises:
        UserError: there is none, or it belongs to another model.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: let the pre-training run for a while")
    tensors, step = _read(path)
    try:
        module.load_state_dict(_under(tensors, MODEL))
    except RuntimeError as error:
        raise UserError(f"{path} belongs to another model: {str(error).splitlines()[-1].strip()}") from error
    averaged = _under(tensors, AVERAGE)  # by the parameters' own names, which those of a state dict need not be
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in averaged:
                parameter.copy_(averaged[name])
    return step


def _trained(module: nn.Module, optimizer: Any) -> dict[str, nn.Parameter]:
    """The optimiser's parameters by their names in the state dict, which a module may choose itself."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: part for name, part in module.state_dict(keep_vars=True).items() if id(part) in held}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors and step of a checkpoint of this loop."""
    tensors, metadata = load_checkpoint(path)
    if "step" not in metadata:
        raise UserError(f"{path} is not a checkpoint of embodied pretrain: it names no step")
    return tensors, int(metadata["step"])
