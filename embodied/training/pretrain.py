"""Pre-training: the loop. It knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import LogMetrics, Reporter
from embodied.core.run_folder import Stopwatch
from embodied.core.seeding import torch_generator

ReadBatch = Callable[[int], np.ndarray]
"""The frames uint8 [B, S, S, 3] of a step, counted from 0; a pure function, so that resuming replays nothing."""

STATE = "state.safetensors"
PRECISIONS = ("fp32", "bf16")


def learning_rate_factor(step: int, *, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to 1, then half a cosine to 0 at `steps`; `step` counts from 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices only: none for biases, norms and tokens (MAE's `param_groups_weight_decay`)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # A token is [1, 1, D]: one vector, whatever its number of dimensions.
    matrices = [parameter for parameter in trained if sum(size > 1 for size in parameter.shape) > 1]
    vectors = [parameter for parameter in trained if sum(size > 1 for size in parameter.shape) <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def resume_step(checkpoint_folder: Path) -> int:
    """The step that `pretrain` would continue from."""
    path = checkpoint_folder / STATE
    return _read(path)[1] if path.is_file() else 0


def pretrain(
    objective: nn.Module,
    read_batch: ReadBatch,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    clip: float,
    precision: str,
    seed: int,
    checkpoint_folder: Path,
    checkpoint_every: int,
    device: torch.device,
    log: LogMetrics,
    reporter: Reporter,
    log_every: int = 20,
) -> None:
    """Minimise an objective with AdamW (betas 0.9, 0.95), warm-up and cosine decay, over `accelerate`.

    Every step's randomness comes from (seed, step): a run that was killed continues from its last checkpoint and ends
    with the same bits, on a CPU, as one that was not.

    Args:
        objective: see `core.protocols.Objective`; trained in place.
        read_batch: see `ReadBatch`. Under several processes each gets its own part of the batch.
        steps: optimiser steps in all.
        learning_rate: peak.
        weight_decay: of matrices.
        warmup_steps: steps of linear warm-up.
        clip: largest norm of the gradient.
        precision: `fp32` or `bf16` (autocast).
        seed: of all randomness.
        checkpoint_folder: gets `state.safetensors`, replaced every `checkpoint_every` steps and at the end.
        checkpoint_every: steps.
        device: cpu or cuda.
        log: called every `log_every` steps and at every checkpoint with means since the last record: loss, gradient
            norm, the objective's metrics, frames per second; and with the learning rate.
        reporter: shows progress.
        log_every: steps between records.

    Raises:
        UserError: the loss is not finite.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"train.precision must be fp32 or bf16, got {precision!r}")
    # Autocast is ours: accelerate fixes its own once per process, and a sweep over precisions runs in one process.
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    optimizer = torch.optim.AdamW(parameter_groups(objective, weight_decay), lr=learning_rate, betas=(0.9, 0.95))
    model, optimizer = accelerator.prepare(objective.to(accelerator.device), optimizer)
    done = _restore(accelerator.unwrap_model(model), optimizer, checkpoint_folder / STATE)
    model.train()
    window = _Window()
    for step in reporter.track(_count(done, steps), total=steps, description="pretrain", done=done):
        rate = learning_rate * learning_rate_factor(step, warmup_steps=warmup_steps, steps=steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        frames = read_batch(step)[accelerator.process_index :: accelerator.num_processes]
        batch = {"images": torch.from_numpy(np.ascontiguousarray(frames)).to(accelerator.device)}
        generator = torch_generator(seed, "pretrain", step, accelerator.process_index)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, metrics = model(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        window.add({"loss": loss, "gradient_norm": norm, **metrics}, len(frames) * accelerator.num_processes)
        number = step + 1
        due = number % checkpoint_every == 0 or number == steps
        if number % log_every == 0 or due:
            # At checkpoints too: a resumed run then starts its next mean where an uninterrupted one does, and what
            # diverged is never saved.
            record = window.record()
            if not math.isfinite(record["loss"]):
                raise UserError(
                    f"the loss is {record['loss']} at step {number}: lower train.learning_rate or train.clip"
                )
            if accelerator.is_main_process:
                log({"step": number, "learning_rate": rate, **record})
        if accelerator.is_main_process and due:
            _save(accelerator.unwrap_model(model), optimizer, checkpoint_folder / STATE, number)
    accelerator.wait_for_everyone()


def _count(first: int, last: int) -> Iterator[int]:
    yield from range(first, last)


class _Window:
    """Means since the last record."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._rows: list[dict[str, Tensor]] = []
        self._frames, self._watch = 0, Stopwatch()

    def add(self, values: dict[str, Tensor], frames: int) -> None:
        self._rows.append({name: torch.as_tensor(value).detach() for name, value in values.items()})
        self._frames += frames

    def record(self) -> dict[str, float]:
        means = {name: float(torch.stack([row[name] for row in self._rows]).float().mean()) for name in self._rows[0]}
        means["frames_per_second"] = round(self._frames / self._watch.seconds, 1)
        self._clear()
        return means


def _named_parameters(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in module.named_parameters() if id(parameter) in held}


def _save(module: nn.Module, optimizer: torch.optim.Optimizer, path: Path, step: int) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    for name, parameter in _named_parameters(module, optimizer).items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    save_checkpoint(path, tensors, {"step": step})


def _restore(module: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Load the last checkpoint, if there is one; returns its step."""
    if not path.is_file():
        return 0
    tensors, step = _read(path)
    prefix = "model/"
    state = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} belongs to another model: {str(error).splitlines()[-1].strip()}") from error
    for name, parameter in _named_parameters(module, optimizer).items():
        prefix = f"optimizer/{name}/"
        optimizer.state[parameter] = {
            key[len(prefix) :]: value.to(parameter.device) if value.ndim else value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
    return step


def _read(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors and step of a checkpoint of this loop."""
    tensors, metadata = load_checkpoint(path)
    if "step" not in metadata:
        raise UserError(f"{path} is not a checkpoint of embodied pretrain: it names no step")
    return tensors, int(metadata["step"])
