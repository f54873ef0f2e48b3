"""Ending an evaluation early without spoiling its interval: confidence sequences for a mean score in [0, 1].

An interval for a fixed number of episodes no longer holds where the number depends on what was seen. A confidence
sequence holds the truth at all numbers of episodes at once, so wherever one stops. Here it is the one of the
beta-binomial mixture (Robbins 1970, Ann. Math. Stat. 41(5); Howard, Ramdas, McAuliffe, Sekhon 2021, arXiv 1810.08240):
with S the sum of the first n scores,

    M_n(m) = B(1/2 + S, 1/2 + n - S) / B(1/2, 1/2) / (m^S (1 - m)^(n - S))

is a likelihood ratio against the mean m: a martingale where the scores are successes of rate m. By Ville's inequality
it ever reaches 1 / alpha with a probability of at most alpha, so {m: M_n(m) < 1 / alpha} for n = 1, 2, ... is a
confidence sequence. For scores between 0 and 1 it is a supermartingale, since (t / m)^x ((1 - t) / (1 - m))^(1 - x) is
convex in x, so it holds there too, wider than it need be; betting (Waudby-Smith & Ramdas 2024, arXiv 2010.09686) would
be narrower where scores vary little.

Episodes count in the order of their seeds, not in that of their ends: successes end sooner than failures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import lgamma, log
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name

PRIOR = 0.5  # both parameters of the mixture's beta distribution: never far worse than the best, nor at 0 and 1
CONFIDENCE = 0.95
_HALVINGS = 60
_ROUNDING = 1e-9  # of a sum of scores


def log_mixture(mean: float, total: float, episodes: int) -> float:
    """log M_n(mean) for scores that add up to `total`; `mean` in (0, 1)."""
    failed = episodes - total
    mixed = lgamma(PRIOR + total) + lgamma(PRIOR + failed) - lgamma(2 * PRIOR + episodes)
    return mixed - 2 * lgamma(PRIOR) + lgamma(2 * PRIOR) - total * log(mean) - failed * log(1 - mean)


def confidence_sequence(total: float, episodes: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The sequence's interval after so many episodes, (low, high) in [0, 1].

    Args:
        total: sum of their scores.
        episodes: how many; 0 gives (0, 1).
        confidence: that the truth is in the intervals of all numbers of episodes.
    """
    if episodes < 0 or not 0 <= total <= episodes + _ROUNDING:
        raise UsageError(f"total must be in [0, episodes], got {total} of {episodes}")
    if not episodes:
        return 0.0, 1.0
    total = float(episodes) if total > episodes - _ROUNDING else total
    rate, bound = total / episodes, -log(1 - confidence)
    low = 0.0 if total == 0 else _crossing(0.0, rate, total, episodes, bound)
    high = 1.0 if total == episodes else _crossing(1.0, rate, total, episodes, bound)
    return low, high


def _crossing(outside: float, inside: float, total: float, episodes: int, bound: float) -> float:
    """Where log M_n passes `bound` between the end of the scale and the observed rate, on the outer side of it."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if middle in (0.0, 1.0):  # a rate so near the end that there is no number between them
            return middle
        if log_mixture(middle, total, episodes) < bound:
            inside = middle
        else:
            outside = middle
    return outside


def simultaneous_bounds(runs: Sequence[Sequence[float]], *, confidence: float = CONFIDENCE) -> np.ndarray:
    """Bounds (low, high) of every run's mean that hold for all of them at once, [R, 2] (Bonferroni).

    A number that rises with every run's mean, such as their mean or interquartile mean, lies between its values at the
    lows and at the highs with that confidence. It is about these trained policies on other episodes.
    """
    each = 1 - (1 - confidence) / max(1, len(runs))
    return np.array([confidence_sequence(float(sum(run)), len(run), confidence=each) for run in runs]).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """When an evaluation has seen enough.

    Args:
        half_width: it stops when half the interval is at most this wide; None: never for that.
        threshold: it stops when the interval excludes this score; None: never for that.
        confidence: of the interval that is looked at after every episode.

    Raises:
        UsageError: a number makes no sense, or both reasons are None.
    """

    half_width: float | None = None
    threshold: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        for name, most in (("half_width", 0.5), ("threshold", 1.0)):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < most):
                raise UsageError(f"early_stopping.{name} must be in (0, {most:g}), got {value!r}")
        if not (_is_number(self.confidence) and 0.5 <= self.confidence < 1):
            raise UsageError(f"early_stopping.confidence must be in [0.5, 1), got {self.confidence!r}")
        if self.half_width is None and self.threshold is None:
            raise UsageError("early_stopping needs a half_width, a threshold, or both: '{half_width: 0.1}'")

    def enough(self, scores: Sequence[float]) -> bool:
        """Whether these episodes, in the order of their seeds, are enough."""
        low, high = confidence_sequence(float(sum(scores)), len(scores), confidence=self.confidence)
        narrow = self.half_width is not None and (high - low) / 2 <= self.half_width
        return narrow or (self.threshold is not None and not low <= self.threshold <= high)

    def record(self) -> dict[str, Any]:
        """JSON-able; `read_sequential_test` is the inverse."""
        return asdict(self)


def read_sequential_test(settings: Any) -> SequentialTest | None:
    """The test that settings describe, None for None.

    Raises:
        UsageError: they are no group, or hold a name or a number that makes no sense.
    """
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise UsageError(f"early_stopping must be a group, '{{half_width: 0.1}}', got {settings!r}")
    known = ("half_width", "threshold", "confidence")
    for name in settings:
        if name not in known:
            raise unknown_name("setting of early_stopping", str(name), known)
    return SequentialTest(**{str(name): value for name, value in settings.items()})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
