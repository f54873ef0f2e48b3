"""What all heads share: chunks of actions of which only a part is real, and noise that is given or drawn.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions.
`pad_mask` [B, H]: True = a real step. `action_mask` [A] or [B, A]: True = this robot has the dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ActionHead
from embodied.policies.heads.randomness import given_or_drawn


class Sizes(TypedDict):
    """What every preset of a head takes: V and A."""

    feature_dim: int
    action_dim: int


class Target(NamedTuple):
    """Demonstrated chunks, ready for a loss: what is masked is gone from `actions` and weighs nothing, see `prepare`.

    `actions` and `weight` float [B, H, A], `pad_mask` bool [B, H], `action_mask` bool [A] or [B, A], or None for all.
    """

    actions: Tensor
    weight: Tensor
    pad_mask: Tensor
    action_mask: Tensor | None

    @property
    def real(self) -> Bool[Tensor, " B"]:
        """Which chunks have a real step at all."""
        return self.pad_mask.any(dim=1)


class ChunkHead(nn.Module, ABC):
    """An `ActionHead` whose method is two functions: `chunk_loss` and `chunk`. Sizes, masks and noise are done here.

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A.

    Raises:
        UsageError: one of them is less than 1.
    """

    bounded = False

    def __init__(self, *, feature_dim: int, action_dim: int, history: int, horizon: int) -> None:
        super().__init__()
        self.feature_dim, self.history, self.horizon, self.action_dim = feature_dim, history, horizon, action_dim
        for name in ("feature_dim", "history", "horizon", "action_dim"):
            if (size := getattr(self, name)) < 1:
                raise UsageError(f"{name} of a policy head must be at least 1, got {size}")

    def loss(
        self,
        features: Float[Tensor, "B T V"],
        actions: Float[Tensor, "B H A"],
        pad_mask: Bool[Tensor, "B H"],
        *,
        action_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The head's `chunk_loss` of what is real; see `core.protocols.ActionHead`.

        Raises:
            UsageError: a shape or the dtype of a mask does not fit.
        """
        self._check_features(features)
        prepared = prepare(self, actions, pad_mask, action_mask)
        return self.chunk_loss(features, Target(*prepared, pad_mask, action_mask), generator)

    def noise_shape(self, batch_size: int) -> tuple[int, ...] | None:
        """None: nothing is drawn."""
        return None

    def sample(
        self,
        features: Float[Tensor, "B T V"],
        *,
        action_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """The head's `chunk`, masked dimensions zero; see `core.protocols.ActionHead`.

        Raises:
            UsageError: a shape or the dtype of a mask does not fit.
        """
        self._check_features(features)
        shape = self.noise_shape(features.shape[0])
        drawn = features.new_empty(0) if shape is None else given_or_drawn(noise, shape, generator, like=features)
        return visible(self.chunk(features, drawn, action_mask), action_mask)

    @abstractmethod
    def chunk_loss(
        self, features: Tensor, target: Target, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and scalar metrics of the method, of what `target` weighs. Features are as they should be."""

    @abstractmethod
    def chunk(self, features: Tensor, noise: Tensor, action_mask: Tensor | None) -> Tensor:
        """A chunk [B, H, A] from noise of `noise_shape`, which is empty where nothing is drawn.

        Masked dimensions become zero afterwards; a method that goes on computing with its chunk hides them itself.
        """

    def _check_features(self, features: Tensor) -> None:
        if features.ndim != 3 or features.shape[1:] != (self.history, self.feature_dim):
            raise UsageError(
                f"features: expected [B, T={self.history}, V={self.feature_dim}], got {list(features.shape)}: "
                "build the head with the neck's output_dim and the policy's history"
            )


def prepare(
    head: ActionHead, actions: Float[Tensor, "B H A"], pad_mask: Bool[Tensor, "B H"], action_mask: Tensor | None
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
    """Actions in which nothing masked is left, and the weight of every value: 1 = it counts, 0 = masked.

    Padded steps repeat the last real action before them (the first one, where none is before), so that a network that
    mixes time sees a robot that holds still; masked dimensions, and chunks without a real step, are zero. What was
    there, NaN included, can reach neither loss nor gradient. What was prepared once stays as it is.

    Raises:
        UsageError: a shape or the dtype of a mask does not fit.
    """
    expected = (actions.shape[0], head.horizon, head.action_dim)
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
    # A list: sizes in a graph that is being traced cannot be hashed.
    if action_mask.shape not in [(width,), (batch, width)] or action_mask.dtype != torch.bool:
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
