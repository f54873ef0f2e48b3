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

# These stretch their position table to any input: released DINOv2 configs say 518 px, their processors crop to 224.
STRETCHES = ("dinov2", "dinov2_with_registers")


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
        location = local_or_hub(path, "encoder")
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
        size, patch = _side(getattr(vision, "image_size", None)), _side(getattr(vision, "patch_size", None))
        if size is None or patch is None:
            raise UserError(f"encoder=hf:{path} ({config.model_type}) is no vision model with square patches")
        processor = _processor(location)
        if config.model_type in STRETCHES:
            size = _side(processor.get("crop_size")) or size
        self.width, self.grid = int(vision.hidden_size), (size // patch, size // patch)
        self.masked = config.model_type == "vit_mae"
        if self.masked:
            model.config.mask_ratio = 0.0  # else three quarters of the frame are dropped at random
        self.normalize = Normalize(size, *_statistics(processor, path))

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Patch tokens [B, N, D] in raster order; `pooled` [B, D], and `cls` [B, D] where the model has one."""
        patches = self.grid[0] * self.grid[1]
        if self.masked:
            # Ascending noise keeps ViT-MAE's shuffle the identity.
            noise = torch.arange(patches, dtype=torch.float32, device=images.device).expand(images.shape[0], -1)
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


def local_or_hub(path: str, setting: str) -> str:
    """The folder that `hf:<path>` names, or else the repository.

    Raises:
        UserError: it is written as a folder, and there is none.
    """
    folder = Path(path).expanduser()
    if folder.exists():
        return str(folder)
    if path.startswith(("/", "~", ".")):
        raise UserError(f"{setting}=hf:{path} cannot be loaded: there is no such folder")
    return path


def _side(value: Any) -> int | None:
    """The side of a square given as a number, a pair or `{"height", "width"}`; None for anything else."""
    if isinstance(value, dict):
        value = (value.get("height"), value.get("width"))
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return value if isinstance(value, int) else None


def _processor(location: str) -> dict[str, Any]:
    """The settings of the model's image processor; empty where it has none."""
    from transformers.utils import cached_file

    found = cached_file(
        location,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return {}
    try:
        content = json.loads(Path(found).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{found} is not readable JSON: download the model again") from error
    if not isinstance(content, dict):
        raise UserError(f"{found} does not describe an image processor: download the model again")
    return content


def _statistics(processor: dict[str, Any], path: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of an image processor; ImageNet's where it has none."""
    values = []
    for name, otherwise in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
        value = processor.get(name, otherwise)
        numbers = isinstance(value, (list, tuple)) and all(isinstance(x, (int, float)) for x in value)
        if not numbers or len(value) != 3 or not all(math.isfinite(x) for x in value):
            raise UserError(f"encoder=hf:{path}: its {name} must be three numbers, got {value}")
        values.append(tuple(float(x) for x in value))
    return values[0], values[1]
