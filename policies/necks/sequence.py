"""A sequence encoder's transformer as the neck. Legend: B batch, T moments, K cameras, V values of an image latent,
P proprioception, A action, E width of an instruction, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, TextEncoder, image_key
from embodied.encoders.artifact import freeze
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.encoders.text.load import text_fingerprint
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.readouts import AttentionReadout
from embodied.models.sequence.standardize import Standardize
from embodied.policies.tuning import Tune, tuned_copy

OPTIONAL = (STATE, ACTION, INSTRUCTION)
Readout = Literal["feature", "attention"]


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
        leave_out: `observation.state`, `action` or `instruction`, to be hidden throughout: where this robot's are not
            those of the pre-training.
        fresh: random weights in place of the pre-trained ones, for comparison; the statistics stay.
        readout: the `feature` of the present as the transformer gives it; or `attention`, which learns and reads the
            tokens that it is made of (Toto's frames, arXiv 2501.05453), also where the transformer is frozen.
        state_beside: put present proprioception, standardised, beside what is read: for transformers that were
            pre-trained without it, models of videos among them.

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
        readout: Readout = "feature",
        state_beside: bool = False,
    ) -> None:
        super().__init__()
        if readout not in get_args(Readout):
            raise unknown_name("readout", str(readout), get_args(Readout))
        if unknown := [name for name in leave_out if name not in OPTIONAL]:
            raise unknown_name("modality to leave out", str(unknown[0]), OPTIONAL)
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
        self.follows = INSTRUCTION in sequence.sizes and INSTRUCTION not in leave_out  # whether it reads instructions
        self.fresh = fresh
        start = _fresh_copy(sequence) if fresh else sequence
        if tune == "frozen":
            network = copy.deepcopy(start)
            network.__dict__.pop("train", None)  # that of a frozen one gives back what it was copied from
            self.network: nn.Module = freeze(network)
        else:
            self.network = tuned_copy(start, tune, rank=tune_rank, layers=tune_layers)
        self.beside = Standardize(state_dim) if state_beside and state_dim else None
        if self.beside is not None and self.reads[STATE]:
            raise UsageError(f"state_beside is for encoders that do not read {STATE}: this one does, leave it out")
        self.output_dim = sequence.width + (state_dim if self.beside is not None else 0)
        self.readout = AttentionReadout(sequence.width) if readout == "attention" else None

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
        self,
        features: Float[Tensor, "B T *N KV"],
        memories: Float[Tensor, "B T PA1"],
        instruction: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B 1 D"]:
        """What the transformer makes of the present, from features as they are, memories and what is to be done.

        Raises:
            UsageError: it reads instructions, and there are none.
        """
        steps = features.shape[1]
        network = self.network
        assert isinstance(network, SequenceNetwork)
        values = dict(zip(self.views, features.chunk(len(self.views), dim=-1), strict=True))
        state, before = memories[..., : self.state_dim], memories[..., self.state_dim : -1]
        if self.reads[STATE]:
            values[STATE] = state
        if self.reads[ACTION]:  # the action of a moment is the one before of the next; the last is not known yet
            values[ACTION] = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], dim=1)
        if self.follows:
            if instruction is None:
                raise UsageError("this policy follows instructions: give it their embeddings, [B, E]")
            values[INSTRUCTION] = instruction[:, None].expand(-1, steps, -1)
        values = {name: network.normalize(name, value) for name, value in values.items()}
        number = torch.arange(steps, device=features.device)
        early = number[None, :] < steps - 1 - memories[:, -1:, -1]  # (B, T), True = before the episode began
        unseen = torch.ones_like(early)
        hidden = {name: early if name in values else unseen for name in network.sizes}
        hidden[ACTION] = hidden[ACTION] | (number == steps - 1)
        if self.readout is None:
            moment = network.present(values, hidden)
        else:
            moment = self.readout(network.present_tokens(values, hidden))
        return moment if self.beside is None else torch.cat([moment, self.beside(state[:, -1:])], dim=-1)

    def fit_state(self, memories: Float[Tensor, "S PA1"]) -> None:
        """Take mean and deviation of proprioception, where it goes beside what is read."""
        if self.beside is not None:
            states = memories[:, : self.state_dim]
            self.beside.fit(STATE, {STATE: (states.mean(dim=0), states.std(dim=0, correction=0))})


def recall(state: Float[Tensor, "B P"], acted: Float[Tensor, "B A"], step: Tensor) -> Float[Tensor, "B PA1"]:
    """The memory of a moment.

    Args:
        state: proprioception.
        acted: the action executed before it, zero at the first.
        step: [B], how many moments of the episode were before.
    """
    return torch.cat([state, acted, step[:, None].to(state)], dim=-1)


def sequence_neck(
    encoder: nn.Module, *, text_encoder: TextEncoder | None, options: Mapping[str, Any], **arguments: Any
) -> SequenceNeck:
    """The neck for a sequence encoder; `arguments` and `options` as of `SequenceNeck`.

    Args:
        encoder: holds the transformer.
        text_encoder: of the policy's instructions, if it follows any.

    Raises:
        UsageError: it is none, there is no such option, or it reads instructions that another text encoder makes.
    """
    if not isinstance(encoder, SensorimotorEncoder):
        raise UsageError(
            "policy.neck=sequence is for sequence encoders, which embodied pretrain objective=rpt, hpt, gr1 and others "
            "make: leave it out"
        )
    try:
        neck = SequenceNeck(sequence=encoder.sequence, **arguments, **options)
    except TypeError as error:
        raise UsageError(f"policy.neck_options of sequence: {error}") from error
    if neck.follows:
        made: Mapping[str, Any] = encoder.text  # type: ignore[assignment]
        if text_encoder is None or text_fingerprint(text_encoder) != made["fingerprint"]:
            raise UsageError(
                f"the encoder was pre-trained with instructions by policy.instruction={made['spec']}, this policy has "
                f"{'none' if text_encoder is None else 'another text encoder'}: choose that one, or hide them with "
                f"policy.neck_options='{{leave_out: [{INSTRUCTION}]}}'"
            )
    return neck


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
READS_VECTORS = FUSES_HISTORY = True
