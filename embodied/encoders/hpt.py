"""A sequence encoder of HPT: a frozen image encoder, one embodiment's stems, and the shared trunk.

Legend: B batch, T steps, K cameras, H, W size of a frame, N tokens of a frame, V values of each, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.protocols import ACTION, PAD_SUFFIX
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

    Raises:
        UsageError: the image encoder has no such output.
    """

    tokens_too = True
    name = HPT_NAME

    def __init__(
        self,
        *,
        frames: nn.Module | Mapping[str, Any],
        latent: str = "tokens",
        network: Mapping[str, Any],
    ) -> None:
        super().__init__(frames=frames, latent=latent, network=network)

    @classmethod
    def make_network(cls, arguments: Mapping[str, Any]) -> SequenceNetwork:
        """What reads the window."""
        return HPTNetwork(**arguments)

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of every step of a window of any length, and `pooled` [B, D], that of the last.

        Args:
            window: as of `SensorimotorEncoder.forward`; frames may also be float [B, T, N, V], and `action` is left
                unread.
        """
        keys = [name for name in self.sequence.sizes if name != ACTION]
        seen = {name: self._latents(window[name]) for name in keys if name in window}
        seen |= {name + PAD_SUFFIX: window[name + PAD_SUFFIX] for name in seen if name + PAD_SUFFIX in window}
        steps = next(iter(seen.values())).shape[1] if seen else 1
        found = []
        for stop in range(1, steps + 1):
            part = {name: values[:, max(0, stop - self.context) : stop] for name, values in seen.items()}
            found.append(super().forward(part)[1]["pooled"])
        features = torch.stack(found, dim=1)
        return features, {"pooled": features[:, -1]}
