"""Pre-training: the loop. It knows no method by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import LogMetrics, Reporter
from embodied.core.run_folder import Stopwatch
from embodied.core.seeding import derive_seed, torch_generator
from embodied.datasets.loading.read_ahead import run_ahead
from embodied.training.batches import Batch, ReadBatch, as_batch, count_rows, to_tensors
from embodied.training.optimization import (
    PRECISIONS,
    Recipe,
    WeightAverage,
    compile_parts,
    finish_weights,
    make_optimizer,
    set_rates,
    weights_to_use,
)
from embodied.training.pretrain_records import Window
from embodied.training.pretrain_state import STATE, restore_state, save_state
from embodied.training.throughput import count_flops, peak_flops


class Monitor(Protocol):
    """What looks at the objective while it trains: probes, panels, a loss on other data."""

    every: int  # steps; besides at the end

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Values to log for `step`.

        The objective is in eval mode with the weights the training would end with, and no gradients are recorded; it
        must come back unchanged. Randomness must come from generators of its own.
        """
        ...


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
    recipe: Recipe | None = None,
    monitors: Sequence[Monitor] = (),
) -> None:
    """Minimise an objective over `accelerate`, and leave its averaged weights in it where the recipe averages.

    Every step's randomness comes from (seed, step, part of the batch): a run that was killed continues from its last
    checkpoint and ends with the same bits, on a CPU, as one that was not. A batch is dealt to the processes, and each
    process's share to the parts that are accumulated: two processes do what one does in two parts.

    Args:
        objective: see `core.protocols.Objective`; trained in place. After each step its `after_step(step, steps)` is
            called if it has one, `step` counted from 1: for teachers, centres and schedules. All of its state must be
            parameters or buffers, and equal in all processes after that call.
        read_batch: see `ReadBatch`; called in another thread, a step ahead of the one that is computed.
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
            norm, the objective's metrics, frames per second, share of the device's arithmetic (`mfu`), share of the
            time that the loop stood waiting for data (`data_wait`); and with the learning rate.
        reporter: shows progress.
        log_every: steps between records.
        recipe: everything else about the optimisation; by default `Recipe()`.
        monitors: called on the main process when a step is a multiple of their `every`, and after the last; what they
            return is logged.

    Raises:
        UserError: a loss or a gradient is not finite; the batch is then in `checkpoint_folder`.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"train.precision must be fp32 or bf16, got {precision!r}")
    recipe = recipe or Recipe()
    # Autocast is ours: accelerate fixes its own once per process, and a sweep over precisions runs in one process.
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    objective.to(accelerator.device)
    optimizer = make_optimizer(objective, recipe, learning_rate=learning_rate, weight_decay=weight_decay)
    average = WeightAverage(objective, recipe.average) if recipe.average else None
    done = restore_state(objective, optimizer, average, checkpoint_folder / STATE)
    objective.train()
    window = _window(objective, as_batch(read_batch(done)), accelerator, precision) if done < steps else None
    if recipe.compile is not None:
        compile_parts(objective, recipe.compile)
    model, optimizer = accelerator.prepare(objective, optimizer)
    backward = _Backward(model, accelerator, recipe, precision, seed)
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []
    batches = closing(run_ahead((as_batch(read_batch(step)) for step in range(done, steps)), most=1))
    # Drop-path and dropout draw from the global state.
    with torch.random.fork_rng(devices=cuda), batches as ahead:
        for step in reporter.track(_count(done, steps), total=steps, description="pretrain", done=done):
            assert window is not None
            rate = set_rates(
                optimizer,
                recipe,
                step,
                steps=steps,
                warmup_steps=warmup_steps,
                learning_rate=learning_rate,
                decay=weight_decay,
            )
            optimizer.zero_grad(set_to_none=True)
            waiting = Stopwatch()
            batch = next(ahead)
            window.wait(waiting.seconds)
            backward(batch, step, window)
            norm = accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            number = step + 1
            if average is not None:
                average.update(number)
            if hasattr(objective, "after_step"):
                objective.after_step(number, steps)  # type: ignore[operator]
            window.end_step({"gradient_norm": norm}, count_rows(batch))
            due = number % checkpoint_every == 0 or number == steps
            if number % log_every == 0 or due:
                # At checkpoints too: a resumed run then starts its next mean where an uninterrupted one does, and what
                # diverged is never saved.
                bad = window.first_bad(number)
                if bad is not None:
                    raise _not_finite(*bad, read_batch, seed, checkpoint_folder, accelerator)
                record = window.record()
                if accelerator.is_main_process:
                    log({"step": number, "learning_rate": rate, **record})
            if accelerator.is_main_process:
                at = [monitor for monitor in monitors if number % monitor.every == 0 or number == steps]
                _watch(at, number, objective, optimizer, average, log)
                if due:
                    save_state(objective, optimizer, average, checkpoint_folder / STATE, number)
    accelerator.wait_for_everyone()
    finish_weights(optimizer, average)


class _Backward:
    """Gradients of a step's batch, of which this process computes its share in the recipe's number of parts."""

    def __init__(self, model: nn.Module, accelerator: Accelerator, recipe: Recipe, precision: str, seed: int) -> None:
        self._model, self._accelerator, self._seed = model, accelerator, seed
        self._parts, self._reduced = recipe.accumulate, precision == "bf16"

    def __call__(self, rows: Batch, step: int, window: Window) -> None:
        processes, device = self._accelerator.num_processes, self._accelerator.device
        for part in range(self._parts):
            shard = self._accelerator.process_index + processes * part
            batch = to_tensors(rows, slice(shard, None, processes * self._parts), device)
            generator = torch_generator(self._seed, "pretrain", step, shard)
            torch.manual_seed(derive_seed(self._seed, "layers", step, shard))
            last = part == self._parts - 1
            with nullcontext() if last else self._accelerator.no_sync(self._model):
                with torch.autocast(device.type, torch.bfloat16, enabled=self._reduced):
                    loss, metrics = self._model(batch, generator)
                self._accelerator.backward(loss / self._parts)
            window.add({"loss": loss, **metrics})


def _window(objective: nn.Module, batch: Batch, accelerator: Accelerator, precision: str) -> Window:
    """Records that know what a frame costs and what the device could do."""
    flops = count_flops(objective, to_tensors(batch, slice(2), accelerator.device))
    return Window(accelerator, flops=flops, peak=peak_flops(accelerator.device, precision))


def _count(first: int, last: int) -> Iterator[int]:
    yield from range(first, last)


def _watch(
    monitors: Sequence[Monitor],
    step: int,
    objective: nn.Module,
    optimizer: Any,
    average: WeightAverage | None,
    log: LogMetrics,
) -> None:
    if not monitors:
        return
    with weights_to_use(objective, optimizer, average):
        for monitor in monitors:
            found = monitor(step, objective)
            if found:
                log({"step": step, **found})


def _not_finite(
    step: int, name: str, value: float, read_batch: ReadBatch, seed: int, folder: Path, accelerator: Accelerator
) -> UserError:
    """The error for a step, counted from 1, whose batch is saved first."""
    path = folder / f"bad_batch_{step:06d}.safetensors"
    if accelerator.is_main_process:
        batch = to_tensors(as_batch(read_batch(step - 1)), slice(None), torch.device("cpu"))
        save_checkpoint(path, batch, {"bad_step": step, "seed": seed, name: str(value)})
    return UserError(
        f"the {name} is {value} at step {step}: lower train.learning_rate or train.clip; its batch is in {path}"
    )
