"""Sequence encoders over the codes of frames: a frozen tokenizer and a network that predicts videos.

Legend: B batch, T steps, H, W size of a frame, S that of the tokenizer's, N codes of a frame, A action, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.models.sequence.network import SequenceNetwork


class VideoEncoder(SensorimotorEncoder):
    """What a model of videos makes of a window: the base of MaskViT's and Toto's encoders.

    The tokenizer is part of the artifact, so codes and network always go together. A stream encodes every frame once
    and recalls its codes. The feature of a step is made of the window of up to `context` steps that ends there, so what
    comes step by step from a robot gives what a whole episode gives; the action of the last step is not looked at.

    Args:
        frames: the tokenizer, frozen here, or its `config()`.
        latent: the output that stands for a frame: `codes`.
        network: arguments of `network_class`; grid and vocabulary are the tokenizer's.

    Raises:
        UsageError: the image encoder is no tokenizer, or one of another grid or vocabulary than the network's.
    """

    network_class: ClassVar[type[SequenceNetwork]]

    def __init__(
        self, *, frames: nn.Module | Mapping[str, Any], latent: str = "codes", network: Mapping[str, Any]
    ) -> None:
        if latent != "codes":
            raise UsageError(f"latent must be codes for a model of videos, got {latent!r}")
        super().__init__(frames=frames, latent=latent, network=network)
        tokenizer = self.tokenizer
        known: Any = self.sequence
        if tuple(known.grid) != tuple(tokenizer.grid) or known.vocabulary != tokenizer.vocabulary:
            raise UsageError(
                f"this tokenizer has a grid of {tuple(tokenizer.grid)} and {tokenizer.vocabulary} codes, the network "
                f"{tuple(known.grid)} and {known.vocabulary}"
            )

    @classmethod
    def over(
        cls,
        tokenizer: FrameTokenizer,
        *,
        network: Mapping[str, Any],
        sizes: Mapping[str, int],
        camera: str = "camera",
    ) -> Self:
        """A fresh one.

        Args:
            tokenizer: makes the codes.
            network: further arguments of the network.
            sizes: of the data: `action`, A or 0, and `steps`, T.
            camera: the name of the view.
        """
        given = {
            "cameras": [camera],
            "grid": list(tokenizer.grid),
            "vocabulary": tokenizer.vocabulary,
            "action_dim": sizes.get(ACTION, 0),
            "context": sizes["steps"],
        }
        return cls(frames=tokenizer, network={**given, **network})

    @classmethod
    def make_network(cls, arguments: Mapping[str, Any]) -> SequenceNetwork:
        """What reads the codes."""
        # The number of codes follows from the grid.
        return cls.network_class(**{name: value for name, value in arguments.items() if name != "latent_dim"})

    def _latent_dim(self) -> int:
        return self.tokenizer.num_codes

    @property
    def tokenizer(self) -> FrameTokenizer:
        """What makes the codes.

        Raises:
            UsageError: it makes none.
        """
        if not isinstance(self.frames, FrameTokenizer):
            raise UsageError("a model of videos reads the codes of a tokenizer: this image encoder gives none")
        return self.frames

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of every step of a window of any length, and `pooled` [B, D], that of the last.

        Args:
            window: `observation.images.<camera>`, frames uint8 [B, T, H, W, 3] or codes [B, T, N], `action` [B, T, A]
                in units of the data, and `<key>_is_pad` bool [B, T], True = not there. A key that is missing is hidden.
        """
        features = self.step_by_step(window, [name for name, size in self.sequence.sizes.items() if size])
        return features, {"pooled": features[:, -1]}

    @torch.no_grad()
    def encode_clip(self, frames: UInt8[Tensor, "B T H W 3"]) -> Int[Tensor, "B T N"]:
        """Codes int64 of frames of any size."""
        return self.tokenizer.codes(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def decode_clip(self, codes: Int[Tensor, "B T N"]) -> UInt8[Tensor, "B T S S2 3"]:
        """Frames of codes."""
        return self.tokenizer.decode(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])
