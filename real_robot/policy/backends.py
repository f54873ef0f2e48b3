"""The two parts of a policy that cost time, encoder and head, run by torch or by ONNX Runtime.

Legend: B = 1 batch, T moments of history, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from embodied.core.errors import UserError
from embodied.policies.bc import BCPolicy
from embodied.policies.bc_graphs import FeaturesToChunk, example_inputs, input_names
from embodied.real_robot.policy.acceleration import Acceleration, accelerate
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.onnx_parts import onnx_part

Backend = Literal["torch", "onnx"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnx")
TOLERANCE = 1e-3  # of normalised actions, between the back end and the policy as it was trained
Function = Callable[..., Tensor]


class Parts(NamedTuple):
    """`see`: an observation to features [1, ...]. `predict`: features [1, T, ...] and whatever of `state`,
    `instruction`, `noise` the policy takes to a chunk [1, H, A]. `how`: in words.
    """

    see: Callable[[Mapping[str, Tensor]], Tensor]
    predict: Callable[[Tensor, Mapping[str, Tensor | None]], Tensor]
    how: str


class FrameToFeature(torch.nn.Module):
    """One frame uint8 [1, S, S, 3] (state float [1, P]) to its feature."""

    def __init__(self, policy: BCPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, frame: Tensor) -> Tensor:
        return self.policy.encode(frame)


def open_parts(
    policy: BCPolicy, needs: Needs, *, device: torch.device, backend: Backend, acceleration: Acceleration
) -> Parts:
    """Build the parts and compare them with the policy.

    Raises:
        UserError: their actions differ by more than 1e-3 (normalised).
        MissingExtraError: ONNX Runtime is not installed.
    """
    frame, inputs = example_step(policy, needs, device)
    names = input_names(policy, "features")
    if backend == "onnx":
        if not policy.feature_shape[-1] or policy.assembly.recurrent:
            raise UserError("backend=onnx: this policy's encoder sees nothing, or its head remembers: use torch")
        encode, encoder_how = onnx_part(FrameToFeature(policy), [frame], ["frame"], policy, device=device)
        head, head_how = onnx_part(FeaturesToChunk(policy), inputs, names, policy, device=device)
    else:
        encode, encoder_how = accelerate(policy.encode, [frame], acceleration, name="encoder")
        head, head_how = accelerate(FeaturesToChunk(policy), inputs, acceleration, name="head")
    _compare(policy, encode, head, frame, inputs)

    def see(observation: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([encode(observation[key]) for key in needs.keys], dim=-1)

    def predict(features: Tensor, given: Mapping[str, Tensor | None]) -> Tensor:
        return head(features, *(given[name] for name in names[1:]))

    how = f"{backend} on {device}: encoder {encoder_how}, head {head_how}"
    return Parts(see, predict, how)


@torch.inference_mode()
def example_step(policy: BCPolicy, needs: Needs, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """A frame of noise, and what the head takes: features of noise [1, T, ...] and random others."""
    generator = torch.Generator().manual_seed(0)
    size = needs.image_size
    frame = torch.randint(0, 256, (1, size, size, 3), generator=generator, dtype=torch.uint8)
    if not needs.looks:
        frame = torch.randn(1, needs.state_dim, generator=generator)
    feature = policy.see(dict.fromkeys(needs.keys, frame.to(device)))
    features = feature[:, None].repeat(1, policy.history, *[1] * (feature.ndim - 1)).cpu()
    return frame.to(device), [each.to(device) for each in example_inputs(policy, features, generator)]


@torch.inference_mode()
def _compare(policy: BCPolicy, encode: Function, head: Function, frame: Tensor, inputs: list[Tensor]) -> None:
    """Features and actions of both ways are the same."""
    scale = policy.normalizer.scale
    actions = ((head(*inputs) - FeaturesToChunk(policy)(*inputs)) / scale).abs().max()
    ours, theirs = encode(frame), policy.encode(frame)
    features = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6) if ours.numel() else actions * 0
    for what, difference in (("actions", float(actions)), ("features", float(features))):
        if not difference <= TOLERANCE:
            raise UserError(
                f"this back end's {what} differ from the policy's by {difference:.2g} (at most {TOLERANCE:g} is "
                "accepted): use backend=torch acceleration=eager"
            )
