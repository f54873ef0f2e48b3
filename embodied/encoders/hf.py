"""Any vision model of Hugging Face `transformers` as an encoder: DINOv2, ViT-MAE, CLIP, SigLIP, ViT, ..."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Normalize


class HuggingFaceEncoder(nn.Module):
    """A `transformers` vision model with its own size, mean and standard deviation.

    Tokens are the patch tokens of `last_hidden_state`, without class and register tokens; `pooled` is their mean and
    `cls` the first class token where there is one. Weights load from safetensors only, and no remote code runs.

    Args:
        path: a folder or a repository of the hub.

    Raises:
        MissingExtraError: transformers is not installed.
        UserError: the folder or repository cannot be loaded, or is no vision model with patch tokens.
    """

    modality = "image"
    trainable = False

    def __init__(self, *, path: str) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise MissingExtraError("transformers", "hf") from error
        location = str(Path(path).expanduser()) if Path(path).expanduser().exists() else path
        try:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False)
            model = AutoModel.from_pretrained(location, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"encoder=hf:{path} cannot be loaded: {reason}") from error
        self._path = path
        # A model of images and text (CLIP, SigLIP) holds the part that sees.
        self.model: nn.Module = getattr(model, "vision_model", model)
        vision = getattr(config, "vision_config", config)
        size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
        if not isinstance(size, int) or not isinstance(patch, int):
            raise UserError(f"encoder=hf:{path} ({config.model_type}) is no vision model with square patches")
        self.width, self.grid = int(vision.hidden_size), (size // patch, size // patch)
        self.masked = config.model_type == "vit_mae"
        if self.masked:
            model.config.mask_ratio = 0.0  # else three quarters of the frame are dropped at random
        mean, std = _statistics(location)
        self.normalize = Normalize(size, mean, std)

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Patch tokens [B, N, D] in raster order; `pooled` [B, D], and `cls` [B, D] where the model has one."""
        patches = self.grid[0] * self.grid[1]
        if self.masked:
            # Ascending noise keeps ViT-MAE's shuffle the identity.
            noise = torch.arange(patches, dtype=torch.float32, device=images.device).expand(len(images), -1)
            tokens = self.model(pixel_values=images, noise=noise).last_hidden_state
        else:
            tokens = self.model(pixel_values=images).last_hidden_state
        # Class and register tokens lead; a model without any has as many tokens as patches.
        leading = tokens.shape[1] - patches
        if leading < 0:
            raise UserError(f"encoder=hf:{self._path} gave {tokens.shape[1]} tokens, expected at least {patches}")
        out = {"pooled": tokens[:, leading:].mean(dim=1)}
        if leading:
            out["cls"] = tokens[:, 0]
        return tokens[:, leading:], out

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder; mean and standard deviation are part of the fingerprint as buffers."""
        return {"name": "embodied.encoders.hf.HuggingFaceEncoder", "path": self._path}


def _statistics(location: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the model's image processor; ImageNet's where it has none."""
    from transformers.utils import cached_file

    found = cached_file(
        location,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return IMAGENET_MEAN, IMAGENET_STD
    content = json.loads(Path(found).read_text(encoding="utf-8"))
    mean, std = content.get("image_mean", IMAGENET_MEAN), content.get("image_std", IMAGENET_STD)
    if not all(math.isfinite(value) for value in (*mean, *std)):
        raise UserError(f"{found}: image_mean and image_std must be numbers, got {mean} and {std}")
    return tuple(mean), tuple(std)
