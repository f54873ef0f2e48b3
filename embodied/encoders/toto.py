"""The sequence encoder of Toto (Rajasegaran et al. 2025, https://arxiv.org/abs/2501.05453)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.encoders.sensorimotor import TOTO_NAME
from embodied.encoders.video import VideoEncoder
from embodied.models.sequence.toto import TotoNetwork


class TotoEncoder(VideoEncoder):
    """A frozen tokenizer, and the tokens of each frame's codes about half way through Toto's transformer.

    There the paper's probes are best; `network.read_depth` and `network.pool` set where and
    how. Their mean is the default; the paper pools by attention, which has weights that learn with the controller:
    `policy.neck_options={readout: attention}`.
    """

    name = TOTO_NAME
    network_class = TotoNetwork

    @property
    def network(self) -> TotoNetwork:
        """What reads the codes."""
        assert isinstance(self.sequence, TotoNetwork)
        return self.sequence

    def forward(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D] of every step of a window of any length, and `pooled` [B, D], that of the last.

        The first `context` steps take one pass, since nobody looks ahead; each further one its own.

        Args:
            window: as of `VideoEncoder.forward`.
        """
        seen = self._seen(window)
        network = self.network
        parts = [network(*self.read({name: values[:, : self.context] for name, values in seen.items()}))[ACTION]]
        for stop in range(self.context + 1, _steps(seen) + 1):
            last = {name: values[:, stop - self.context : stop] for name, values in seen.items()}
            parts.append(network.present(*self.read(last)))
        features = torch.cat(parts, dim=1)
        return features, {"pooled": features[:, -1]}

    @torch.no_grad()
    def at_depths(self, window: Mapping[str, Tensor], depths: Sequence[int]) -> dict[int, Tensor]:
        """The tokens [B, T, N, D] of every frame after these numbers of blocks, for probes.

        Args:
            window: of up to `context` steps, as of `forward`.
            depths: in [0, blocks].

        Raises:
            UsageError: the transformer has not so many blocks, or the window is too long.
        """
        found = self.network(*self.read(self._seen(window)), depths=depths)
        return {depth: found[f"depth_{depth}"] for depth in depths}

    def _seen(self, window: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the network reads of a window, frames as codes."""
        keys = [name for name, size in self.sequence.sizes.items() if size and name in window]
        if not keys:
            raise UsageError(f"window: expected some of {', '.join(self.sequence.sizes)}, got {sorted(window)}")
        pads = [name + PAD_SUFFIX for name in keys if name + PAD_SUFFIX in window]
        return {name: self._latents(window[name]) for name in keys} | {name: window[name] for name in pads}


def _steps(window: Mapping[str, Tensor]) -> int:
    return int(next(iter(window.values())).shape[1])
