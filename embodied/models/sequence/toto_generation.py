"""Toto goes on: codes one after the other, each from all before it.

Legend: B batch, T frames given, F frames to come, N codes of a frame, V codes that there are, A action, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.models.sequence.llama import Cache
from embodied.models.sequence.toto import TotoNetwork
from embodied.models.sequence.toto_tokens import FIRST_CODE


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a code is drawn.

    Args:
        temperature: logits are divided by it; 0: the likeliest code.
        top_k: only so many of the likeliest codes; None: all.
    """

    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be a number of at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, got {self.top_k}")

    def draw(self, logits: Float[Tensor, "B V4"], lot: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """A code each: what is no code, the end of the sequence for one, cannot be drawn.

        Args:
            logits: of codes and what is none, see `TotoNetwork.logits`.
            lot: uniform in [0, 1).
        """
        scores = logits[:, FIRST_CODE:].float()
        if self.temperature == 0:
            return scores.argmax(dim=1)
        if self.top_k is not None and self.top_k < scores.shape[1]:
            least = scores.topk(self.top_k, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        total = (scores / self.temperature).softmax(dim=1).double().cumsum(dim=1)
        drawn = torch.searchsorted(total, lot.double()[:, None] * total[:, -1:], right=True)[:, 0]
        return drawn.clamp(max=scores.shape[1] - 1)


@torch.no_grad()
def continue_frames(
    network: TotoNetwork,
    codes: Int[Tensor, "B T N"],
    *,
    frames: int,
    generator: torch.Generator,
    sampling: Sampling | None = None,
    actions: Float[Tensor, "B TF A"] | None = None,
    away: Bool[Tensor, "B TF"] | None = None,
    cached: bool = True,
) -> Int[Tensor, "B F N"]:
    """The frames that follow, drawn code by code.

    Args:
        network: what goes on; T + F is at most its context.
        codes: of the frames that are given, at least one.
        frames: F.
        generator: on the CPU; one number is drawn of it for each code, whatever the sampling.
        sampling: by default the model's own distribution.
        actions: standardised, of the frames that are given and of those to come; the last one is not looked at.
        away: True = the action is not known.
        cached: keep keys and values, so that a code costs one token; else all tokens are read again for each code.

    Raises:
        UsageError: there is no frame, or more than the network's context.
    """
    batch, given, count = codes.shape
    if given < 1 or frames < 1 or given + frames > network.context:
        raise UsageError(
            f"expected at least one frame given and one to come, {network.context} at most (the encoder's context), "
            f"got {given} and {frames}"
        )
    sampling = sampling or Sampling()
    lots = torch.rand(frames, count, batch, generator=generator).to(codes.device)
    read = _Cached(network, given + frames, actions, away) if cached else _Reread(network, actions, away)
    found = codes
    for number in range(frames):
        drawn = found.new_zeros(batch, 0)
        for place in range(count):
            logits = read(found, drawn)
            code = sampling.draw(logits, lots[number, place])
            drawn = torch.cat([drawn, code[:, None]], dim=1)
        found = torch.cat([found, drawn[:, None]], dim=1)
    return found[:, given:]


class _Reread:
    """Logits of the next code, all tokens read again: slow and plain."""

    def __init__(self, network: TotoNetwork, actions: Tensor | None, away: Tensor | None) -> None:
        self._network, self._actions, self._away = network, actions, away

    def __call__(self, frames: Int[Tensor, "B T N"], drawn: Int[Tensor, "B n"]) -> Float[Tensor, "B V4"]:
        network, shown = self._network, frames.shape[1]
        rest = drawn.new_zeros(len(drawn), frames.shape[2] - drawn.shape[1])  # nobody looks ahead at it
        codes = torch.cat([frames, torch.cat([drawn, rest], dim=1)[:, None]], dim=1)
        actions, away = (None if part is None else part[:, : shown + 1] for part in (self._actions, self._away))
        tokens = network.tokens(codes, actions, away)
        place = network.tokens.places(shown + 1, codes.device)[-1, drawn.shape[1]] - 1
        return network.logits(network.trunk(tokens)[:, place])


class _Cached:
    """The same, by reading only what is new: see `llama.Cache`."""

    def __init__(self, network: TotoNetwork, frames: int, actions: Tensor | None, away: Tensor | None) -> None:
        self._network, self._actions, self._away = network, actions, away
        self._cache = Cache(network.depth, network.tokens.length(frames))

    def __call__(self, frames: Int[Tensor, "B T N"], drawn: Int[Tensor, "B n"]) -> Float[Tensor, "B V4"]:
        network = self._network
        return network.logits(network.trunk(self._new(frames, drawn), cache=self._cache)[:, -1])

    def _new(self, frames: Tensor, drawn: Tensor) -> Float[Tensor, "B L D"]:
        """What was not read yet: at first all frames, then the code drawn last, at a frame's end with the action."""
        tokens = self._network.tokens
        if not self._cache.length:
            return self._with_action(tokens(frames, *self._known(0, frames.shape[1])), frames.shape[1])
        if drawn.shape[1]:
            return tokens.table(drawn[:, -1:] + FIRST_CODE)
        return self._with_action(tokens.table(frames[:, -1, -1:] + FIRST_CODE), frames.shape[1])

    def _with_action(self, read: Tensor, frames: int) -> Tensor:
        tokens = self._network.tokens
        if not tokens.action_dim:
            return read
        actions, away = self._known(frames - 1, frames)
        return torch.cat([read, tokens.done(torch.Size((len(read), 1)), actions, away).to(read.dtype)], dim=1)

    def _known(self, start: int, stop: int) -> tuple[Tensor | None, Tensor | None]:
        actions, away = (None if part is None else part[:, start:stop] for part in (self._actions, self._away))
        return actions, away
