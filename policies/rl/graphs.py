"""An agent as graphs: its mean action within the bounds, from features, or from frames with what encodes them.

The traced code is the policy's own (`RLPolicy.see` and `decide`), without the parts that only learning needs. For an
agent that learned its encoder the features are those of its conv net, and the graph from features is the rest of it.

Legend: B rows, T frames of a stack (1 of an agent on features), S side, V values of the features, P proprioception,
A action.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from embodied.core.protocols import STATE
from embodied.policies.graph_formats import Graph, Inputs, random_frames
from embodied.policies.rl.drqv2_networks import DrQEncoder, LfSEncoder
from embodied.policies.rl.frames import BODY, FRAMES, resized
from embodied.policies.rl.networks import Standardise
from embodied.policies.rl.policy import RLPolicy

CRITICS = {"critic", "critic_target", "value_net", "vf_features_extractor"}  # what stable-baselines3 calls them
UNCLEAR = 2e-3  # how near to half-way; ONNX Runtime's resizing is up to 5e-4 off, at 224 to 64 pixels
ROUNDS = 100  # more than enough to get rid of all such pixels, where frames are made smaller


class FeaturesToAction(nn.Module):
    """Features float [B, 1, V], then the present proprioception float [B, 1, P] where the agent has it, to actions
    [B, 1, A] in the environment's units, within its bounds.
    """

    def __init__(self, policy: RLPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        features = seen[:, 0]
        if not others:
            return self._decide(features)
        body = others[0][:, 0]
        if self.policy.frames_shape is not None:
            return self._decide({FRAMES: features, BODY: body})
        return self._decide(torch.cat([features, body], dim=1))

    def _decide(self, seen: Any) -> Tensor:
        with _without_checks():
            return self.policy.decide(seen)


class FramesToAction(FeaturesToAction):
    """Frames uint8 [B, T, S, S, 3], the oldest first (states float [B, 1, S]), in place of features."""

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        stack = self.policy.frames_shape is not None
        observation = {self.policy.input_key: seen if stack else seen[:, 0]}
        if others:
            observation[STATE] = others[0][:, 0]
        return self._decide(self.policy.see(observation))


@contextmanager
def _without_checks() -> Iterator[None]:
    """Gaussians do not look at the numbers that they are made of: a graph has none yet when it is traced."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


def agent_graph(policy: RLPolicy, frame_shape: Sequence[int] | None) -> Graph:
    """From features, or where the shape of a frame (or of a state) is given, from frames."""
    encoder = frame_shape is not None
    copied = exportable_agent(policy, encoder=encoder)

    def draw(rows: int, generator: torch.Generator) -> Inputs:
        seen, body = _features_like(policy, rows, generator)
        if frame_shape is not None and len(frame_shape) == 3:  # a state is its own feature
            seen = random_frames((rows, policy.history, *frame_shape), generator)
            if policy.frames_shape is not None and frame_shape[0] != policy.frames_shape[-1]:
                seen = _without_ties(seen, policy.frames_shape[-1], generator)
        return (seen, body) if policy.proprioception_dim else (seen,)

    half = (copied.action_high - copied.action_low) / 2
    return Graph(
        module=(FramesToAction(copied) if encoder else FeaturesToAction(copied)).eval(),
        names=["frames" if encoder else "features", *(["state"] if policy.proprioception_dim else [])],
        draw=draw,
        scale=torch.where(half.isfinite() & (half > 0), half, 1.0),
    )


def exportable_agent(policy: RLPolicy, *, encoder: bool) -> RLPolicy:
    """A copy on the CPU for tracing: without critics, nor a count that decides what is computed.

    Args:
        policy: is not changed.
        encoder: whether the copy needs what encodes frames, be it frozen or learned.
    """
    copied = copy.deepcopy(policy).cpu().eval()
    for part in list(copied.agent.modules()):
        for name in CRITICS & part._modules.keys():
            setattr(part, name, nn.Identity())
        if isinstance(part, Standardise):
            # Whether anything was taken in is a number in a buffer; a graph is of one of both cases.
            taken_in = float(part.count)
            del part._buffers["count"]
            part.count = taken_in  # type: ignore[assignment]
        if not encoder and isinstance(getattr(part, "encoder", None), DrQEncoder | LfSEncoder):
            part.encoder = nn.Identity()
    if not encoder or policy.frames_shape is not None:
        copied.encoder = nn.Identity()
    return copied


def feature_width(policy: RLPolicy) -> int:
    """V: of the frozen encoder's features, or of what a learned conv net gives."""
    nets = [part for part in policy.agent.modules() if isinstance(part, DrQEncoder | LfSEncoder)]
    return nets[0].width if nets else policy.feature_dim


def _features_like(policy: RLPolicy, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random features [B, 1, V] and proprioception [B, 1, P]: as they were in training where the agent knows that."""
    width = feature_width(policy)
    values = torch.randn(rows, 1, width + policy.proprioception_dim, generator=generator)
    for norm in [part for part in policy.agent.modules() if isinstance(part, Standardise)][:1]:
        known = len(norm.mean)  # of all values, or of the last: proprioception
        values[..., -known:] = values[..., -known:] * norm.variance.sqrt().cpu() + norm.mean.cpu()
    seen, body = values.split([width, policy.proprioception_dim], dim=-1)
    return seen, body


def _without_ties(frames: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Frames [B, T, S, S, 3] changed a little where a pixel of the resized ones is half-way between two bytes.

    Which of both it becomes is up to the last bit of a sum: torch and ONNX Runtime differ there, as do torch's float32
    and float64.
    """
    for _ in range(ROUNDS):
        ties = (resized(frames.permute(0, 1, 4, 2, 3).flatten(1, 2), side) % 1 - 0.5).abs() < UNCLEAR  # (B, 3 T, s, s)
        if not ties.any():
            break
        near = F.interpolate(ties.float(), size=frames.shape[2:4])  # the pixels that those are made of
        near = near.unflatten(1, (-1, 3)).permute(0, 1, 3, 4, 2) > 0  # (B, T, S, S, 3)
        moved = near & (torch.rand(frames.shape, generator=generator) < 0.5)
        frames = torch.where(moved, frames ^ 1, frames)
    return frames
