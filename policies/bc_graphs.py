"""A policy of behaviour cloning as graphs: neck and head, from features or with the encoder before them, from frames.

Legend: B batch, T moments of history, P proprioception, E width of an instruction, H chunk, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embodied.core.protocols import INSTRUCTION
from embodied.policies.bc import BCPolicy
from embodied.policies.graph_formats import Graph, Inputs, random_frames
from embodied.policies.heads.vq_bet import VQBeTHead
from embodied.policies.necks.sequence import SequenceNeck
from embodied.policies.tuning import merged_copy


class FeaturesToChunk(nn.Module):
    """Features float [B, T, ...], then proprioception float [B, T, P], the instruction float [B, E] and noise where the
    policy has them, to a chunk [B, H, A] in the environment's units.
    """

    def __init__(self, policy: BCPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.others = input_names(policy, "")[1:]

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        given = dict(zip(self.others, others, strict=True))
        return self.policy.predict(
            seen, given.get("state"), instruction=given.get(INSTRUCTION), noise=given.get("noise")
        )


class FramesToChunk(FeaturesToChunk):
    """Frames uint8 [B, T, S, S, 3] (states float [B, T, S]) of one camera in place of features."""

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        features = self.policy.encode(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return super().forward(features, *others)


def input_names(policy: BCPolicy, first: str) -> list[str]:
    """Of the inputs of a graph, in order; `first` is `features` or `frames`."""
    others = {
        "state": policy.state_width > 0,
        INSTRUCTION: policy.controller.text_width is not None,
        "noise": policy.acting.action_head.noise_shape(1) is not None,
    }
    return [first, *(name for name, there in others.items() if there)]


def example_inputs(policy: BCPolicy, seen: Tensor, generator: torch.Generator) -> Inputs:
    """`seen` [B, T, ...] with random proprioception, instruction and noise."""
    inputs = [seen]
    if policy.state_width:
        inputs.append(torch.randn(len(seen), policy.history, policy.state_width, generator=generator))
    if policy.controller.text_width is not None:
        inputs.append(torch.randn(len(seen), policy.controller.text_width, generator=generator))
    shape = policy.acting.action_head.noise_shape(len(seen))
    if shape is not None:
        inputs.append(torch.randn(shape, generator=generator))
    return tuple(inputs)


def exportable(policy: BCPolicy, *, encoder: bool) -> BCPolicy:
    """A copy on the CPU for tracing: averaged weights in place, adapters merged, no counters in the way.

    Args:
        policy: is not changed.
        encoder: whether the copy needs it; a graph holds what its module holds.
    """
    copied = copy.deepcopy(policy).cpu().eval()
    copied.instructions = None  # an input
    copied.controller, copied.ema = copied.acting, None
    if isinstance(copied.controller.neck, SequenceNeck):
        copied.controller.neck.network = merged_copy(copied.controller.neck.network)
    copied.encoder = merged_copy(copied.encoder) if encoder else nn.Identity()
    for head in [module for module in copied.modules() if isinstance(module, VQBeTHead)]:
        # Which phase it is in is decided by a number in a buffer; a graph is of one phase.
        steps = int(head.steps)
        del head._buffers["steps"]
        head.steps = steps  # type: ignore[assignment]
    return copied


def cloned_graph(policy: BCPolicy, frame_shape: Sequence[int] | None) -> Graph:
    """From features, or where the shape of a frame (or of a state) is given, from frames."""
    encoder = frame_shape is not None
    copied = exportable(policy, encoder=encoder)
    module = FramesToChunk(copied) if encoder else FeaturesToChunk(copied)

    def draw(rows: int, generator: torch.Generator) -> Inputs:
        if frame_shape is None:
            seen = _features_like(copied, rows, generator)
        else:
            seen = random_frames((rows, copied.history, *frame_shape), generator)
        return example_inputs(copied, seen, generator)

    names = input_names(copied, "frames" if encoder else "features")
    return Graph(module=module.eval(), names=names, draw=draw, scale=copied.normalizer.scale)


def _features_like(policy: BCPolicy, batch: int, generator: torch.Generator) -> Tensor:
    """Random features [B, T, ...] around the mean that the policy was trained on, with their spread."""
    drawn = torch.randn(batch, policy.history, *policy.feature_shape, generator=generator)
    spread, mean = policy.controller.feature_scale[1], policy.controller.feature_mean
    return (drawn.flatten(2) / spread + mean.repeat(drawn[0, 0].numel() // len(mean))).view_as(drawn)
