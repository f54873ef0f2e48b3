"""What an agent that learns its own encoder sees. Legend: N environments, T moments, S side, P proprioception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from torch import Tensor
from torch.nn import functional as F

from embodied.core.protocols import STATE

FRAMES, BODY = "frames", "proprioception"  # parts of what is seen where it is a dict


def frames_space(frames_shape: Sequence[int], proprioception_dim: int) -> Space[Any]:
    """Of frames [3 T, S, S], and of P values of proprioception beside them if P is not 0."""
    frames = Box(0, 255, tuple(frames_shape), np.uint8)
    if not proprioception_dim:
        return frames
    return Dict({FRAMES: frames, BODY: Box(-np.inf, np.inf, (proprioception_dim,), np.float32)})


def seen_frames(
    observation: Mapping[str, Tensor], *, key: str, image_size: int | None, proprioception_dim: int
) -> Tensor | dict[str, Tensor]:
    """Copies of an observation's frames uint8 [N, 3 T, S, S] and of the present proprioception float32 [N, P].

    Args:
        observation: names of `core.protocols`; with a history, moments come after N.
        key: of the frames.
        image_size: S that they are brought to; None: as they come.
        proprioception_dim: P; with 0 the frames come alone, not as a dict.
    """
    frames = stacked(observation[key], image_size)
    if not proprioception_dim:
        return frames
    state = observation[STATE]
    return {FRAMES: frames, BODY: (state if state.ndim == 2 else state[:, -1]).clone()}


def stacked(frames: Tensor, image_size: int | None = None) -> Tensor:
    """uint8 [N, H, W, 3] or [N, T, H, W, 3] to a copy [N, 3 T, S, S], the oldest frame first; None keeps H and W."""
    moments = frames if frames.ndim == 5 else frames[:, None]
    channels = moments.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (N, 3 T, H, W)
    if image_size is None or channels.shape[-2:] == (image_size, image_size):
        return channels.clone(memory_format=torch.contiguous_format)
    return resized(channels, image_size).round().clamp(0, 255).to(torch.uint8)


def resized(channels: Tensor, image_size: int) -> Tensor:
    """[N, C, H, W] to float [N, C, S, S], by areas' weighted means."""
    size = (image_size, image_size)
    return F.interpolate(channels.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
