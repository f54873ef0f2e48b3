"""Names of tensors in another library's vision transformer, and the two ways between theirs and ours.

A patch of ours is ordered row, column, channel; a convolution's kernel channel, row, column. Query, key and value are
one matrix of ours. Nothing else differs but names and axes of size one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embodied.core.errors import UserError
from embodied.models.vit import VisionTransformer

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_ROLES = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where another library keeps what is ours.

    Args:
        outer: our names outside the blocks to theirs, without `.weight` and `.bias`.
        blocks: their name of the list of blocks.
        block: our names inside a block to theirs, likewise.
        qkv: their names of query, key and value in a block, or the one of all three.
        relative: their table of relative positions; `{}` stands for the number of the block.
        ignored: patterns of their names that no encoder needs: heads, decoders, mask tokens.
    """

    outer: Mapping[str, str]
    blocks: str
    block: Mapping[str, str]
    qkv: tuple[str, ...]
    relative: str | None = None
    ignored: tuple[str, ...] = field(default=(r".*mask_token",))

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of what makes up one tensor of ours."""
        stem, _, kind = ours.rpartition(".")
        if kind not in ("weight", "bias"):
            stem, kind = ours, ""
        ending = f".{kind}" if kind else ""
        inside = _BLOCK.fullmatch(stem)
        if inside is not None:
            number, part = inside.groups()
            names = self.qkv if part == "qkv" else (self.block[part],)
            return tuple(f"{self.blocks}.{number}.{name}{ending}" for name in names)
        if stem.startswith("relative.") and self.relative is not None:
            return (self.relative.format(stem.split(".")[1]),)
        return (self.outer[stem] + ending,)

    def ignores(self, name: str) -> bool:
        """Whether an encoder can do without this tensor of theirs."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def separate_qkv(attention: str) -> tuple[str, ...]:
    """Names of three projections inside a module of attention, as transformers has them."""
    return tuple(f"{attention}.{role}" for role in _ROLES)


def read_state(state: Mapping[str, Tensor], layout: Layout, vit: VisionTransformer) -> dict[str, Tensor]:
    """Our state dict for `vit` from theirs; a bias that they lack is zero.

    Raises:
        UserError: a tensor of theirs is missing, has another shape, or is not known.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, tensor in vit.state_dict().items():
        names = layout.theirs(ours)
        if ours.endswith("bias") and not any(name in state for name in names):
            found[ours] = torch.zeros_like(tensor)
            continue
        parts = [_part(state, name, ours, tensor, len(names)) for name in names]
        used.update(names)
        found[ours] = _ours(ours, torch.cat(parts), tensor, names)
    if not isinstance(vit.positions, torch.nn.Parameter) and "positions" in layout.outer:
        used.add(layout.outer["positions"])  # a fixed table: whoever chose it has compared it
    left = sorted(name for name in state if name not in used and not layout.ignores(name))
    if left:
        raise UserError(f"these weights hold {len(left)} tensors that are not known here, among them {left[0]}")
    return found


def _part(state: Mapping[str, Tensor], name: str, ours: str, tensor: Tensor, parts: int) -> Tensor:
    if name in state:
        return state[name].detach().float()
    if ours.endswith("bias"):  # of the keys alone, as in BEiT and DINOv3
        return tensor.new_zeros(len(tensor) // parts)
    raise UserError(f"these weights lack {name}")


def _ours(ours: str, theirs: Tensor, like: Tensor, names: tuple[str, ...]) -> Tensor:
    if ours == "embed.weight" and theirs.ndim > 2:
        theirs = theirs.movedim(1, -1).flatten(1)  # (D, 3, P, P) to (D, P*P*3), of tubelets (D, 3, F, P, P) likewise
    same = theirs.shape == like.shape or (theirs.numel() == like.numel() and theirs.shape[-1] == like.shape[-1])
    if not same:
        raise UserError(f"{names[0]}: expected {like.numel()} values for {list(like.shape)}, got {list(theirs.shape)}")
    return theirs.reshape(like.shape).clone()


def write_state(vit: VisionTransformer, layout: Layout, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict from ours, in the shapes of `like`; what is ours only stays under its name of theirs.

    Tensors of theirs that we lack: biases are zero, scales one, ignored ones as in `like`.

    Raises:
        UserError: we lack another one.
    """
    found: dict[str, Tensor] = {}
    state = dict(vit.state_dict())
    if vit.positions is not None and "positions" in layout.outer:
        state["positions"] = vit.positions
    for ours, tensor in state.items():
        names = layout.theirs(ours)
        if ours == "embed.weight":
            side = vit.patch_size
            tensor = tensor.unflatten(1, (-1, side, side, 3)).movedim(-1, 1)  # (D, 3, F, P, P), F = 1 of images
        for name, part in zip(names, tensor.chunk(len(names)), strict=True):
            shape = like[name].shape if name in like else part.shape
            found[name] = part.detach().reshape(shape).clone()
    for name, tensor in like.items():
        if name not in found:
            found[name] = _filler(name, tensor, layout)
    return found


def _filler(name: str, like: Tensor, layout: Layout) -> Tensor:
    if name.endswith(".bias"):
        return torch.zeros_like(like)
    if name.rpartition(".")[2] in ("lambda1", "lambda_1", "lambda_2"):
        return torch.ones_like(like)
    if layout.ignores(name):
        return like.clone()
    raise UserError(f"this encoder has nothing for {name}")
