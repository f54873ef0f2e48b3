"""A sequence encoder of HPT: a frozen image encoder, one embodiment's stems, and the shared trunk.

Legend: B batch, T steps, K cameras, H, W size of a frame, N tokens of a frame, V values of each, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION
from embodied.encoders.sensorimotor import HPT_NAME, SensorimotorEncoder
from embodied.models.sequence.hpt import HPTNetwork
from embodied.models.sequence.network import SequenceNetwork


class HPTEncoder(SensorimotorEncoder):
    """What HPT (Wang et al. 2024, https://arxiv.org/abs/2409.20537) makes of a window, for one embodiment.

    The feature of a step is the mean of the trunk's tokens, from the window of up to `context` steps that ends there,
    so what comes step by step from a robot gives what a whole episode gives. Actions are not read.

    Args:
        frames: the image encoder, frozen here, or its `config()`.
        latent: which of its outputs the stems read: `tokens` (the paper's 7 x 7 places of a ResNet), `pooled`, `cls`.
        network: arguments of `models.sequence.hpt.HPTNetwork`; V is the image encoder's.
        text: of the text encoder whose embeddings are the instructions, `spec` and `fingerprint`; None: it reads none.

    Raises:
        UsageError: the image encoder has no such output; instructions are read, but nobody makes them, or the other way
            round.
    """

    tokens_too = True
    name = HPT_NAME

    def __init__(
        self,
        *,
        frames: nn.Module | Mapping[str, Any],
        latent: str = "tokens",
        network: Mapping[str, Any],
        text: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(frames=frames, latent=latent, network=network)
        if (INSTRUCTION in self.sequence.sizes) != (text is not None):
            raise UsageError("text: expected the text encoder of stems that read instructions, and only of such")
        self.text = None if text is None else dict(text)

    @classmethod
    def make_network(cls, arguments: Mapping[str, Any]) -> SequenceNetwork:
        """What reads the window."""
        return HPTNetwork(**arguments)

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of every step of a window of any length, and `pooled` [B, D], that of the last.

        Args:
            window: as of `SensorimotorEncoder.forward`; frames may also be float [B, T, N, V], `instruction`
                [B, E] or [B, T, E] where it is read, and `action` is left unread.
        """
        keys = [name for name in self.sequence.sizes if name != ACTION]
        if INSTRUCTION in keys and INSTRUCTION in window and window[INSTRUCTION].ndim == 2:  # at every step the same
            steps = next((window[name].shape[1] for name in keys if name in window and name != INSTRUCTION), 1)
            told = {name: value for name, value in window.items() if name.startswith(INSTRUCTION)}
            window = {
                **window,
                **{name: value[:, None].expand(-1, steps, *value.shape[1:]) for name, value in told.items()},
            }
        features = self.step_by_step(window, keys)
        return features, {"pooled": features[:, -1]}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {**super().config(), **({} if self.text is None else {"text": self.text})}
