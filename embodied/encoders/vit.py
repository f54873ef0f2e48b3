"""Our vision transformer as an encoder: the network with its preprocessing."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from embodied.core.errors import unknown_name
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Normalize
from embodied.models.presets import vit_size
from embodied.models.vit import VisionTransformer

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(VisionTransformer.__init__).parameters.items()
    if name != "self"
}


class ViTEncoder(nn.Module):
    """A `VisionTransformer` that takes frames.

    Args:
        image_size: S, or (height, width): frames of another size are resized to it.
        patch_size, width, depth, heads: as there.
        size: a name of `models.presets` instead of width, depth and heads.
        mean, std: of the pixels in [0, 1], per channel; ImageNet's, as MAE uses them.
        options: further arguments of `VisionTransformer`, by name.

    Raises:
        UsageError: there is no such size or option.
        ValueError: see `VisionTransformer`.
    """

    modality = "image"
    trainable = False

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = 128,
        patch_size: int = 16,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        size: str | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in options:
            if name not in _DEFAULTS:
                raise unknown_name("option of a vision transformer", name, _DEFAULTS)
        side = image_size if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
        sizes = vit_size(size) if size is not None else {"width": width, "depth": depth, "heads": heads}
        network: dict[str, Any] = {"image_size": side, "patch_size": patch_size, **sizes}
        self.vit = VisionTransformer(**network, **options)
        self._arguments = {**network, "image_size": side if isinstance(side, int) else list(side)}
        # An option at its default stays out: encoders from before it existed keep their fingerprints.
        self._arguments |= {name: value for name, value in options.items() if value != _DEFAULTS[name]}
        self.normalize = Normalize(side, mean, std)
        for name, value, otherwise in (("mean", mean, IMAGENET_MEAN), ("std", std, IMAGENET_STD)):
            if tuple(value) != otherwise:
                self._arguments[name] = [float(each) for each in value]
        self.width, self.grid = self.vit.width, self.vit.grid

    @property
    def network_arguments(self) -> dict[str, Any]:
        """Every argument of the `VisionTransformer`, those that were left to their defaults too."""
        given = {name: value for name, value in self._arguments.items() if name in _DEFAULTS}
        return {**_DEFAULTS, **given, "class_token": None, "class_tokens": self.vit.class_tokens}

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(
        self, images: Tensor, keep_ids: Tensor | None = None, *, layers: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Patch tokens [B, N, D]; `pooled` and `cls` [B, D], and more by `VisionTransformer.forward`."""
        return self.vit(images, keep_ids, layers=layers)

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.vit.ViTEncoder", **self._arguments}
