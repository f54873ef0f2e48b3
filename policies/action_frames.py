"""What an action is measured from: absolute targets, offsets from the present state, or steps from the one before.

Pure functions on chunks; importers and robots use them on both sides of a policy.

Legend: H chunk, A action dimensions. The state is in the actions' units and order, where the robot is now.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import UsageError


def to_relative(
    actions: Float[Tensor, "*batch H A"],
    state: Float[Tensor, "*batch A"],
    *,
    converted: Bool[Tensor, " A"] | None = None,
    angles: Bool[Tensor, " A"] | None = None,
) -> Float[Tensor, "*batch H A"]:
    """Absolute targets as offsets from the present state, the same state for the whole chunk (pi0, UMI).

    Args:
        actions: absolute targets.
        state: at the chunk's first step.
        converted: True = this dimension is converted, as joints are and grippers are not; None: all.
        angles: True = radians of a joint that turns freely; the offset is the shorter way round, in [-pi, pi).
    """
    _check(actions, state)
    return _choose(converted, wrap(actions - state[..., None, :], angles), actions)


def from_relative(
    relative: Float[Tensor, "*batch H A"],
    state: Float[Tensor, "*batch A"],
    *,
    converted: Bool[Tensor, " A"] | None = None,
) -> Float[Tensor, "*batch H A"]:
    """The inverse of `to_relative`, of angles but for whole turns: a chunk of them goes on past pi, without a jump."""
    _check(relative, state)
    return _choose(converted, relative + state[..., None, :], relative)


def to_delta(
    actions: Float[Tensor, "*batch H A"],
    state: Float[Tensor, "*batch A"],
    *,
    converted: Bool[Tensor, " A"] | None = None,
    angles: Bool[Tensor, " A"] | None = None,
) -> Float[Tensor, "*batch H A"]:
    """Absolute targets as steps: the first from the present state, each other one from the target before it."""
    _check(actions, state)
    before = torch.cat([state[..., None, :], actions[..., :-1, :]], dim=-2)
    return _choose(converted, wrap(actions - before, angles), actions)


def from_delta(
    delta: Float[Tensor, "*batch H A"],
    state: Float[Tensor, "*batch A"],
    *,
    converted: Bool[Tensor, " A"] | None = None,
) -> Float[Tensor, "*batch H A"]:
    """The inverse of `to_delta`, of angles but for whole turns: the state plus the running sum."""
    _check(delta, state)
    return _choose(converted, state[..., None, :] + delta.cumsum(dim=-2), delta)


def rotation_to_relative(
    rotations: Float[Tensor, "*batch H 3 3"], state: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch H 3 3"]:
    """Orientations of an end effector in the frame of its present one: R_now^T R (UMI)."""
    return state[..., None, :, :].transpose(-1, -2) @ rotations


def rotation_from_relative(
    relative: Float[Tensor, "*batch H 3 3"], state: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch H 3 3"]:
    """The inverse of `rotation_to_relative`."""
    return state[..., None, :, :] @ relative


def rotation_to_delta(
    rotations: Float[Tensor, "*batch H 3 3"], state: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch H 3 3"]:
    """Each orientation in the frame of the one before it, the first in that of the present one."""
    before = torch.cat([state[..., None, :, :], rotations[..., :-1, :, :]], dim=-3)
    return before.transpose(-1, -2) @ rotations


def rotation_from_delta(
    delta: Float[Tensor, "*batch H 3 3"], state: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch H 3 3"]:
    """The inverse of `rotation_to_delta`."""
    found = []
    present = state
    for step in delta.unbind(dim=-3):
        present = present @ step
        found.append(present)
    return torch.stack(found, dim=-3)


def _check(actions: Tensor, state: Tensor) -> None:
    expected = [*actions.shape[:-2], actions.shape[-1]]
    if list(state.shape) != expected:
        raise UsageError(f"state: expected {expected} for actions {list(actions.shape)}, got {list(state.shape)}")


def wrap(values: Float[Tensor, "*batch A"], angles: Bool[Tensor, " A"] | None) -> Float[Tensor, "*batch A"]:
    """The same with angles in [-pi, pi)."""
    if angles is None:
        return values
    return torch.where(angles, torch.remainder(values + math.pi, 2 * math.pi) - math.pi, values)


def _choose(converted: Tensor | None, values: Tensor, unchanged: Tensor) -> Tensor:
    return values if converted is None else torch.where(converted, values, unchanged)
