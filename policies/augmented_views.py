"""Further views of every frame in the feature cache: each is all frames moved by some pixels, then encoded.

Random shifts are what learning from scratch and fine-tuning gain from (Yarats et al. 2021, DrQ,
https://arxiv.org/abs/2004.13649; Hansen et al. 2023, https://arxiv.org/abs/2212.05749). Training that reads features
from a cache cannot draw one at every step; it can have a few of them, each encoded once for all heads and seeds.

Legend: B batch, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many further views there are, and by how much they are moved.

    Args:
        count: beside the frames as they are; 0: none.
        shift: pixels at most, down or up and to the right or left; 6 at 128 px is DrQ's 4 at 84.

    Raises:
        UsageError: a number makes no sense.
    """

    count: int = 0
    shift: int = 6

    def __post_init__(self) -> None:
        for name, least in (("count", 0), ("shift", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"policy.views.{name} must be a whole number of at least {least}, got {value!r}")

    def offset(self, view: int) -> tuple[int, int]:
        """Pixels down and to the right; (0, 0) of view 0, never of another. The same for all stores and seeds."""
        generator = numpy_generator(0, "views", self.shift, view)
        while view:
            down, right = (int(value) for value in generator.integers(-self.shift, self.shift, 2, endpoint=True))
            if down or right:
                return down, right
        return 0, 0


def read_views(settings: Any) -> Views:
    """Views from `policy.views`, a group or None.

    Raises:
        UsageError: it is no group, or has an unknown entry.
    """
    if settings is None:
        return Views()
    if not isinstance(settings, Mapping):
        raise UsageError(f"policy.views must be a group, '{{count: 4, shift: 6}}', got {settings!r}")
    for name in settings:
        if name not in Views.__dataclass_fields__:
            raise unknown_name("entry of policy.views", str(name), Views.__dataclass_fields__)
    return Views(**{"count": 4, **{str(name): value for name, value in settings.items()}})


class MovedFrames(nn.Module):
    """An encoder of frames that sees them moved. One view moves all frames alike, so motion stays what it was.

    Args:
        encoder: frozen, see `core.protocols.Encoder`.
        down, right: pixels.
    """

    def __init__(self, encoder: nn.Module, *, down: int, right: int) -> None:
        super().__init__()
        self.encoder, self.down, self.right = encoder, down, right

    def preprocess(self, frames: UInt8[Tensor, "B H W 3"]) -> Tensor:
        """The encoder's, of moved frames."""
        return cast(Tensor, self.encoder.preprocess(moved(frames, down=self.down, right=self.right)))  # type: ignore[operator]

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return cast(tuple[Tensor, dict[str, Tensor]], self.encoder(images))

    def known_as(self, fingerprint: str) -> str:
        """The encoder's fingerprint, and how frames are moved: what features of this view are cached under."""
        return f"{fingerprint} moved {self.down} {self.right}"


def moved(frames: UInt8[Tensor, "B H W 3"], *, down: int, right: int) -> UInt8[Tensor, "B H W 3"]:
    """Frames moved by whole pixels; the border is repeated."""
    height, width = frames.shape[1:3]
    rows = (torch.arange(height, device=frames.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) - right).clamp(0, width - 1)
    return frames[:, rows][:, :, columns]
