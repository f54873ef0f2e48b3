"""What one of several robots gives to a head that serves them all, and takes from it.

Legend: B batch, T moments of observation, S samples, N robots, P values of the robot's proprioception, Q the most of
any robot, D the most actions of any robot.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.action_space import pad_actions
from embodied.policies.controller import state_scale


class SharedInput(nn.Module):
    """A robot's proprioception as the head reads it: on the robot's own scale, zeros up to Q, then which robot it is.

    The last N values are 0 but for a 1 at the robot's number: two robots that see the same picture are told apart.

    Args:
        number: of the robot, from 0.
        robots: N.
        state_dim: P.
        largest_state, largest_action: Q and D.

    Raises:
        UsageError: the robot is none of N, or has more than the most.
    """

    def __init__(self, *, number: int, robots: int, state_dim: int, largest_state: int, largest_action: int) -> None:
        super().__init__()
        if not 0 <= number < robots or state_dim > largest_state:
            raise UsageError(
                f"shared: expected a robot below {robots} with at most {largest_state} values of proprioception, got "
                f"number {number} with {state_dim}"
            )
        self.largest_action, self.padding = largest_action, largest_state - state_dim
        self.state_mean: Tensor
        self.register_buffer("state_mean", torch.zeros(state_dim))
        self.state_std: Tensor
        self.register_buffer("state_std", torch.ones(state_dim))
        self.which: Tensor
        self.register_buffer("which", torch.eye(robots)[number], persistent=False)

    @property
    def width(self) -> int:
        """Q + N."""
        return len(self.state_mean) + self.padding + len(self.which)

    def fit_state(self, states: Float[Tensor, "S P"]) -> None:
        """Take mean and deviation of the robot's proprioception; what never moves is only centred."""
        if len(self.state_mean):
            mean, std = state_scale(states)
            self.state_mean.copy_(mean)
            self.state_std.copy_(std)

    def forward(self, states: Float[Tensor, "B T _"]) -> Float[Tensor, "B T _"]:
        """[B, T, P] to [B, T, Q + N]."""
        scaled = (states - self.state_mean) / self.state_std
        padded, _ = pad_actions(scaled, len(self.state_mean) + self.padding)
        return torch.cat([padded, self.which.expand(*states.shape[:2], -1)], dim=-1)


def shared_input(record: Mapping[str, int] | None, *, head: str, recalls: bool, state_dim: int) -> SharedInput | None:
    """Of a policy, from the arguments in its file; None: its controller serves one robot.

    Raises:
        UsageError: head or neck know one robot only.
    """
    if record is not None and (recalls or head == "gr1"):
        raise UsageError(
            "policy.neck=sequence, which an encoder of windows is given, and policy.head=gr1 know the state and the "
            "actions of one robot: for several choose another encoder, or policy.neck=pooled and another head"
        )
    return None if record is None else SharedInput(state_dim=state_dim, **record)
