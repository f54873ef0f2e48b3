"""Several short sequences in one row, so that nothing is computed for places where nothing is.

Legend: S sequences, L places of each, R rows, C places of a row, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the tokens of sequences lie in rows; made by `pack_sequences`.

    Attributes:
        source: of every token that is there, its place among the S * L.
        target: of the same, its place among the R * C.
        owner: [R, C], the sequence of each place, -1: nothing is there.
        place: [R, C], the place in its sequence, 0 where nothing is.
        sequences: S and L.
    """

    source: Int[Tensor, " T"]
    target: Int[Tensor, " T"]
    owner: Int[Tensor, "R C"]
    place: Int[Tensor, "R C"]
    sequences: tuple[int, int]

    def pack(self, tokens: Float[Tensor, "S L D"]) -> Float[Tensor, "R C D"]:
        """The rows, zeros where nothing is."""
        rows = tokens.new_zeros(self.owner.numel(), tokens.shape[-1])
        return rows.index_copy(0, self.target, tokens.flatten(0, 1)[self.source]).unflatten(0, self.owner.shape)

    def unpack(self, rows: Float[Tensor, "R C D"]) -> Float[Tensor, "S L D"]:
        """The sequences, zeros where nothing was."""
        count, length = self.sequences
        tokens = rows.new_zeros(count * length, rows.shape[-1])
        return tokens.index_copy(0, self.source, rows.flatten(0, 1)[self.target]).unflatten(0, (count, length))

    def mask(self, within: Bool[Tensor, "L L"] | None = None) -> Bool[Tensor, "R 1 C C"]:
        """True = the place of the row may look at the one of the column: both are of one sequence.

        It is block-diagonal: `attention_rules.mask_from_groups` by the rule `spatial`, with the sequence for a time.
        Places where nothing is look at each other, for a softmax over nothing is no number.

        Args:
            within: what a token of a sequence may look at in it, as `mask_from_groups` gives it; None: everything.
        """
        same = self.owner[:, :, None] == self.owner[:, None, :]  # (R, C, C)
        if within is not None:
            same = same & (within[self.place[:, :, None], self.place[:, None, :]] | (self.owner < 0)[:, :, None])
        return same[:, None]


def pack_sequences(keep: Bool[Tensor, "S L"], *, capacity: int | None = None) -> Packing:
    """Lay sequences into as few rows as first-fit finds when the longest go first (at most 11 / 9 of the fewest).

    Args:
        keep: True = a token is there; any of the places, in any sequence. One without tokens lies nowhere.
        capacity: C, at least the tokens of the longest sequence; None: just these.

    Raises:
        UsageError: a sequence is longer than a row.
    """
    lengths = keep.sum(dim=1)
    counts = lengths.tolist()
    longest = max(counts, default=0)
    size = longest if capacity is None else capacity
    if longest > size:
        raise UsageError(f"capacity must be at least the {longest} tokens of the longest sequence, got {capacity}")
    starts, used = _first_fit(counts, max(size, 1))
    device = keep.device
    source = keep.flatten().nonzero().flatten()  # by sequence, then by place
    owner_of = torch.div(source, keep.shape[1], rounding_mode="floor")
    order = torch.arange(len(source), device=device) - (lengths.cumsum(0) - lengths)[owner_of]  # in its sequence
    target = torch.tensor(starts, device=device, dtype=torch.long)[owner_of] + order
    owner = torch.full((used * max(size, 1),), -1, device=device)
    place = torch.zeros_like(owner)
    owner[target], place[target] = owner_of, source % keep.shape[1]
    shape = (used, max(size, 1))
    return Packing(
        source=source,
        target=target,
        owner=owner.unflatten(0, shape),
        place=place.unflatten(0, shape),
        sequences=(keep.shape[0], keep.shape[1]),
    )


def _first_fit(counts: list[int], size: int) -> tuple[list[int], int]:
    """The first place of each sequence among all rows, and the number of rows, at least one."""
    free: list[int] = []
    starts = [0] * len(counts)
    for number in sorted(range(len(counts)), key=lambda each: -counts[each]):
        row = next((row for row, left in enumerate(free) if left >= counts[number]), len(free))
        if row == len(free):
            free.append(size)
        starts[number] = row * size + size - free[row]
        free[row] -= counts[number]
    return starts, max(1, len(free))
