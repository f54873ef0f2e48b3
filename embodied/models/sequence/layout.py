"""The order of tokens in a sequence: step by step, and within a step kind by kind.

Legend: B batch, T steps, N tokens of a kind in a step, S tokens of a step, L = T * S tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embodied.core.errors import UsageError


class Layout:
    """Interleaves the tokens of several kinds, and takes them apart again.

    Args:
        tokens: how many tokens of each kind (N) a step has, in the order in which they stand in it.
        queries: the kinds that only ask: the rule `hidden_queries` keeps others from looking at them.

    Raises:
        UsageError: there is no kind, a number is below 1, or a query is none of the kinds.
    """

    def __init__(self, tokens: Mapping[str, int], *, queries: Collection[str] = ()) -> None:
        if not tokens or min(tokens.values()) < 1:
            raise UsageError(f"tokens: expected kinds with at least one token in a step each, got {dict(tokens)}")
        if unknown := sorted(set(queries) - set(tokens)):
            raise UsageError(f"queries: {', '.join(unknown)} is none of {', '.join(tokens)}")
        self.tokens, self.queries = dict(tokens), frozenset(queries)
        stops = list(accumulate(self.tokens.values()))
        self._spans = {
            name: slice(stop - count, stop) for (name, count), stop in zip(self.tokens.items(), stops, strict=True)
        }

    @property
    def step_tokens(self) -> int:
        """S."""
        return sum(self.tokens.values())

    def interleave(self, parts: Mapping[str, Float[Tensor, "B T N D"]]) -> Float[Tensor, "B L D"]:
        """One sequence of the tokens of every kind.

        Raises:
            UsageError: a kind is missing or too many, or has another number of tokens or steps.
        """
        if parts.keys() != self.tokens.keys():
            raise UsageError(f"tokens: expected those of {sorted(self.tokens)}, got {sorted(parts)}")
        steps = {part.shape[1] for part in parts.values()}
        for name, part in parts.items():
            if part.ndim != 4 or part.shape[2] != self.tokens[name] or len(steps) > 1:
                expected = f"[B, T, {self.tokens[name]}, D] with one T for all"
                raise UsageError(f'tokens["{name}"]: expected {expected}, got {list(part.shape)}')
        return torch.cat([parts[name] for name in self.tokens], dim=2).flatten(1, 2)

    def split(self, sequence: Float[Tensor, "B L D"]) -> dict[str, Float[Tensor, "B T N D"]]:
        """The inverse of `interleave`."""
        if sequence.shape[1] % self.step_tokens:
            raise UsageError(f"expected a multiple of {self.step_tokens} tokens, got {sequence.shape[1]}")
        steps = sequence.unflatten(1, (-1, self.step_tokens))  # (B, T, S, D)
        return {name: steps[:, :, span] for name, span in self._spans.items()}

    def group_ids(self, steps: int, *, device: torch.device | None = None) -> Int[Tensor, " L"]:
        """The number of each token's kind; of queries -1 minus it."""
        numbers = [-1 - index if name in self.queries else index for index, name in enumerate(self.tokens)]
        counts = torch.tensor(list(self.tokens.values()), device=device)
        return torch.tensor(numbers, device=device).repeat_interleave(counts).repeat(steps)

    def time_ids(self, steps: int, *, device: torch.device | None = None) -> Int[Tensor, " L"]:
        """The step of each token."""
        return torch.arange(steps, device=device).repeat_interleave(self.step_tokens)
