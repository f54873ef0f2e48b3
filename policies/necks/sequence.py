"""A sequence encoder's transformer as the neck. Legend: B batch, T moments, K cameras, V values of an image latent,
P proprioception, A action, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, STATE, image_key
from embodied.encoders.artifact import freeze
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.models.sequence.network import SequenceNetwork
from embodied.policies.tuning import Tune, tuned_copy

VECTORS = (STATE, ACTION)


class SequenceNeck(nn.Module):
    """Latents, proprioception and the actions that were executed, read by a pre-trained transformer.

    The last action is not known yet: its place is hidden, and what the transformer makes of it is the one moment that
    the head reads (RPT's transfer, arXiv 2306.10007, Sec. 3.3). Moments before the episode began are hidden, as in
    pre-training. It takes features as the image encoder gives them, and memories (`memory_dim` values a moment) as
    `recall` makes them.

    Args:
        sequence: the transformer; it is copied.
        cameras: of the policy, in the order of its features.
        state_dim: P of the policy, 0 if it has no proprioception.
        action_dim: A.
        history: T, at most the transformer's context.
        tune: how the copy learns along, see `tuning`; frozen: not at all, a linear probe with a linear head.
        tune_rank, tune_layers: see `tuning.tuned_copy`.
        views: which of the transformer's views each camera is; None: the one of its name.
        leave_out: `observation.state` or `action`, to be hidden throughout: where this robot's are not those of the
            pre-training.
        fresh: random weights in place of the pre-trained ones, for comparison; the statistics stay.

    Raises:
        UsageError: the transformer does not know a camera, or its proprioception or actions have other sizes.
    """

    def __init__(
        self,
        *,
        sequence: SequenceNetwork,
        cameras: Sequence[str],
        state_dim: int,
        action_dim: int,
        history: int,
        tune: Tune = "frozen",
        tune_rank: int = 8,
        tune_layers: int = 2,
        views: Sequence[str] | None = None,
        leave_out: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        super().__init__()
        if unknown := [name for name in leave_out if name not in VECTORS]:
            raise unknown_name("modality to leave out", str(unknown[0]), VECTORS)
        if history > sequence.context:
            raise UsageError(
                f"policy.history must be at most the encoder's context of {sequence.context}, got {history}"
            )
        self.history, self.state_dim, self.action_dim = history, state_dim, action_dim
        self.views = _known_views(sequence, cameras, views)
        self.reads = {
            name: bool(size) and name not in leave_out for name, size in ((STATE, state_dim), (ACTION, action_dim))
        }
        self._check_sizes(sequence)
        start = _fresh_copy(sequence) if fresh else sequence
        if tune == "frozen":
            network = copy.deepcopy(start)
            network.__dict__.pop("train", None)  # that of a frozen one gives back what it was copied from
            self.network: nn.Module = freeze(network)
        else:
            self.network = tuned_copy(start, tune, rank=tune_rank, layers=tune_layers)
        self.output_dim = sequence.width

    def _check_sizes(self, sequence: SequenceNetwork) -> None:
        for name, size in ((STATE, self.state_dim), (ACTION, self.action_dim)):
            known = sequence.sizes.get(name, 0)
            if self.reads[name] and known and known != size:
                raise UsageError(
                    f"the encoder was pre-trained with {known} values of {name}, this task has {size}: leave it out "
                    f"with policy.neck_options='{{leave_out: [{name}]}}', or pre-train on such data"
                )
            self.reads[name] = self.reads[name] and bool(known)

    @property
    def memory_dim(self) -> int:
        """Values of a moment's memory: proprioception, the action before, and how many moments there were before."""
        return self.state_dim + self.action_dim + 1

    def forward(
        self, features: Float[Tensor, "B T *N KV"], memories: Float[Tensor, "B T PA1"]
    ) -> Float[Tensor, "B 1 D"]:
        """What the transformer makes of the present, from features as they are and memories."""
        steps = features.shape[1]
        network = self.network
        assert isinstance(network, SequenceNetwork)
        values = dict(zip(self.views, features.chunk(len(self.views), dim=-1), strict=True))
        state, before = memories[..., : self.state_dim], memories[..., self.state_dim : -1]
        if self.reads[STATE]:
            values[STATE] = state
        if self.reads[ACTION]:  # the action of a moment is the one before of the next; the last is not known yet
            values[ACTION] = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], dim=1)
        values = {name: network.normalize(name, value) for name, value in values.items()}
        number = torch.arange(steps, device=features.device)
        early = number[None, :] < steps - 1 - memories[:, -1:, -1]  # (B, T), True = before the episode began
        unseen = torch.ones_like(early)
        hidden = {name: early if name in values else unseen for name in network.sizes}
        hidden[ACTION] = hidden[ACTION] | (number == steps - 1)
        return network.present(values, hidden)


def recall(state: Float[Tensor, "B P"], acted: Float[Tensor, "B A"], step: Tensor) -> Float[Tensor, "B PA1"]:
    """The memory of a moment.

    Args:
        state: proprioception.
        acted: the action executed before it, zero at the first.
        step: [B], how many moments of the episode were before.
    """
    return torch.cat([state, acted, step[:, None].to(state)], dim=-1)


def sequence_neck(encoder: nn.Module, *, options: Mapping[str, Any], **arguments: Any) -> SequenceNeck:
    """The neck for a sequence encoder; `arguments` and `options` as of `SequenceNeck`.

    Raises:
        UsageError: it is none, or there is no such option.
    """
    if not isinstance(encoder, SensorimotorEncoder):
        raise UsageError(
            "policy.neck=sequence is for sequence encoders, which embodied pretrain objective=rpt or hpt makes: leave "
            "it out"
        )
    try:
        return SequenceNeck(sequence=encoder.sequence, **arguments, **options)
    except TypeError as error:
        raise UsageError(f"policy.neck_options of sequence: {error}") from error


def _known_views(sequence: SequenceNetwork, cameras: Sequence[str], views: Sequence[str] | None) -> list[str]:
    chosen = list(cameras if views is None else views)
    if len(chosen) != len(cameras) or len(set(chosen)) < len(chosen):
        raise UsageError(
            f"policy.neck_options.views: expected a different view for each of {', '.join(cameras)}, got {chosen}"
        )
    for name in chosen:
        if name not in sequence.cameras:
            raise UsageError(
                f"the encoder was pre-trained with views {', '.join(sequence.cameras)}, not {name!r}: say which one "
                "each camera is with policy.neck_options='{views: [...]}'"
            )
    return [image_key(name) for name in chosen]


def _fresh_copy(sequence: SequenceNetwork) -> SequenceNetwork:
    arguments: dict[str, Any] = sequence.config()
    made = type(sequence)(**arguments)
    with torch.no_grad():
        for name, buffer in made.named_buffers():
            buffer.copy_(sequence.get_buffer(name))
    return made.to(next(sequence.parameters()).device)


NECK = SequenceNeck
