"""How an objective's weights move: groups, rates, averages. It knows no method by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.objectives.parts.schedules import ramp, warmed_up
from embodied.training.schedule_free import ScheduleFreeAdamW

PRECISIONS = ("fp32", "bf16")  # of what is computed; weights are float32
SCHEDULES = ("cosine", "linear", "constant", "schedule_free")
SCALINGS = {"none": (1, 0.0), "linear": (256, 1.0), "sqrt": (1024, 0.5)}  # reference batch, power


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to optimise, beside rate, decay and clipping; as it stands it is MAE's.

    Attributes:
        betas: of AdamW.
        schedule: of the learning rate after warm-up: `cosine`, `linear` or `constant`; `schedule_free` keeps it
            constant and averages (Defazio et al. 2024), which needs no number of steps in advance.
        weight_decay_end: weight decay follows a cosine to this; None: it stays.
        accumulate: parts that a batch is computed in, one after the other.
        layer_decay: the learning rate of block l of L is multiplied by this to the power of L + 1 - l; embeddings are
            block 0, everything after the blocks has the full rate.
        average: decay of an exponential average of the weights, which is what the training ends with; 0: none.
        compile: backend of `torch.compile`, `inductor` for one; None: not compiled.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    schedule: str = "cosine"
    weight_decay_end: float | None = None
    accumulate: int = 1
    layer_decay: float = 1.0
    average: float = 0.0
    compile: str | None = None

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"train.betas must be two numbers in [0, 1), got {list(self.betas)}")
        if self.schedule not in SCHEDULES:
            raise unknown_name("train.schedule", self.schedule, SCHEDULES)
        if self.accumulate < 1:
            raise UsageError(f"train.accumulate must be at least 1, got {self.accumulate}")
        if not 0 < self.layer_decay <= 1 or not 0 <= self.average < 1:
            raise UsageError(
                f"train.layer_decay must be in (0, 1] and train.average in [0, 1), got {self.layer_decay} and "
                f"{self.average}"
            )
        if self.average and self.schedule == "schedule_free":
            raise UsageError("train.average and train.schedule=schedule_free both average the weights: choose one")
        if self.compile is not None and self.compile not in torch.compiler.list_backends(exclude_tags=()):
            raise unknown_name("train.compile", self.compile, torch.compiler.list_backends(exclude_tags=()))


def scaled_learning_rate(rate: float, rule: str, batch_size: int) -> float:
    """The learning rate for a batch: `linear` scales one for 256 (MAE), `sqrt` one for 1024 (DINOv2), `none` neither.

    Raises:
        UsageError: there is no such rule.
    """
    if rule not in SCALINGS:
        raise unknown_name("train.scale_learning_rate", rule, SCALINGS)
    reference, power = SCALINGS[rule]
    return rate * (batch_size / reference) ** power


def learning_rate_factor(step: int, *, warmup_steps: int, steps: int, schedule: str = "cosine") -> float:
    """Linear warm-up to 1, then `schedule` to 0 at `steps`; `step` counts from 0."""
    kind = "constant" if schedule == "schedule_free" else schedule
    return warmed_up(kind, step, warmup_steps=warmup_steps, steps=steps)


def parameter_groups(module: nn.Module, weight_decay: float, *, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Weight decay for matrices only: none for biases, norms and tokens (MAE's `param_groups_weight_decay`).

    Each group says with `scale` what its learning rate is multiplied by, and with `decays` whether it has decay.
    """
    scales = {id(part): scale for part, scale in _layer_scales(module, layer_decay)}
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            # A token is [1, 1, D]: one vector, whatever its number of dimensions.
            matrix = sum(size > 1 for size in parameter.shape) > 1
            found.setdefault((matrix, scales.get(id(parameter), 1.0)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if matrix else 0.0, "decays": matrix, "scale": scale}
        for (matrix, scale), parameters in sorted(found.items(), key=lambda item: (not item[0][0], item[0][1]))
    ]


def _layer_scales(module: nn.Module, decay: float) -> Iterator[tuple[nn.Parameter, float]]:
    encoder = getattr(module, "encoder", None)
    if decay == 1.0 or not isinstance(encoder, nn.Module):
        return
    named = list(encoder.named_parameters())
    places = [re.search(r"(?:^|\.)blocks\.(\d+)\.", name) for name, _ in named]
    depth = 1 + max((int(place[1]) for place in places if place), default=-1)
    for (name, parameter), place in zip(named, places, strict=True):
        if place:
            yield parameter, decay ** (depth - int(place[1]))
        elif re.search(r"(?:^|\.)norm\.(?:weight|bias)$", name) is None:  # the final norm comes after the blocks
            yield parameter, decay ** (depth + 1)


def make_optimizer(module: nn.Module, recipe: Recipe, *, learning_rate: float, weight_decay: float) -> Any:
    """AdamW over `parameter_groups`, schedule-free if the recipe says so."""
    groups = parameter_groups(module, weight_decay, layer_decay=recipe.layer_decay)
    if recipe.schedule == "schedule_free":
        return ScheduleFreeAdamW(groups, lr=learning_rate, betas=recipe.betas)
    # One pass over each weight instead of a dozen, on CPUs and GPUs.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=recipe.betas, fused=True)


def compile_parts(objective: nn.Module, backend: str) -> None:
    """Compile the parts of an objective, the network inside its encoder among them, in place.

    Not the objective as a whole: it draws from a generator, which the compiler cannot follow.
    """
    encoder = getattr(objective, "encoder", None)
    inner = list(encoder.children()) if isinstance(encoder, nn.Module) else []
    for part in (*inner, *objective.children()):
        if type(part).forward is not nn.Module.forward:  # what is no more than a list of modules has none
            part.compile(backend=backend)


def set_rates(
    optimizer: Any, recipe: Recipe, step: int, *, steps: int, warmup_steps: int, learning_rate: float, decay: float
) -> float:
    """Give every group the learning rate and the weight decay of a step; returns the learning rate."""
    factor = learning_rate_factor(step, warmup_steps=warmup_steps, steps=steps, schedule=recipe.schedule)
    end = recipe.weight_decay_end
    weight_decay = decay if end is None else ramp("cosine", decay, end, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * factor * group["scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0
    return learning_rate * factor


class WeightAverage:
    """An exponential average of the trained weights, held beside them."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._trained = {name: part for name, part in module.named_parameters() if part.requires_grad}
        self.values = {name: part.detach().clone() for name, part in self._trained.items()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the weights; `updates` counts from 1. The first ones count more, else the start would never fade."""
        decay = min(self.decay, updates / (updates + 9.0))
        for name, part in self._trained.items():
            self.values[name].lerp_(part, 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take saved values."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights; twice is nothing."""
        for name, part in self._trained.items():
            kept = part.detach().clone()
            part.copy_(self.values[name])
            self.values[name].copy_(kept)


@contextmanager
def weights_to_use(module: nn.Module, optimizer: Any, average: WeightAverage | None) -> Iterator[nn.Module]:
    """The module with the weights that the training would end with, in eval mode, for as long as the block lasts."""
    training = module.training
    swaps = [part.swap for part in (average, _schedule_free(optimizer)) if part is not None]
    for swap in swaps:
        swap()
    module.eval()
    try:
        with torch.no_grad():
            yield module
    finally:
        module.train(training)
        for swap in swaps:
            swap()


def finish_weights(optimizer: Any, average: WeightAverage | None) -> None:
    """Leave the averaged weights, if any, in the module for good."""
    for part in (average, _schedule_free(optimizer)):
        if part is not None:
            part.swap()


def _schedule_free(optimizer: Any) -> ScheduleFreeAdamW | None:
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    return inner if isinstance(inner, ScheduleFreeAdamW) else None


def first_bad_step(losses: Tensor, norms: Tensor) -> int | None:
    """Index of the first step whose loss or gradient norm is not finite; None where all are."""
    bad = ~(losses.isfinite() & norms.isfinite())
    return int(bad.nonzero()[0, 0]) if bool(bad.any()) else None
