"""Behaviour cloning: the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UserError
from embodied.core.protocols import LogMetrics, Reporter
from embodied.core.seeding import numpy_generator, torch_generator
from embodied.datasets.loading.sampling import EpochSampler
from embodied.objectives.parts.schedules import warmed_up
from embodied.training.checkpoints import checkpoint_path, checkpoint_steps, drop_old_states, resume_step, state_path

ENCODER = ("encoder.", "controller.neck.network.")  # what names of a pre-trained network's parameters begin with
# Settings that did not exist at first: at None a record is the one it was.
LATER = ("warmup_steps", "clip", "precision")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of `imitate`.

    Attributes:
        steps: optimiser steps in all; 0: the policy is saved as it is.
        batch_size: samples per step; at most the number of samples is used.
        learning_rate, weight_decay: of AdamW; the rate where it is highest.
        checkpoints: policies kept, at even distances.
        encoder_learning_rate: where it is highest, of parameters of an encoder that learns; None: as of all others.
        warmup_steps: in which the rates rise from near zero along a line; None: none.
        clip: the largest norm of the gradient of all parameters together, which larger ones are scaled to; None: any.
        precision: `bf16` for autocast of the loss, weights stay float32; None or `fp32` for none.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    checkpoints: int
    encoder_learning_rate: float | None = None
    warmup_steps: int | None = None
    clip: float | None = None
    precision: str | None = None

    def record(self) -> dict[str, Any]:
        """What a benchmark's protocol has of it, JSON-able; `Training(**record)` gives it back."""
        return {name: value for name, value in asdict(self).items() if value is not None or name not in LATER}


class ImitationPolicy(Protocol):
    """What this loop asks of a policy, an `nn.Module`; its `after_step()`, if there is one, follows every step."""

    def named_parameters(self) -> object: ...

    def train(self, mode: bool = True) -> object: ...

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]: ...

    def trained_tensors(self) -> dict[str, Tensor]: ...

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None: ...


class Demonstrations(Protocol):
    """Training samples by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """The samples at `indices` as CPU tensors [B, ...]."""
        ...


def imitate(
    policy: torch.nn.Module,
    demonstrations: Demonstrations,
    training: Training,
    *,
    seed: int,
    checkpoint_folder: Path,
    metadata: Mapping[str, Any],
    device: torch.device,
    log: LogMetrics,
    reporter: Reporter,
    log_every: int = 50,
    weights: np.ndarray | None = None,
) -> Path:
    """Minimise `policy.loss` with AdamW, the learning rate falling to zero along half a cosine.

    CortexBench keeps it constant and reports the best of twenty checkpoints. Our number is the final checkpoint, and
    the last step of a constant rate is a draw of luck.

    Every epoch is a permutation drawn from (seed, epoch), or with weights every step's samples from (seed, step), and
    every step's randomness from (seed, step), so a run that was killed continues from its last checkpoint and ends with
    the same bits as one that was not.

    Args:
        policy: an `ImitationPolicy`, on `device`.
        demonstrations: the samples.
        training: steps, rates and the like.
        seed: of the order and of augmentation.
        checkpoint_folder: gets `step_<n>.safetensors` (policies) and one `state_<n>.safetensors` (to continue).
        metadata: what a policy file needs beside its tensors to be rebuilt (`policies.artifact`).
        device: where batches are put.
        log: called every `log_every` steps and at the end with the mean since the call before.
        reporter: shows progress.
        log_every: steps between records.
        weights: how often each sample is drawn, in proportion; None: every epoch passes through all.

    Returns:
        The path of the final policy.

    Raises:
        UserError: the loss, or a weight to be saved, is not finite; nothing of that step is saved.
    """
    steps, batch_size = training.steps, training.batch_size
    groups = parameter_groups(policy, training.learning_rate, training.encoder_learning_rate)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay)
    after_step = getattr(policy, "after_step", lambda: None)
    done = resume_step(checkpoint_folder)
    if done:
        _restore(policy, optimizer, parameters, state_path(checkpoint_folder, done))
    keep = set(checkpoint_steps(steps, training.checkpoints))
    losses: list[dict[str, float]] = []
    draw = None
    if weights is not None:
        draw = EpochSampler(len(weights), batch_size=min(batch_size, len(weights)), seed=seed, weights=weights).batch
    for step in reporter.track(range(done + 1, steps + 1), total=steps, description="train", done=done):
        policy.train()
        factor = warmed_up("cosine", step - 1, warmup_steps=training.warmup_steps or 0, steps=steps)
        for group in optimizer.param_groups:
            group["lr"] = group["highest_rate"] * factor
        indices = draw(step - 1) if draw else batch_indices(len(demonstrations), batch_size, step - 1, seed)
        batch = {name: tensor.to(device) for name, tensor in demonstrations.batch(indices).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            loss, metrics = policy.loss(batch, torch_generator(seed, "imitate", step))  # type: ignore[operator]
        if not bool(loss.isfinite()):
            raise _diverged(f"loss is {float(loss.detach())} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.clip is not None:
            metrics = {**metrics, "gradient_norm": torch.nn.utils.clip_grad_norm_(parameters, training.clip)}
        optimizer.step()
        after_step()
        losses.append({"loss": float(loss.detach()), **{name: float(value) for name, value in metrics.items()}})
        if step in keep or step % log_every == 0 or step == steps:
            log({"step": step, **mean_metrics(losses)})
            losses.clear()
        if step in keep:
            if not all(bool(parameter.isfinite().all()) for parameter in parameters):
                raise _diverged(f"weights are not finite after step {step}")
            save_checkpoint(
                checkpoint_path(checkpoint_folder, step),
                policy.trained_tensors(),  # type: ignore[operator]
                {**metadata, "step": step},
            )
            _save_state(policy, optimizer, parameters, checkpoint_folder, step)
    if steps == 0:  # the policy as it was made, a pre-trained head's say
        save_checkpoint(checkpoint_path(checkpoint_folder, 0), policy.trained_tensors(), {**metadata, "step": 0})  # type: ignore[operator]
    return checkpoint_path(checkpoint_folder, steps)


def _diverged(what: str) -> UserError:
    return UserError(f"the {what}: lower train.learning_rate, or set train.clip=1 or train.warmup_steps=100")


def mean_metrics(records: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric over the records that have it: a head with phases has others in each."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: float(np.mean([record[name] for record in records if name in record])) for name in names}


def parameter_groups(
    policy: torch.nn.Module, learning_rate: float, encoder_learning_rate: float | None
) -> list[dict[str, Any]]:
    """Groups of what learns for an optimiser, each with its highest rate: all, or the encoder by itself."""
    learning = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    if encoder_learning_rate is None:
        return [{"params": list(learning.values()), "highest_rate": learning_rate}]
    encoder = [parameter for name, parameter in learning.items() if name.startswith(ENCODER)]
    others = [parameter for name, parameter in learning.items() if not name.startswith(ENCODER)]
    rates = ((others, learning_rate), (encoder, encoder_learning_rate))
    return [{"params": parameters, "highest_rate": rate} for parameters, rate in rates if parameters]


def batch_indices(samples: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The samples of a step, int64 [B]: consecutive slices of one permutation per epoch, its remainder left out."""
    size = min(batch_size, samples)
    epoch, position = divmod(step, samples // size)
    order = numpy_generator(seed, "imitate", "epoch", epoch).permutation(samples)
    return order[position * size : (position + 1) * size]


def _save_state(
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    folder: Path,
    step: int,
) -> None:
    tensors = {f"policy/{name}": tensor for name, tensor in policy.trained_tensors().items()}  # type: ignore[operator]
    for index, parameter in enumerate(parameters):
        for name, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
    save_checkpoint(state_path(folder, step), tensors, {"step": step})
    drop_old_states(folder)


def _restore(
    policy: torch.nn.Module, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], path: Path
) -> None:
    tensors, _ = load_checkpoint(path)
    prefix = "policy/"
    policy.load_trained_tensors(  # type: ignore[operator]
        {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    )
    for index, parameter in enumerate(parameters):
        prefix = f"optimizer/{index}/"
        optimizer.state[parameter] = {
            name[len(prefix) :]: tensor.to(parameter.device) if tensor.ndim else tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
