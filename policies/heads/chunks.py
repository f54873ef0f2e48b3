"""Chunks of actions of which only a part is real.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions.
`pad_mask` [B, H]: True = a real step. `action_mask` [A] or [B, A]: True = this robot has the dimension.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import ActionHead


def check_sizes(head: ActionHead) -> None:
    """Every size that a head is built with is at least 1.

    Raises:
        UsageError: one is not.
    """
    for name in ("feature_dim", "history", "horizon", "action_dim"):
        if (size := getattr(head, name)) < 1:
            raise UsageError(f"{name} of a policy head must be at least 1, got {size}")


def check_features(head: ActionHead, features: Tensor) -> None:
    """Features are [B, T, V] as the head was built for.

    Raises:
        UsageError: they are not.
    """
    if features.ndim != 3 or features.shape[1:] != (head.history, head.feature_dim):
        raise UsageError(
            f"features: expected [B, T={head.history}, V={head.feature_dim}], got {list(features.shape)}: "
            "build the head with the neck's output_dim and the policy's history"
        )


def prepare(
    head: ActionHead, actions: Float[Tensor, "B H A"], pad_mask: Bool[Tensor, "B H"], action_mask: Tensor | None
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
    """Actions in which nothing masked is left, and the weight of every value: 1 = it counts, 0 = masked.

    Padded steps repeat the last real action before them (the first one, where none is before), so that a network that
    mixes time sees a robot that holds still; masked dimensions, and chunks without a real step, are zero. What was
    there, NaN included, can reach neither loss nor gradient.

    Raises:
        UsageError: a shape or the dtype of a mask does not fit.
    """
    expected = (len(actions), head.horizon, head.action_dim)
    if actions.shape != expected:
        raise UsageError(f"actions: expected [B, H={head.horizon}, A={head.action_dim}], got {list(actions.shape)}")
    if pad_mask.shape != actions.shape[:2] or pad_mask.dtype != torch.bool:
        raise UsageError(
            f"pad_mask: expected bool {list(actions.shape[:2])} with True = real step, "
            f"got {pad_mask.dtype} {list(pad_mask.shape)}"
        )
    steps = torch.arange(head.horizon, device=actions.device)
    last = torch.where(pad_mask, steps, -1).cummax(dim=1).values  # (B, H), -1 = no real step so far
    first = pad_mask.int().argmax(dim=1, keepdim=True)
    source = torch.where(last < 0, first, last)
    held = actions.gather(1, source[..., None].expand(expected))
    real = pad_mask.any(dim=1)[:, None, None]
    shown = action_shown(actions, action_mask)
    weight = (pad_mask[..., None] & shown).to(actions.dtype)
    return torch.where(shown & real, held, torch.zeros_like(held)), weight


def action_shown(actions: Float[Tensor, "B H A"], action_mask: Tensor | None) -> Bool[Tensor, "#B 1 A"]:
    """The action mask as it broadcasts over chunks; all True where there is none.

    Raises:
        UsageError: it is neither bool [A] nor bool [B, A].
    """
    batch, _, width = actions.shape
    if action_mask is None:
        return torch.ones(1, 1, width, dtype=torch.bool, device=actions.device)
    if action_mask.shape not in {(width,), (batch, width)} or action_mask.dtype != torch.bool:
        raise UsageError(
            f"action_mask: expected bool [A={width}] or [B={batch}, A={width}] with True = the robot has the "
            f"dimension, got {action_mask.dtype} {list(action_mask.shape)}"
        )
    return action_mask.reshape(-1, 1, width)


def visible(actions: Float[Tensor, "B H A"], action_mask: Tensor | None) -> Float[Tensor, "B H A"]:
    """Actions with masked dimensions zero."""
    if action_mask is None:
        return actions
    return torch.where(action_shown(actions, action_mask), actions, torch.zeros_like(actions))


def weighted_mean(error: Tensor, weight: Tensor) -> Float[Tensor, ""]:
    """Mean of `error` over what counts; 0 where nothing does. Both of one shape.

    A mean over all values, padded ones as zeros (the original ACT), would weigh a step less where chunks overhang.
    """
    return (error * weight).sum() / weight.sum().clamp(min=1)
