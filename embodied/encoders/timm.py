"""Any image model of `timm` as an encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError, unknown_name
from embodied.encoders.preprocessing import Normalize


class TimmEncoder(nn.Module):
    """A `timm` model with the size, mean and standard deviation of its weights.

    Tokens are the patch tokens of a transformer or the cells of a network's last map; `pooled` is their mean, `cls` the
    class token where there is one, which registers alone are not.

    Args:
        model: timm's name, with its tag of weights (`vit_small_patch16_224.augreg_in21k`).
        pretrained: load the weights; False for tests.

    Raises:
        MissingExtraError: timm is not installed.
        UserError: the weights cannot be loaded, or its tokens make no square.
    """

    modality = "image"
    trainable = False

    def __init__(self, *, model: str, pretrained: bool = True) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError("timm", "timm") from error
        if not timm.is_model(model.split(".")[0]):
            raise unknown_name("timm model", model, timm.list_models())
        try:
            self.model: Any = timm.create_model(model, pretrained=pretrained, num_classes=0)
        except (OSError, RuntimeError) as error:
            raise UserError(f"encoder=timm:{model} cannot be loaded: {str(error).splitlines()[0]}") from error
        self._arguments = {"model": model, "pretrained": pretrained}
        data = timm.data.resolve_model_data_config(self.model)
        size = int(data["input_size"][-2]), int(data["input_size"][-1])
        self.normalize = Normalize(size, data["mean"], data["std"])
        self.leading = int(getattr(self.model, "num_prefix_tokens", 0))
        self.has_class = getattr(self.model, "cls_token", None) is not None
        self.width, self.grid = self._look(size)

    @torch.no_grad()
    def _look(self, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Width and grid, as they come out: no attribute gives them for every model."""
        training = self.model.training
        self.model.eval()
        features = self._features(torch.zeros(1, 3, *size))
        self.model.train(training)
        if features.ndim == 4:
            return features.shape[1], (features.shape[2], features.shape[3])
        count = features.shape[1] - self.leading
        side = math.isqrt(count)
        if side**2 != count:
            raise UserError(f"encoder=timm:{self._arguments['model']} gives {count} tokens, which make no square")
        return features.shape[2], (side, side)

    def _features(self, images: Tensor) -> Tensor:
        """Tokens [B, C + N, D] with those that lead, or a map [B, D, rows, columns]."""
        features = self.model.forward_features(images)
        if features.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") == "NHWC":  # Swin's
            return features.permute(0, 3, 1, 2)
        return features

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor, *, layers: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, N, D]; `pooled` and, where there is one, `cls` [B, D].

        With `layers` also the tokens after every block (stage of a conv net) as `layer<k>` from 1, before any norm.
        """
        out: dict[str, Tensor] = {}
        if layers:
            maps = self.model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
            out = {f"layer{k}": each.flatten(2).transpose(1, 2) for k, each in enumerate(maps, start=1)}
        features = self._features(images)
        if features.ndim == 4:
            tokens = features.flatten(2).transpose(1, 2)
            return tokens, {**out, "pooled": tokens.mean(dim=1)}
        tokens = features[:, self.leading :]
        out["pooled"] = tokens.mean(dim=1)
        if self.has_class:
            out["cls"] = features[:, 0]
        return tokens, out

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.timm.TimmEncoder", **self._arguments}
