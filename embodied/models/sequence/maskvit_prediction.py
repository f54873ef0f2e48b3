"""Clips continued by MaskViT's network.

Legend: B batch, T frames, N codes of a frame, R places, A action, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION
from embodied.models.sequence.mask_decoding import Decoded, Decoding, decode, decode_one_by_one
from embodied.models.sequence.maskvit import MaskViTNetwork


@dataclass(frozen=True)
class Pass:
    """A pass of the network under given actions, as `mask_decoding.decode` wants it.

    Attributes:
        network: what passes.
        actions: normalised, [B, T, A].
        unknown: [B, T], True = hidden.
    """

    network: MaskViTNetwork
    actions: Tensor
    unknown: Tensor

    def __call__(
        self, codes: Int[Tensor, "B T N"], hidden: Bool[Tensor, "B T N"], places: Int[Tensor, "B R"]
    ) -> Float[Tensor, "B R V"]:
        network = self.network
        values = {network.view: codes, ACTION: self.actions}
        tokens = network(values, {network.view: hidden, ACTION: self.unknown})[network.view].flatten(1, 2)
        return network.logits(tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1])))


@torch.no_grad()
def continue_clips(
    network: MaskViTNetwork,
    codes: Int[Tensor, "B T N"],
    actions: Float[Tensor, "B T A"],
    unknown: Bool[Tensor, "B T"],
    *,
    context: int,
    decoding: Decoding,
    generator: torch.Generator | None = None,
    one_by_one: bool = False,
) -> Decoded:
    """The codes of clips, of which the first `context` frames are given and the others predicted.

    The network always sees as many frames as in training; those that are not wanted stay hidden. Clips that are longer
    are continued piece by piece, each from the last `context` frames before it.

    Args:
        network: in eval mode.
        codes: those after the context may hold anything.
        actions: normalised; `action[:, t]` leads to frame t + 1, the last one nowhere.
        unknown: of actions, True = hidden.
        context: see above.
        decoding: how codes are found.
        generator: see `mask_decoding.decode`.
        one_by_one: every code in a pass of its own, in raster order, for comparison.

    Raises:
        UsageError: the context is longer than the clips, or leaves nothing to predict in as many frames as the network
            knows.
    """
    length, total = network.context, codes.shape[1]
    if not 1 <= context <= min(length - 1, total):
        raise UsageError(f"context must be within 1 to {min(length - 1, total)} frames, got {context}")
    found, done, passes = codes.clone(), context, 0
    unknown = torch.cat([unknown[:, :-1], torch.ones_like(unknown[:, -1:])], dim=1)
    while done < total:
        start = max(0, done - context)
        stop = min(start + length, total)
        window = _cut(found, start, length)
        logits_of = Pass(network, _cut(actions, start, length), _cut(unknown, start, length, beyond=True))
        first, last = done - start, stop - start
        if one_by_one:
            part = decode_one_by_one(
                logits_of, window, first=first, stop=last, sampling=decoding.sampling, generator=generator
            )
        else:
            part = decode(logits_of, window, first=first, stop=last, decoding=decoding, generator=generator)
        found[:, done:stop] = part.codes[:, first:last]
        done, passes = stop, passes + part.passes
    return Decoded(codes=found, passes=passes)


def _cut(values: Tensor, start: int, length: int, *, beyond: bool = False) -> Tensor:
    """`length` steps from `start` on, with `beyond` for those that there are not."""
    part = values[:, start : start + length]
    rest = part.new_full((len(part), length - part.shape[1], *part.shape[2:]), beyond)
    return torch.cat([part, rest], dim=1)
