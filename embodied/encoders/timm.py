"""Any image model of `timm` as an encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError, unknown_name
from embodied.encoders.preprocessing import Normalize


class TimmEncoder(nn.Module):
    """A `timm` model with the size, mean and standard deviation of its weights.

    Tokens are the patch tokens of a transformer or the cells of a conv net's last map; `pooled` is their mean, `cls`
    the class token where there is one.

    Args:
        model: timm's name, with its tag of weights (`vit_small_patch16_224.augreg_in21k`).
        pretrained: load the weights; False for tests.

    Raises:
        MissingExtraError: timm is not installed.
        UserError: the weights cannot be loaded.
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
        self.normalize = Normalize(int(data["input_size"][-1]), data["mean"], data["std"])
        self.width = int(self.model.num_features)
        self.leading = int(getattr(self.model, "num_prefix_tokens", 0))
        size, reduction = int(data["input_size"][-1]), int(self.model.feature_info[-1]["reduction"])
        self.grid = (size // reduction, size // reduction)

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
        features = self.model.forward_features(images)
        if features.ndim == 4:  # a conv net's map (B, D, rows, columns)
            tokens = features.flatten(2).transpose(1, 2)
            return tokens, {**out, "pooled": tokens.mean(dim=1)}
        tokens = features[:, self.leading :]
        out["pooled"] = tokens.mean(dim=1)
        if self.leading:
            out["cls"] = features[:, 0]
        return tokens, out

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.timm.TimmEncoder", **self._arguments}
