"""A sequence encoder of GR-1: a frozen image encoder and the network that reads its class token and patches.

Legend: B batch, T steps, H, W size of a frame, N patches, V values of each, P proprioception, A action, E width of an
instruction, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, PAD_SUFFIX
from embodied.encoders.artifact import build_encoder
from embodied.encoders.sensorimotor import GR1_NAME, SensorimotorEncoder
from embodied.models.sequence.gr1 import GR1Network
from embodied.models.sequence.network import SequenceNetwork

CLASS_AND_PATCHES = "class_and_patches"


class ClassAndPatches(nn.Module):
    """An image encoder with one more output, `class_and_patches` [B, 1 + N, V]: its class token, then its patch tokens.

    Where it has no class token of the patches' width, the mean of the patches stands for it.

    Args:
        encoder: any image encoder, or its `config()`.
    """

    modality = "image"
    trainable = False

    def __init__(self, *, encoder: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder if isinstance(encoder, nn.Module) else build_encoder(dict(encoder))
        self.width: int = self.encoder.width  # type: ignore[assignment]
        self.grid: tuple[int, int] = self.encoder.grid  # type: ignore[assignment]

    def preprocess(self, frames: Tensor) -> Tensor:
        """That of the encoder."""
        prepared: Tensor = self.encoder.preprocess(frames)  # type: ignore[operator]
        return prepared

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Its tokens [B, N, V] and outputs, with the one more."""
        tokens, out = self.encoder(images)
        whole = out.get("cls")
        if whole is None or whole.shape[-1] != tokens.shape[-1]:
            whole = tokens.mean(dim=1)
        return tokens, {**out, CLASS_AND_PATCHES: torch.cat([whole[:, None], tokens], dim=1)}

    def config(self) -> dict[str, Any]:
        """What rebuilds it."""
        return {"name": "embodied.encoders.gr1.ClassAndPatches", "encoder": self.encoder.config()}  # type: ignore[operator]


class GR1Encoder(SensorimotorEncoder):
    """What GR-1 (Wu et al. 2023, https://arxiv.org/abs/2312.13139) makes of a window, and the action it would take.

    The feature of a step is what becomes of its [ACT] query, of the window of up to `context` steps that ends there:
    what comes step by step from a robot gives what a whole episode gives. Actions are not read.

    Args:
        frames: the image encoder, frozen here, or its `config()`.
        latent: `class_and_patches`.
        network: arguments of `models.sequence.gr1.GR1Network`; V is the image encoder's.
        text: of the text encoder whose embeddings are the instructions, `spec` and `fingerprint`; None: it reads none.

    Raises:
        UsageError: instructions are read, but nobody makes them, or the other way round.
    """

    name = GR1_NAME

    def __init__(
        self,
        *,
        frames: nn.Module | Mapping[str, Any],
        latent: str = CLASS_AND_PATCHES,
        network: Mapping[str, Any],
        text: Mapping[str, Any] | None = None,
    ) -> None:
        if latent != CLASS_AND_PATCHES:
            raise UsageError(f"latent of GR-1 must be {CLASS_AND_PATCHES}, got {latent!r}")
        made = frames if isinstance(frames, nn.Module) else build_encoder(dict(frames))
        wrapped = made if isinstance(made, ClassAndPatches) else ClassAndPatches(encoder=made)
        super().__init__(frames=wrapped, latent=latent, network=network)
        if (INSTRUCTION in self.sequence.sizes) != (text is not None):
            raise UsageError("text: expected the text encoder of a network that reads instructions, and only of one")
        self.text = None if text is None else dict(text)

    @classmethod
    def make_network(cls, arguments: Mapping[str, Any]) -> SequenceNetwork:
        """What reads the window."""
        return GR1Network(**arguments)

    @property
    def network(self) -> GR1Network:
        """The network, by its type."""
        assert isinstance(self.sequence, GR1Network), type(self.sequence)
        return self.sequence

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, H, W, 3] to class token and patches [B, 1 + N, V]."""
        _, out = self.frames(self.frames.preprocess(frames))  # type: ignore[operator]
        found: Tensor = out[CLASS_AND_PATCHES]
        return found

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of every step of a window of any length, and `pooled` [B, D], that of the last.

        With actions in its training also `actions` [B, T, A], what it would do, in units of its data. Steps that are
        not there have features without a meaning.

        Args:
            window: any of `observation.images.<camera>` (frames uint8 [B, T, H, W, 3] or [B, T, 1 + N, V]),
                `observation.state` [B, T, P], `instruction` [B, T, E] or [B, E]; `<key>_is_pad` bool [B, T], True = not
                there. A key that is missing is hidden.
        """
        seen = self._window(window)
        steps = next(iter(seen.values())).shape[1] if seen else 1
        parts: list[Tensor] = []
        for stop in (min(self.context, steps), *range(self.context + 1, steps + 1)):
            part = {name: values[:, max(0, stop - self.context) : stop] for name, values in seen.items()}
            values, hidden = self.read(part)
            found = self.sequence(values, hidden)[ACTION]
            parts.append(found if not parts else found[:, -1:])
        features = torch.cat(parts, dim=1)
        out = {"pooled": features[:, -1]}
        if (head := self.network.action_head) is not None:
            out["actions"] = head.actions(head(features))
        return features, out

    def _window(self, window: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its keys with their padding, frames encoded, the instruction at every step."""
        keys = [name for name in self.sequence.sizes if name in window and name not in (ACTION, INSTRUCTION)]
        seen = {name: self._latents(window[name]) for name in keys}
        if seen and INSTRUCTION in self.sequence.sizes and INSTRUCTION in window:
            said, steps = window[INSTRUCTION], next(iter(seen.values())).shape[1]
            seen[INSTRUCTION] = said if said.ndim == 3 else said[:, None].expand(-1, steps, -1)
        return seen | {name + PAD_SUFFIX: window[name + PAD_SUFFIX] for name in seen if name + PAD_SUFFIX in window}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {**super().config(), "text": self.text}
