"""How far a pre-trained encoder learns along with a controller."""

from __future__ import annotations

import copy
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.utils import parametrize

from embodied.core.errors import UsageError, unknown_name

Tune = Literal["frozen", "full", "lora", "last_k"]


class LoRA(nn.Module):
    """Adds a product of two thin matrices to a weight: W + alpha / rank * B A.

    Source: Hu et al. 2021 (https://arxiv.org/abs/2106.09685), Section 4.1: A random, B zero, so training starts at W.

    Args:
        weight: W [out, in].
        rank: of A [rank, in] and B [out, rank].
        alpha: see above.
    """

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.factor = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.factor * (self.up @ self.down)


def tuned_copy(
    encoder: nn.Module, tune: Tune, *, rank: int = 8, alpha: float | None = None, layers: int = 2
) -> nn.Module:
    """A copy of a frozen encoder of which some weights learn. It stays in eval mode: no dropout, no batch statistics.

    Args:
        encoder: frozen; it is not changed.
        tune: `full`: everything; `lora`: adapters on every linear layer of the transformer's blocks and nothing else;
            `last_k`: the last `layers` blocks.
        rank, alpha: of the adapters; alpha is twice the rank if None.
        layers: k.

    Raises:
        UsageError: the encoder has no transformer blocks, or fewer than k, or a number is below 1.
    """
    if tune not in get_args(Tune) or tune == "frozen":
        raise unknown_name("policy.tune", tune, get_args(Tune))
    if getattr(encoder, "trainable", False):
        raise UsageError(f"policy.tune={tune} is for pre-trained encoders: this one learns by itself, leave it out")
    copied = _own_copy(encoder).eval().requires_grad_(tune == "full")
    copied.train = lambda mode=True: copied  # type: ignore[method-assign]
    if tune == "lora":
        if rank < 1:
            raise UsageError(f"policy.tune_rank must be at least 1, got {rank}")
        _add_adapters(transformer_blocks(copied), rank=rank, alpha=2.0 * rank if alpha is None else alpha)
    elif tune == "last_k":
        blocks = transformer_blocks(copied)
        if not 1 <= layers <= len(blocks):
            raise UsageError(f"policy.tune_layers must be in [1, {len(blocks)}], the encoder's blocks, got {layers}")
        for block in list(blocks)[-layers:]:
            block.requires_grad_(True)
    elif not any(True for _ in copied.parameters()):
        raise UsageError("policy.tune=full: this encoder has no weights to train")
    return copied


def _own_copy(encoder: nn.Module) -> nn.Module:
    copied = copy.deepcopy(encoder)
    # That of a frozen encoder gives back the encoder it was made for, which is not the copy.
    copied.__dict__.pop("train", None)
    return copied


def transformer_blocks(encoder: nn.Module) -> nn.ModuleList:
    """The blocks of an encoder: its longest list of modules that hold linear layers.

    Raises:
        UsageError: it has none.
    """
    lists = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.ModuleList) and any(isinstance(part, nn.Linear) for part in module.modules())
    ]
    if not lists:
        raise UsageError(
            "policy.tune=lora and last_k need a vision transformer: this encoder has no blocks; use full or frozen"
        )
    return max(lists, key=len)


def _add_adapters(blocks: nn.ModuleList, *, rank: int, alpha: float) -> None:
    for layer in [module for module in blocks.modules() if isinstance(module, nn.Linear)]:
        # As a parametrisation every user of `layer.weight` sees the sum, fused attention included.
        adapter = LoRA(layer.weight, rank=rank, alpha=alpha)
        parametrize.register_parametrization(layer, "weight", adapter)


def merged_copy(encoder: nn.Module) -> nn.Module:
    """A copy with adapters added into the weights: the encoder's plain architecture again."""
    copied = _own_copy(encoder)
    for parent in list(copied.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
                # Not torch's `remove_parametrizations`: it changes a class that copies share.
                plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
                plain.load_state_dict({"weight": layer.weight, **({} if layer.bias is None else {"bias": layer.bias})})
                setattr(parent, name, plain.to(layer.weight.device).train(layer.training))
    return copied
