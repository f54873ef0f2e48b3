"""Candidates for planners: bounds, and noise that is alike from one action to the next.

Legend: B environments, K candidates, H actions of a plan, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embodied.core.errors import UsageError, UserError, unknown_name

Score = Callable[[Float[Tensor, "B K H A"]], Float[Tensor, "B K"]]
"""What candidates cost; less is better."""

Draw = Callable[[int, int], Float[Tensor, "B K H A"]]
"""Standard normal noise of an iteration (the first argument) for K candidates (the second)."""

NoiseKind = Literal["white", "correlated", "colored"]
"""How the noise of a plan's actions belongs together: not at all; as in VP2; by a power law, as in iCEM."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What an environment takes.

    Args:
        low, high: [A], finite.

    Raises:
        UsageError: an action has no bounds, so that nothing says how far to search.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (isfinite(low) and isfinite(high) and low < high):
                raise UsageError(f"a planner searches between bounds: action[{index}] has [{low:g}, {high:g}]")

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high [A], of the dtype and on the device of `like`."""
        return like.new_tensor(self.low), like.new_tensor(self.high)

    def centre(self, like: Tensor) -> Float[Tensor, " A"]:
        """In the middle."""
        low, high = self.tensors(like)
        return (low + high) / 2

    def half_range(self, like: Tensor) -> Float[Tensor, " A"]:
        """From the middle to the bounds."""
        low, high = self.tensors(like)
        return (high - low) / 2

    def clip(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """The nearest actions that are allowed."""
        low, high = self.tensors(actions)
        return actions.clamp(low, high)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a planner found.

    Args:
        actions: inside the bounds.
        cost: of these actions, by the model.
    """

    actions: Float[Tensor, "B H A"]
    cost: Float[Tensor, " B"]


def shaped_noise(
    white: Float[Tensor, "*batch H A"], kind: NoiseKind, beta: float, *, unit: bool = False
) -> Float[Tensor, "*batch H A"]:
    """White noise as noise that belongs together along H.

    `correlated` (VP2, Tian et al. 2023, https://arxiv.org/abs/2304.13723): n_t = beta n_(t-1) + (1 - beta) u_t, with
    n_0 = u_0. As there, later actions vary less: in the end by the factor sqrt((1 - beta) / (1 + beta)).
    `colored` (iCEM, Pinneri et al. 2020, https://arxiv.org/abs/2008.06389): its power falls with frequency as
    1 / f^beta, and its variance is 1.

    Args:
        white: standard normal.
        kind: of the noise.
        beta: in [0, 1) for `correlated`, at least 0 for `colored`; `white` ignores it.
        unit: bring every action's `correlated` noise to variance 1.
    """
    if kind == "white":
        return white
    if kind == "correlated":
        steps, variance, scales = [white[..., 0, :]], 1.0, [1.0]
        for step in range(1, white.shape[-2]):
            steps.append(beta * steps[-1] + (1 - beta) * white[..., step, :])
            variance = beta**2 * variance + (1 - beta) ** 2
            scales.append(variance**-0.5 if unit else 1.0)
        return torch.stack(steps, dim=-2) * white.new_tensor(scales)[:, None]
    length = white.shape[-2]
    frequency = torch.fft.rfftfreq(length, device=white.device).clamp(min=1 / length)
    gain = frequency.pow(-beta / 2).to(white.dtype)
    twice = torch.full_like(gain, 2.0)  # how often a frequency stands in the whole spectrum
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    gain = gain / ((gain.square() * twice).sum() / length).sqrt()
    return torch.fft.irfft(torch.fft.rfft(white, dim=-2) * gain[:, None], n=length, dim=-2)


def check_noise(kind: str, beta: float) -> None:
    """Refuse a kind of noise that there is not, or a beta that it cannot have."""
    if kind not in get_args(NoiseKind):
        raise unknown_name("noise of a planner", str(kind), get_args(NoiseKind))
    if not 0 <= beta < (1 if kind == "correlated" else 8):
        raise UsageError(f"beta of {kind} noise must be in [0, {1 if kind == 'correlated' else 8}), got {beta}")


def check_counts(**counts: object) -> None:
    """Refuse what is no whole number of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} of a planner must be a whole number of at least 1, got {value!r}")


def finite_costs(costs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Costs with those that are no numbers as bad as the worst of their row.

    Raises:
        UserError: none of a row is a number.
    """
    fine = costs.isfinite()
    if bool(fine.all()):
        return costs
    if not bool(fine.any(dim=1).all()):
        raise UserError(
            "the world model predicts no numbers: no plan can be told from another; look at its predictions"
        )
    worst = torch.where(fine, costs, torch.full_like(costs, -torch.inf)).amax(dim=1, keepdim=True)
    return torch.where(fine, costs, worst)


def taken(candidates: Float[Tensor, "B K ..."], index: Int[Tensor, " B"]) -> Float[Tensor, "B ..."]:
    """One candidate per row."""
    rows = torch.arange(len(candidates), device=candidates.device)
    return candidates[rows, index]
