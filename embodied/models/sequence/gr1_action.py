"""From what GR-1's trunk makes of [ACT] to an action. Legend: A action, D width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.models.sequence.standardize import Standardize


class ActionPrediction(NamedTuple):
    """`arm` float [*batch, A] without the gripper's value, standardised; `gripper` [*batch], a logit, or None."""

    arm: Tensor
    gripper: Tensor | None


class ActionErrors(NamedTuple):
    """`arm`: smooth L1 error of all values but the gripper's, [*batch, A]; `gripper`: its cross-entropy, or None."""

    arm: Tensor
    gripper: Tensor | None


class GR1ActionHead(nn.Module):
    """From what the trunk makes of [ACT] to the action: two linear layers with nothing between them, then one per part.

    As in the released code, where no activation stands between the two. Actions are scaled here: those of the arm have
    mean 0 and deviation 1, the gripper's two values are -1 and 1 (`scale` holds the middle and half the range).

    Args:
        width: D.
        action_dim: A.
        gripper: which of the values is the gripper's, and has two states; None: none has.

    Raises:
        UsageError: there is no such value, or no other.
    """

    def __init__(self, width: int, action_dim: int, *, gripper: int | None = None) -> None:
        super().__init__()
        arm = arm_values(action_dim, gripper, "encoder.gripper")
        self.register_buffer("arm_values", torch.tensor(arm), persistent=False)
        self.action_dim, self.gripper = action_dim, gripper
        self.layers = nn.Sequential(nn.Linear(width, width // 2), nn.Linear(width // 2, width // 2))
        self.arm = nn.Linear(width // 2, len(arm))
        self.hand = None if gripper is None else nn.Linear(width // 2, 1)
        self.scale = Standardize(action_dim)

    def forward(self, features: Float[Tensor, "*batch D"]) -> ActionPrediction:
        hidden = self.layers(features)
        return ActionPrediction(self.arm(hidden), None if self.hand is None else self.hand(hidden)[..., 0])

    def errors(self, prediction: ActionPrediction, actions: Float[Tensor, "*batch A"]) -> ActionErrors:
        """Of every prediction, against actions in units of the data."""
        scaled = self.scale(actions)
        target = scaled[..., self.get_buffer("arm_values")]
        arm = F.smooth_l1_loss(prediction.arm.float(), target, reduction="none")
        if prediction.gripper is None:
            return ActionErrors(arm, None)
        opened = (scaled[..., self.gripper] > 0).float()
        return ActionErrors(
            arm, F.binary_cross_entropy_with_logits(prediction.gripper.float(), opened, reduction="none")
        )

    def agrees(self, prediction: ActionPrediction, actions: Float[Tensor, "*batch A"]) -> Bool[Tensor, "*batch"]:
        """Whether the gripper is predicted as it is."""
        assert prediction.gripper is not None
        return (prediction.gripper > 0) == (self.scale(actions)[..., self.gripper] > 0)

    def actions(self, prediction: ActionPrediction) -> Float[Tensor, "*batch A"]:
        """In units of the data; the gripper as the more probable of its two states."""
        scaled = prediction.arm.new_zeros(*prediction.arm.shape[:-1], self.action_dim)
        scaled[..., self.get_buffer("arm_values")] = prediction.arm
        if prediction.gripper is not None:
            scaled[..., self.gripper] = torch.where(prediction.gripper > 0, 1.0, -1.0).to(scaled.dtype)
        return scaled * self.scale.std + self.scale.mean


def arm_values(count: int, gripper: int | None, setting: str) -> list[int]:
    """The places of all values but the gripper's.

    Raises:
        UsageError: there is no such value, or no other.
    """
    if gripper is None:
        return list(range(count))
    if isinstance(gripper, bool) or not isinstance(gripper, int) or not 0 <= gripper < count or count < 2:
        raise UsageError(f"{setting} must be null or one of 0 to {count - 1}, beside other values, got {gripper!r}")
    return [place for place in range(count) if place != gripper]
