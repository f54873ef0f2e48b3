"""Action spaces, and the scale on which a head sees their actions. Legend: F frames, H chunk, A action dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, UserError, unknown_name

Kind = Literal["zscore", "minmax", "quantile", "units"]
QUANTILES = (0.01, 0.99)
CONSTANT = 1e-4  # a dimension that varies less than this keeps its scale: dividing by it would blow up noise


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """What an environment or a robot takes.

    Args:
        low, high: [A], in its units.
        names: of the dimensions, [A], or none.
        gripper: dimensions that open and close.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()
    gripper: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or (self.names and len(self.names) != len(self.low)):
            raise UsageError(
                f"action space: expected low, high and names of one length, got {len(self.low)}, {len(self.high)} "
                f"and {len(self.names)}"
            )
        if any(not 0 <= index < len(self.low) for index in self.gripper):
            raise UsageError(f"action space: gripper must name dimensions below {len(self.low)}, got {self.gripper}")

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `record`."""
        return cls(**{name: tuple(value) for name, value in record.items()})


def check_same_actions(
    trained: ActionSpace, low: Sequence[float], high: Sequence[float], *, policy: str, environment: str
) -> None:
    """A policy's action space is the environment's.

    Raises:
        UserError: they differ in number or bounds.
    """
    if len(low) != len(trained.low):
        named = f" ({', '.join(trained.names)})" if trained.names else ""
        raise UserError(
            f"{policy} gives {len(trained.low)} values per action{named}, {environment} takes {len(low)}: "
            "use the environment it was trained for"
        )
    for index, (ours, theirs) in enumerate(
        zip(zip(trained.low, trained.high, strict=True), zip(low, high, strict=True), strict=True)
    ):
        if not torch.allclose(torch.tensor(ours), torch.tensor(theirs, dtype=torch.float32), atol=1e-5):
            name = trained.names[index] if trained.names else str(index)
            raise UserError(
                f"{policy} was trained for action {name} in [{ours[0]:g}, {ours[1]:g}], {environment} takes "
                f"[{theirs[0]:g}, {theirs[1]:g}]: use the environment it was trained for"
            )


class ActionNormalizer(nn.Module):
    """normalised = (action - offset) / scale, from the statistics of demonstrations, which travel in its buffers.

    `zscore`: mean and (biased) standard deviation, the gripper's too. `minmax` and `quantile`: the range of the
    demonstrations, or that of their 1 % and 99 % quantiles, becomes [-1, 1]; the gripper's is its range in the action
    space instead, since demonstrations may never close it. `quantile` clips what lies outside. `units`: as they are,
    for a head that brings its own scale.

    Args:
        action_dim: A.
        kind: see above.
        space: of the environment; None: no dimension is a gripper.
    """

    def __init__(self, *, action_dim: int, kind: Kind = "zscore", space: ActionSpace | None = None) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise unknown_name("policy.actions", kind, get_args(Kind))
        if space is not None and len(space.low) != action_dim:
            raise UserError(
                f"the demonstrations have {action_dim} values per action, the environment takes {len(space.low)}: "
                "collect demonstrations of this environment"
            )
        self.kind, self.space = kind, space
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(action_dim))
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(action_dim))
        self.fitted: Tensor
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def bounded(self) -> bool:
        """Whether demonstrated actions lie in [-1, 1] afterwards."""
        return self.kind in ("minmax", "quantile")

    def fit(self, actions: Float[Tensor, "F A"]) -> None:
        """Take the statistics of demonstrated actions."""
        if self.kind == "units":
            offset, scale = torch.zeros_like(self.offset), torch.ones_like(self.scale)
        elif self.kind == "zscore":
            offset, scale = actions.mean(dim=0), actions.std(dim=0, correction=0)
        else:
            low, high = actions.amin(dim=0), actions.amax(dim=0)
            if self.kind == "quantile":
                # NumPy's, since torch's takes no more than 16 million values.
                low, high = torch.from_numpy(np.quantile(actions.cpu().numpy(), QUANTILES, axis=0)).to(actions)
            offset, scale = (low + high) / 2, (high - low) / 2
        scale = torch.where(scale > CONSTANT, scale, torch.ones_like(scale))
        if self.bounded and self.space is not None:
            for index in self.space.gripper:
                low_end, high_end = self.space.low[index], self.space.high[index]
                offset[index], scale[index] = (low_end + high_end) / 2, (high_end - low_end) / 2
        self.offset.copy_(offset)
        self.scale.copy_(scale)
        self.fitted.fill_(True)

    def normalize(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """What a head learns."""
        normalised = (actions - self.offset) / self.scale
        return normalised.clamp(-1, 1) if self.kind == "quantile" else normalised

    def restore(self, normalised: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Back to the environment's units; not clipped to its bounds."""
        return normalised * self.scale + self.offset

    def within_bounds(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """What of an action is executed, as far as the action space is known."""
        if self.space is None:
            return actions
        low, high = (actions.new_tensor(bound) for bound in (self.space.low, self.space.high))
        return actions.clamp(low, high)


def action_kind(head: str, kind: Kind | None, *, bounded: bool) -> Kind:
    """The normalisation of a head's actions: the one asked for, or `minmax` where it needs a range, else `zscore`.

    Raises:
        UsageError: the head needs a range and was given none, or has a scale of its own and was given another.
    """
    if head == "gr1" and kind not in (None, "units"):
        raise UsageError(f"policy.head=gr1 has the scale of its pre-training: leave policy.actions={kind} out")
    if head != "gr1" and kind == "units":
        raise UsageError(f"policy.actions=units is for policy.head=gr1: choose another for policy.head={head}")
    if head == "gr1":
        return "units"
    if bounded and kind == "zscore":
        raise UsageError(f"policy.head={head} takes actions within [-1, 1]: policy.actions must be minmax or quantile")
    return kind or ("minmax" if bounded else "zscore")


def pad_actions(
    actions: Float[Tensor, "*batch A"], action_dim: int
) -> tuple[Float[Tensor, "*batch D"], Bool[Tensor, " D"]]:
    """Actions of a robot with A dimensions for a head with D = `action_dim`, and the mask of those it has.

    Raises:
        UsageError: D is less than A.
    """
    own = actions.shape[-1]
    if action_dim < own:
        raise UsageError(f"action_dim must be at least the robot's {own}, got {action_dim}")
    padded = torch.cat([actions, actions.new_zeros(*actions.shape[:-1], action_dim - own)], dim=-1)
    return padded, torch.arange(action_dim, device=actions.device) < own
