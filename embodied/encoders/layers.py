"""Features of several depths at once. Legend: B batch, N tokens, D width, L layers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.artifact import build_encoder


class LayersEncoder(nn.Module):
    """The patch tokens after chosen layers of an encoder, side by side: [B, N, L * D].

    Each layer's tokens are normalised by themselves (a layer norm without weights), so that none drowns the others:
    the norm that an encoder learned is its last layer's, and values grow with depth. `pooled` is the mean of the
    tokens; further outputs are the encoder's.

    Args:
        encoder: one whose `forward` takes `layers=True`, or its `config()`.
        layers: numbers from 1.

    Raises:
        UsageError: it gives no layers, not these, or maps of different sizes.
    """

    modality = "image"
    trainable = False

    def __init__(self, *, encoder: nn.Module | Mapping[str, Any], layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder if isinstance(encoder, nn.Module) else build_encoder(dict(encoder))
        self.layers = [int(layer) for layer in layers]
        if "layers" not in inspect.signature(self.encoder.forward).parameters:
            raise UsageError(f"{type(self.encoder).__name__} gives no layers to choose from")
        tokens = self._dry_run()
        self.width = tokens.shape[-1]
        rows, columns = self.encoder.grid  # type: ignore[misc]
        shrink = (tokens.shape[1] / (rows * columns)) ** 0.5  # a stage of a conv net before its last is finer
        self.grid = (round(rows * shrink), round(columns * shrink))

    def _dry_run(self) -> Tensor:
        training = self.encoder.training
        device = next((parameter.device for parameter in self.encoder.parameters()), torch.device("cpu"))
        try:
            with torch.no_grad():
                return self.eval()(self.preprocess(torch.zeros(1, 32, 32, 3, dtype=torch.uint8, device=device)))[0]
        finally:
            self.train(training)

    def preprocess(self, frames: Tensor) -> Tensor:
        """As the encoder does it."""
        return self.encoder.preprocess(frames)  # type: ignore[operator]

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, N, L * D]; `pooled` [B, L * D]."""
        _, out = self.encoder(images, layers=True)
        found = []
        for layer in self.layers:
            if f"layer{layer}" not in out:
                count = sum(bool(re.fullmatch(r"layer\d+", name)) for name in out)
                raise UsageError(f"layer {layer} is not there: this encoder has layers 1 to {count}")
            tokens = out[f"layer{layer}"]
            found.append(F.layer_norm(tokens, tokens.shape[-1:]))
        if len({tokens.shape[1] for tokens in found}) > 1:
            sizes = ", ".join(str(tokens.shape[1]) for tokens in found)
            raise UsageError(f"layers {self.layers} have different numbers of tokens ({sizes}): choose one of them")
        joined = torch.cat(found, dim=-1)
        return joined, {**out, "pooled": joined.mean(dim=1)}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        inner = self.encoder.config()  # type: ignore[operator]
        return {"name": "embodied.encoders.layers.LayersEncoder", "encoder": inner, "layers": self.layers}
