"""A sequence encoder: windows of what a robot saw, felt and did.

Legend: B batch, T steps, K cameras, H, W size of a frame, V values of an image latent, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.encoders.artifact import CONFIG, build_encoder, freeze, read_config
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.sensorimotor import SensorimotorTransformer

NAME = "embodied.encoders.sensorimotor.SensorimotorEncoder"
HPT_NAME = "embodied.encoders.hpt.HPTEncoder"
MASKVIT_NAME = "embodied.encoders.maskvit.MaskViTEncoder"
TOTO_NAME = "embodied.encoders.toto.TotoEncoder"
GR1_NAME = "embodied.encoders.gr1.GR1Encoder"
NAMES = (NAME, HPT_NAME, MASKVIT_NAME, TOTO_NAME, GR1_NAME)


class SensorimotorEncoder(nn.Module):
    """A frozen image encoder and RPT's transformer over its latents, proprioception and past actions.

    The last action of a window is hidden, and what the transformer makes of its token is what a controller reads: there
    the next action is to be predicted (Radosavovic et al. 2023, https://arxiv.org/abs/2306.10007). `frames` makes the
    latents, one image at a time, so that a stream encodes every image once.

    Args:
        frames: the image encoder, frozen here, or its `config()`.
        latent: which of its outputs is a frame's latent: `pooled` (the paper's mean of all tokens) or `cls`.
        network: arguments of `SensorimotorTransformer`; V is the image encoder's.

    Raises:
        UsageError: the image encoder has no such output.
    """

    modality = "sequence"
    trainable = False
    tokens_too = False  # whether a frame may be a set of tokens, not just a vector
    name = NAME

    def __init__(
        self, *, frames: nn.Module | Mapping[str, Any], latent: str = "pooled", network: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.frames = freeze(frames if isinstance(frames, nn.Module) else build_encoder(dict(frames)))
        self.latent = latent
        latent_dim = self._latent_dim()
        if network.get("latent_dim", latent_dim) != latent_dim:
            raise UsageError(f"this image encoder gives {latent_dim} values per frame, not {network['latent_dim']}")
        self.sequence = self.make_network({**network, "latent_dim": latent_dim})
        self.width, self.grid = self.sequence.width, (1, 1)

    @classmethod
    def make_network(cls, arguments: Mapping[str, Any]) -> SequenceNetwork:
        """What reads the window."""
        return SensorimotorTransformer(**arguments)

    def _latent_dim(self) -> int:
        device = next((part.device for part in self.frames.parameters()), torch.device("cpu"))
        return int(self.encode_frames(torch.zeros(1, 32, 32, 3, dtype=torch.uint8, device=device)).shape[-1])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the views."""
        return self.sequence.cameras

    @property
    def context(self) -> int:
        """T at most."""
        return self.sequence.context

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, H, W, 3] to latents [B, V], tokens [B, N, V] where `tokens_too`."""
        tokens, out = self.frames(self.frames.preprocess(frames))  # type: ignore[operator]
        outputs = {"tokens": tokens, **out}
        known = [name for name, value in outputs.items() if value.ndim == 2] + ["tokens"] * self.tokens_too
        if self.latent not in known:
            named = ", ".join(sorted(known))
            raise UsageError(f"latent must be one of this encoder's vectors, {named}, got {self.latent!r}")
        found: Tensor = outputs[self.latent]
        return found

    def preprocess(self, frames: Tensor) -> Tensor:
        """Sequence encoders take windows."""
        raise UsageError(
            "this is a sequence encoder: it reads windows of observations and actions, not single frames; use it with "
            "policy=bc, or give its image encoder"
        )

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of a window, and the tokens of every modality by key, with `pooled` [B, D].

        The features are the tokens at the actions' places, `pooled` the last one of them.

        Args:
            window: in units of the data, any of `observation.images.<camera>` (frames uint8 [B, T, H, W, 3] or latents
                float [B, T, V]), `observation.state` [B, T, P] and `action` [B, T, A], of which the last is not looked
                at; `<key>_is_pad` bool [B, T], True = not there. A key that is missing is hidden.
        """
        out = self.sequence(*self.read(window))
        return out[ACTION], {**out, "pooled": out[ACTION][:, -1]}

    def read(self, window: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the network takes of a window: values by key, normalised, and what is hidden, the last action with it.

        Raises:
            UsageError: the window has none of the keys, or one with another number of values.
        """
        shown = {name: window[name] for name in self.sequence.sizes if name in window}
        if not shown:
            raise UsageError(f"window: expected some of {', '.join(self.sequence.sizes)}, got {sorted(window)}")
        batch, steps = next(iter(shown.values())).shape[:2]
        away = torch.ones(batch, steps, dtype=torch.bool, device=next(iter(shown.values())).device)
        hidden, values = {}, {}
        for name in self.sequence.sizes:
            hidden[name] = away if name not in shown else window.get(name + PAD_SUFFIX, ~away)
            if name in shown:
                values[name] = self.sequence.normalize(name, self._latents(shown[name]))
        hidden[ACTION] = torch.cat([hidden[ACTION][:, :-1], away[:, -1:]], dim=1)
        return values, hidden

    def step_by_step(self, window: Mapping[str, Tensor], keys: Sequence[str]) -> Tensor:
        """Features [B, T, D] of a window of any length, each of the up to `context` steps that end there.

        Args:
            window: as of `forward`.
            keys: what is read of it.
        """
        seen = {name: self._latents(window[name]) for name in keys if name in window}
        seen |= {name + PAD_SUFFIX: window[name + PAD_SUFFIX] for name in seen if name + PAD_SUFFIX in window}
        found = []
        for stop in range(1, (next(iter(seen.values())).shape[1] if seen else 1) + 1):
            part = {name: values[:, max(0, stop - self.context) : stop] for name, values in seen.items()}
            found.append(self.sequence.present(*self.read(part))[:, 0])
        return torch.stack(found, dim=1)

    def _latents(self, values: Tensor) -> Tensor:
        if values.ndim < 5:
            return values
        return self.encode_frames(values.flatten(0, 1)).unflatten(0, values.shape[:2])

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {
            "name": self.name,
            "frames": self.frames.config(),  # type: ignore[operator]
            "latent": self.latent,
            "network": self.sequence.config(),
        }


def sequence_config(spec: str) -> dict[str, Any] | None:
    """The `config()` of the sequence encoder in a folder, read without its weights; None where it is another one."""
    path = Path(spec).expanduser() / CONFIG
    if not path.is_file():
        return None
    config = read_config(path)
    return config if config.get("name") in NAMES else None


def frame_encoder(encoder: nn.Module) -> nn.Module:
    """What encodes single frames: of a sequence encoder its image encoder, else the encoder itself."""
    return encoder.frames if isinstance(encoder, SensorimotorEncoder) else encoder
