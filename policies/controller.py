"""The part of a policy that always learns: neck, proprioception, instruction, head.

Legend: B batch, T moments of history, V values of a feature (or N tokens of width V), P proprioception, M moments that
the head reads, W values of such a moment, E width of an instruction, S samples, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ActionHead
from embodied.policies.assembly import Assembly, at_least_one, build_head, build_neck
from embodied.policies.heads.mlp import BatchNormMLP
from embodied.policies.necks.flare import Flare
from embodied.policies.necks.sequence import SequenceNeck
from embodied.policies.necks.text_query import TextQuery

ROUNDING = 1e-6  # of a value's size, what float32 arithmetic may change


class Controller(nn.Module):
    """Features and proprioception are scaled, fused to moments by the neck, and put side by side for the head.

    A projection of the instruction's embedding goes beside every moment; `TextQuery` asks its tokens with it, too.

    A `SequenceNeck` takes features as they are, memories in place of proprioception, and where its transformer reads
    instructions, their embeddings.

    A head that begins with BatchNorm sees features times one number and proprioception as it is, CortexBench's
    protocol; others see both centred, and proprioception with unit variance. BatchNorm also takes the instruction's
    projection: trained on a single instruction it has seen no variance there, and another one is far outside.

    Args:
        neck: [B, T, *feature] to [B, M, output_dim].
        fuses: whether the neck makes one moment of all; the head then sees the present proprioception only.
        head: see `core.protocols.ActionHead`.
        history: T.
        feature_width: V.
        proprioception_dim: P.
        projection: of proprioception, a linear layer; None puts it beside the features as it is.
        instruct: of the instruction, [B, E] to its values beside a moment; None: no instruction is looked at.
        text_width: E; None: no instruction is looked at.
    """

    def __init__(
        self,
        *,
        neck: nn.Module,
        fuses: bool,
        head: nn.Module,
        history: int,
        feature_width: int,
        proprioception_dim: int,
        projection: nn.Module | None,
        instruct: nn.Module | None,
        text_width: int | None,
    ) -> None:
        super().__init__()
        self.neck, self.projection, self.instruct, self.head = neck, projection, instruct, head
        self.fuses, self.history, self.proprioception_dim = fuses, history, proprioception_dim
        self.text_width = text_width
        self.feature_mean: Tensor
        self.register_buffer("feature_mean", torch.zeros(feature_width))
        self.feature_scale: Tensor  # of frame differences, and of frames
        self.register_buffer("feature_scale", torch.ones(2))
        self.state_mean: Tensor
        self.register_buffer("state_mean", torch.zeros(proprioception_dim))
        self.state_std: Tensor
        self.register_buffer("state_std", torch.ones(proprioception_dim))

    @property
    def batch_norm(self) -> bool:
        """Whether the head centres and scales its input itself."""
        return isinstance(getattr(self.head, "network", None), BatchNormMLP)

    @property
    def action_head(self) -> ActionHead:
        """The head, typed."""
        return cast(ActionHead, self.head)

    def fit_features(self, windows: Float[Tensor, "S T *feature"]) -> None:
        """Take the scale, and the mean where it is needed, of a sample of training windows."""
        self.feature_scale.copy_(torch.stack(feature_scales(windows)))
        if not self.batch_norm:
            present = self._side_by_side(windows)[:, -1]
            self.feature_mean.copy_(present.flatten(0, -2).mean(dim=0))

    def fit_state(self, states: Float[Tensor, "S P"]) -> None:
        """Take mean and deviation of proprioception where they are needed; what never moves is only centred.

        With a `SequenceNeck`, `states` are memories.
        """
        if isinstance(self.neck, SequenceNeck):
            self.neck.fit_state(states)
        if not self.batch_norm and self.proprioception_dim:
            mean, std = state_scale(states)
            self.state_mean.copy_(mean)
            self.state_std.copy_(std)

    def fuse(
        self, features: Float[Tensor, "B T *feature"], state: Tensor | None, instruction: Tensor | None = None
    ) -> Float[Tensor, "B M W"]:
        """What the head reads, from features and, with P above 0, proprioception [B, T, P].

        Args:
            instruction: embeddings [B, E]; a controller without `instruct` does not look at them.

        Raises:
            UsageError: the instructions that it needs are not there.
        """
        if self.instruct is not None and instruction is None:
            raise UsageError("this policy follows instructions: give it their embeddings, [B, E]")
        centred = self._side_by_side(features) - self.feature_mean
        if isinstance(self.neck, SequenceNeck):
            moments = self.neck(features, state, instruction)
        elif isinstance(self.neck, Flare):
            moments = self._differences(self.neck(centred))
        elif isinstance(self.neck, TextQuery):
            moments = self.neck(centred * self.feature_scale[1], instruction)
        else:
            moments = self.neck(centred * self.feature_scale[1])
        parts = [moments]
        if self.proprioception_dim:
            assert state is not None
            seen = (state[:, -moments.shape[1] :] - self.state_mean) / self.state_std
            parts.append(seen if self.projection is None else self.projection(seen))
        if self.instruct is not None:
            parts.append(self.instruct(instruction)[:, None].expand(-1, moments.shape[1], -1))
        return torch.cat(parts, dim=-1)

    def _side_by_side(self, features: Float[Tensor, "B T *feature"]) -> Tensor:
        """For `Flare` all values of a moment, tokens one after the other, [B, T, V]; else the features as they are."""
        return features.flatten(2) if isinstance(self.neck, Flare) else features

    def _differences(self, moments: Float[Tensor, "B T V"]) -> Float[Tensor, "B 1 TV"]:
        """`Flare`'s output as one moment, differences and the present feature scaled each."""
        changes, present = moments[:, :-1] * self.feature_scale[0], moments[:, -1:] * self.feature_scale[1]
        return torch.cat([changes, present], dim=1).flatten(1)[:, None]


def build_controller(
    made: Assembly,
    *,
    feature_shape: Sequence[int],
    grid: tuple[int, int] | None,
    action_dim: int,
    proprioception_dim: int,
    proprioception_width: int | None,
    text_width: int | None,
    instruction_width: int,
    hidden: Sequence[int],
    channels: int,
    bottleneck: int | None,
    head_options: Mapping[str, Any],
    neck_options: Mapping[str, Any],
    ready_neck: nn.Module | None = None,
) -> Controller:
    """Neck, proprioception, instruction and head that fit each other; arguments as of `bc.BCPolicy`.

    Args:
        text_width: E; None: no instruction is looked at.
        ready_neck: in place of one that is built here.

    Raises:
        UsageError: they cannot.
    """
    sizes: dict[str, Sequence[int | None]] = {
        "hidden": hidden,
        "channels": [channels],
        "bottleneck": [bottleneck],
        "proprioception_width": [proprioception_width],
    }
    for name, given in sizes.items():
        for value in given:
            if value is not None:
                at_least_one(f"policy.{name}", value)
    neck = ready_neck or build_neck(
        made,
        feature_shape=feature_shape,
        grid=grid,
        channels=channels,
        bottleneck=bottleneck,
        text_width=text_width,
        options=neck_options,
    )
    width = cast(int, neck.output_dim)
    if made.neck == "flare":
        width *= made.history  # all moments side by side
    projection, added = None, proprioception_dim
    if proprioception_dim and proprioception_width:
        projection, added = nn.Linear(proprioception_dim, proprioception_width), proprioception_width
    instruct: nn.Module | None = None
    if text_width is not None and not (isinstance(neck, SequenceNeck) and neck.follows):
        values = at_least_one("policy.instruction_width", instruction_width)
        instruct = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, values))
        added += values
    head = build_head(
        made,
        feature_dim=width + added,
        moments=1 if made.fuses else made.history,
        action_dim=action_dim,
        hidden=hidden,
        options=head_options,
    )
    return Controller(
        neck=neck,
        fuses=made.fuses,
        head=head,
        history=made.history,
        feature_width=prod(feature_shape) if made.neck == "flare" else feature_shape[-1],
        proprioception_dim=proprioception_dim,
        projection=projection,
        instruct=instruct,
        text_width=text_width,
    )


def state_scale(states: Float[Tensor, "S P"]) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Mean and deviation of proprioception; what never moves has a deviation of 1."""
    std = states.std(dim=0, correction=0)
    return states.mean(dim=0), torch.where(std > 1e-4, std, torch.ones_like(std))


def feature_scales(windows: Float[Tensor, "S T *feature"]) -> tuple[Tensor, Tensor]:
    """Factors that bring frame differences and features to unit variance on average.

    The input BatchNorm adds 1e-5 to every variance, CortexBench's default. Frame differences of a smooth encoder vary
    less than that and would vanish; one factor for all dimensions keeps their proportions, and dead ones dead. What
    differs by rounding alone is no variance: a picture that never changes must not be blown up.

    Returns:
        Scalars: one over the root mean square difference (1 where there is none), one over the standard deviation.
    """
    difference = (windows[:, 1:] - windows[:, :-1]).square().mean().sqrt() if windows.shape[1] > 1 else torch.zeros(())
    deviation = (windows[:, -1] - windows[:, -1].mean(dim=0)).square().mean().sqrt()
    least = (ROUNDING * windows.square().mean().sqrt()).clamp(min=1e-8)
    factors = [torch.where(value > least, 1 / value, torch.ones(())) for value in (difference, deviation)]
    return factors[0], factors[1]
