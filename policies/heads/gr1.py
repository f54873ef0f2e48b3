"""GR-1's action head as a controller's: what was pre-trained goes on as it is.

Legend: B batch, T moments of observation, V values of a moment, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.gr1 import GR1Encoder
from embodied.models.sequence.gr1_action import GR1ActionHead
from embodied.policies.heads.chunks import ChunkHead, Target, weighted_mean
from embodied.policies.necks.sequence import SequenceNeck

NAME = "gr1"


class GR1Head(ChunkHead):
    """One action: the arm's values by regression, the gripper's as one of two states.

    Source: Wu et al. 2023 (https://arxiv.org/abs/2312.13139), see `GR1ActionHead`. Actions are taken and given in units
    of the data, since the pre-trained head has its scale.

    Args:
        feature_dim: V.
        action_dim: A.
        history: T.
        horizon: 1.
        gripper: which of the values is the gripper's; None: none is.
        gripper_weight: of its cross-entropy, beside the arm's smooth L1 error.

    Raises:
        UsageError: a chunk is asked for.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 1,
        gripper: int | None = None,
        gripper_weight: float = 0.01,
    ) -> None:
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        if horizon != 1:
            raise UsageError(f"policy.head=gr1 predicts one action: policy.chunk must be 1, got {horizon}")
        self.network = GR1ActionHead(history * feature_dim, action_dim, gripper=gripper)
        self.gripper_weight = gripper_weight

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Smooth L1 of the arm and cross-entropy of the gripper, averaged over what is real. Nothing is drawn."""
        predicted = self.network(features.flatten(1))
        actions, weight = target.actions[:, 0], target.weight[:, 0]
        errors = self.network.errors(predicted, actions)
        loss = weighted_mean(errors.arm, weight[:, self.network.get_buffer("arm_values")])
        if errors.gripper is not None:
            loss = loss + self.gripper_weight * weighted_mean(errors.gripper, weight[:, self.network.gripper])
        distance = weighted_mean((self.network.actions(predicted).detach() - actions).abs(), weight)
        return loss, {"action_error": distance}

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B 1 A"]:
        """The predicted action."""
        return self.network.actions(self.network(features.flatten(1)))[:, None]


@dataclass(frozen=True)
class OwnHead:
    """The action head of a GR-1 encoder.

    Args:
        pretrained: its head.
        fresh: only its scale is taken, not its weights.
    """

    pretrained: GR1ActionHead
    fresh: bool

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `GR1Head` that go with it."""
        return {"gripper": self.pretrained.gripper}

    def give(self, head: nn.Module) -> None:
        """Copy it into a controller's head."""
        assert isinstance(head, GR1Head), type(head)
        kept = {name: tensor for name, tensor in self.pretrained.state_dict().items() if name.startswith("scale.")}
        head.network.load_state_dict(kept if self.fresh else self.pretrained.state_dict(), strict=False)


def own_head(encoder: nn.Module, head: str, *, action_dim: int, neck: nn.Module | None) -> OwnHead | None:
    """What `policy.head=gr1` starts from; None for other heads.

    Raises:
        UsageError: the encoder has no such head, or one for other actions.
    """
    if head != NAME:
        return None
    found = encoder.network.action_head if isinstance(encoder, GR1Encoder) else None
    if found is None or not isinstance(neck, SequenceNeck):
        raise UsageError(
            "policy.head=gr1 is the action head that embodied pretrain objective=gr1 trains on data with actions: give "
            "such an encoder, or choose another head"
        )
    if neck.readout is not None or neck.beside is not None:
        raise UsageError("policy.head=gr1 reads what it was trained on: leave readout and state_beside of its neck out")
    if found.action_dim != action_dim:
        raise UsageError(
            f"the encoder's action head gives {found.action_dim} values, this task takes {action_dim}: choose another "
            "policy.head"
        )
    return OwnHead(found, neck.fresh)


HEAD = GR1Head
