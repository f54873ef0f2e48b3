"""Hidden codes found in a few passes of a network, or one by one.

Legend: B batch, T frames, N codes of a frame, V vocabulary, M hidden codes that are wanted, R of them still hidden,
K passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError, unknown_name

Schedule = Literal["cosine", "linear", "square", "cubic", "sqrt"]
Order = Literal["confidence", "random", "raster"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
ORDERS: tuple[Order, ...] = get_args(Order)
_SHARES: dict[Schedule, Callable[[float], float]] = {
    "cosine": lambda progress: math.cos(progress * math.pi / 2),
    "linear": lambda progress: 1 - progress,
    "square": lambda progress: 1 - progress**2,
    "cubic": lambda progress: 1 - progress**3,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
}

Logits = Callable[[Int[Tensor, "B T N"], Bool[Tensor, "B T N"], Int[Tensor, "B R"]], Float[Tensor, "B R V"]]
"""From codes (those that are hidden hold anything), what is hidden, and places in the flattened clip: a pass."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How hidden codes are found.

    Attributes:
        iterations: K; no more than there are codes to find.
        schedule: the share that is still hidden as passes go by: `cosine` (MaskGIT's and MaskViT's choice), `linear`,
            `square`, `cubic`, or `sqrt`, which finds most of them in the first passes.
        order: which codes stay after a pass: those of the highest probability (`confidence`), any (`random`; 1xgpt's
            choice, since sure codes tend to be those that copy the last frame), or the next ones (`raster`).
        temperature: of the Gumbel noise on the logarithm of probabilities in the order by confidence; it falls
            linearly to 0 at the last pass.
        sampling: temperature at which codes are drawn; 0: the most probable one.
        frame_by_frame: K passes for every frame, one after the other, in place of K for all of them.
    """

    iterations: int = 8
    schedule: Schedule = "cosine"
    order: Order = "confidence"
    temperature: float = 4.5
    sampling: float = 0.0
    frame_by_frame: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown_name("decoding.schedule", str(self.schedule), SCHEDULES)
        if self.order not in ORDERS:
            raise unknown_name("decoding.order", str(self.order), ORDERS)
        if self.iterations < 1 or self.temperature < 0 or self.sampling < 0:
            raise UsageError(
                "decoding: expected at least one iteration and temperatures of at least 0, got "
                f"{self.iterations}, {self.temperature} and {self.sampling}"
            )


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What was found.

    Attributes:
        codes: int64 [B, T, N], with the wanted ones filled in.
        passes: forward passes of the network.
    """

    codes: Tensor
    passes: int


def hidden_share(schedule: Schedule, progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1 (Chang et al. 2022, https://arxiv.org/abs/2202.04200, Sec. 3.3)."""
    return 0.0 if progress >= 1 else _SHARES[schedule](progress)


def hidden_counts(schedule: Schedule, iterations: int, count: int) -> list[int]:
    """How many of `count` codes are still hidden after each pass: fewer every time, and none at the end.

    Raises:
        UsageError: there are more passes than codes.
    """
    if not 1 <= iterations <= count:
        raise UsageError(f"iterations must be in [1, {count}], the codes to find, got {iterations}")
    counts: list[int] = []
    for number in range(1, iterations + 1):
        # 1 - 5/6 of 12 is 2, which floats may miss from below.
        wanted = math.floor(hidden_share(schedule, number / iterations) * count + 1e-9 * count)
        # A pass finds at least one, and leaves one for each that follows.
        counts.append(max(min(wanted, (counts[-1] if counts else count) - 1), iterations - number))
    return counts


@torch.no_grad()
def decode(
    logits_of: Logits,
    codes: Int[Tensor, "B T N"],
    *,
    first: int,
    stop: int,
    decoding: Decoding,
    generator: torch.Generator | None = None,
) -> Decoded:
    """Find the codes of frames `first` to `stop`, of which those behind stay hidden.

    Args:
        logits_of: a pass.
        codes: those of frames before `first` are given, the others may hold anything.
        first, stop: at least one frame is given, and one wanted.
        decoding: how.
        generator: on the CPU, for what is drawn; None: nothing is drawn, the order is by probability alone.

    Raises:
        UsageError: numbers make no sense, or a random order or draw lacks a generator.
    """
    frames = codes.shape[1]
    if not 1 <= first < stop <= frames:
        raise UsageError(
            f"expected at least one frame given and one wanted of {frames}, got {first} and {stop - first}"
        )
    if generator is None:
        if decoding.order == "random" or decoding.sampling:
            raise UsageError("decoding.order=random and decoding.sampling draw: they need a generator")
        decoding = replace(decoding, temperature=0.0)
    passes = 0
    parts = [(each, each + 1) for each in range(first, stop)] if decoding.frame_by_frame else [(first, stop)]
    for start, end in parts:
        wanted = (end - start) * codes.shape[2]
        counts = hidden_counts(decoding.schedule, min(decoding.iterations, wanted), wanted)
        codes = _find(logits_of, codes, start, end, counts, decoding, generator)
        passes += len(counts)
    return Decoded(codes=codes, passes=passes)


def decode_one_by_one(
    logits_of: Logits,
    codes: Int[Tensor, "B T N"],
    *,
    first: int,
    stop: int,
    sampling: float = 0.0,
    generator: torch.Generator | None = None,
) -> Decoded:
    """The same codes autoregressively, frame by frame in raster order: a pass for every code.

    Raises:
        UsageError: as of `decode`.
    """
    count = codes.shape[2] * (stop - first)
    decoding = Decoding(iterations=max(count, 1), schedule="linear", order="raster", sampling=sampling)
    return decode(logits_of, codes, first=first, stop=stop, decoding=decoding, generator=generator)


def _find(
    logits_of: Logits,
    codes: Int[Tensor, "B T N"],
    first: int,
    stop: int,
    counts: Sequence[int],
    decoding: Decoding,
    generator: torch.Generator | None,
) -> Int[Tensor, "B T N"]:
    """The codes with those of frames `first` to `stop` found."""
    batch, frames, places = codes.shape
    found = codes.flatten(1).clone()
    hidden = (torch.arange(frames * places, device=codes.device) >= first * places).expand(batch, -1).clone()
    rest = torch.arange(first * places, stop * places, device=codes.device).expand(batch, -1)  # (B, R), ascending
    for number, keep in enumerate(counts, start=1):
        now = rest.shape[1] - keep
        asked = rest[:, :now] if decoding.order == "raster" else rest
        logits = logits_of(found.unflatten(1, (frames, places)), hidden.unflatten(1, (frames, places)), asked).float()
        chosen, surety = choose_codes(logits, sampling=decoding.sampling, generator=generator)
        if decoding.order != "raster":
            score = _score(surety, decoding, decoding.temperature * (1 - number / len(counts)), generator)
            order = score.argsort(dim=1, descending=True, stable=True)
            rest = rest.gather(1, torch.cat([order[:, :now], order[:, now:].sort(dim=1).values], dim=1))
            asked, chosen = rest[:, :now], chosen.gather(1, order[:, :now])
        found.scatter_(1, asked, chosen)
        hidden.scatter_(1, asked, value=False)
        rest = rest[:, now:]
    return found.unflatten(1, (frames, places))


def choose_codes(
    logits: Float[Tensor, "B R V"], *, sampling: float, generator: torch.Generator | None
) -> tuple[Int[Tensor, "B R"], Float[Tensor, "B R"]]:
    """A code for every place, and the logarithm of its probability.

    Args:
        logits: as they come.
        sampling: temperature of the draw; 0: the most probable code, the first of equal ones.
        generator: on the CPU; not needed where nothing is drawn.
    """
    drawn = logits / sampling + gumbel(logits, generator) if sampling else logits
    chosen = drawn.argmax(dim=-1)
    return chosen, logits.log_softmax(dim=-1).gather(-1, chosen[..., None])[..., 0]


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise of Gumbel's distribution: the largest of logits with it is a draw from their softmax."""
    # A draw of exactly 0 would be infinite.
    waits = torch.empty(like.shape).exponential_(generator=generator).clamp(min=torch.finfo(torch.float32).tiny)
    return -waits.log().to(like.device)


def _score(surety: Tensor, decoding: Decoding, temperature: float, generator: torch.Generator | None) -> Tensor:
    """What is shown first is highest."""
    if decoding.order == "random":
        return torch.rand(surety.shape, generator=generator).to(surety.device)
    return surety + temperature * gumbel(surety, generator) if temperature else surety
