"""Token boosting: layers that hand on a better estimate of features than they got. Legend: B batch, K tokens, D width.

A booster is a transformer block without attention, so that an encoder with boosters is a plain ViT. What it computes
and why is told in `objectives.masked.tbm`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import Block

LEARNED = ("norm2.", "mlp.", "scale2")  # of a booster's weights; the others belong to the attention it does without


class ChannelNoise(nn.Module):
    """Q = alpha * S in front of a booster in training. S stays until the next draw: a backward pass may need it again.

    Args:
        width: D.
        scale: every alpha at the start.
        learned: whether alpha is.
    """

    def __init__(self, width: int, scale: float, *, learned: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((width,), scale), requires_grad=learned)
        self.drawn: Tensor | None = None

    def draw(self, batch: int, tokens: int, generator: torch.Generator | None) -> None:
        """S for the next pass of the encoder; without a generator there is no noise."""
        self.drawn = None
        if generator is not None:
            self.drawn = torch.randn(batch, tokens, len(self.alpha), generator=generator).to(self.alpha)

    def add(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A block's hook: the inputs with noise."""
        if self.drawn is None or not block.training:
            return inputs
        return (inputs[0] + self.alpha * self.drawn, *inputs[1:])


def estimate(booster: Block, noisy: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """g(I) of a booster, which itself gives 2 g(I) - I."""
    step = booster.mlp(booster.norm2(noisy))
    return noisy + (step if booster.scale2 is None else step * booster.scale2) / 2


def add_boosters(encoder: ViTEncoder, after: Sequence[int] | None) -> tuple[ViTEncoder, list[int]]:
    """The same encoder with boosters, which change nothing yet; and their indices among its blocks.

    Args:
        encoder: its weights are copied.
        after: blocks, counted from 1, that a booster follows; None: the middle and the last one.

    Raises:
        UsageError: there are no such blocks, or every block has a relative bias of its own.
    """
    depth, config = len(encoder.vit.blocks), encoder.config()
    chosen = sorted({depth // 2, depth} - {0}) if after is None else sorted(int(number) for number in after)
    if not chosen or len(set(chosen)) < len(chosen) or not all(1 <= number <= depth for number in chosen):
        raise UsageError(f"after must name different blocks from 1 to {depth}, got {list(after or [])}")
    if config.get("relative_bias") == "block":
        raise UsageError("TBM takes encoder.relative_bias=shared or none, got block")
    del config["name"]
    made = ViTEncoder(**{**config, "depth": depth + len(chosen)})
    places = [number + earlier for earlier, number in enumerate(chosen)]

    def moved(name: re.Match[str]) -> str:
        return f"blocks.{int(name[1]) + sum(number <= int(name[1]) for number in chosen)}."

    state = {re.sub(r"\bblocks\.(\d+)\.", moved, name): value for name, value in encoder.state_dict().items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not unexpected and {int(name.split(".")[2]) for name in missing} == set(places), (missing, unexpected)
    for place in places:
        make_booster(made.vit.blocks[place])
    return made, places


def make_booster(block: nn.Module) -> None:
    """A block whose attention adds nothing, and whose MLP adds nothing yet."""
    assert isinstance(block, Block), type(block)
    block.drop_path = 0.0
    for name, part in block.named_parameters():
        part.requires_grad_(name.startswith(LEARNED))
    last = [part for part in block.mlp.modules() if isinstance(part, nn.Linear)][-1]
    for linear in (block.project, last):
        nn.init.zeros_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
