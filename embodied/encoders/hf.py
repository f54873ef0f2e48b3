"""Any vision model of Hugging Face `transformers` as an encoder: DINOv2 and v3, ViT-MAE, CLIP, SigLIP, V-JEPA 2, ..."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Normalize, are_channels

# These stretch their position table to any input: released DINOv2 configs say 518 px, their processors crop to 224.
STRETCHES = ("dinov2", "dinov2_with_registers")
UNREAD = ("pooler", "mask_token", "head.", "predictor")  # in names of weights behind, or beside, the last hidden state
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


class HuggingFaceEncoder(nn.Module):
    """A `transformers` vision model with its own size, mean and standard deviation.

    Tokens are the patch tokens of `last_hidden_state`, without class and register tokens; `pooled` is their mean and
    `cls` the first class token where there is one, of Pixio the mean of all of them. Weights load from safetensors
    only, and no remote code runs.

    V-JEPA 2 sees a video of one time step: the frame, repeated to fill a tubelet (two frames). Its temporal positions
    are rotary, so the first time step is as good as any; its predictor does not run.

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
        source = open_model(path)
        self._path, self.model, vision = path, source.model, source.vision
        size, patch = source.input_size(), _side(getattr(vision, "patch_size", None))
        width = getattr(vision, "hidden_size", None)  # networks of several stages have one for each
        if size is None or patch is None or width is None:
            raise UserError(f"encoder=hf:{path} ({source.config.model_type}) is no vision model with square patches")
        self.width, self.grid = int(width), (size // patch, size // patch)
        self.masked = source.config.model_type == "vit_mae"
        if self.masked:
            source.config.mask_ratio = 0.0  # else three quarters of the frame are dropped at random
        self.tubelet = getattr(vision, "tubelet_size", None)  # frames; None: it takes images
        self.class_tokens = int(getattr(vision, "n_cls_tokens", 1))
        self.normalize = Normalize(size, *statistics(source.processor, path))

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor, *, layers: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Patch tokens [B, N, D] in raster order; `pooled` [B, D], and `cls` [B, D] where the model has one.

        With `layers` also the patch tokens after every block as `layer<k>` from 1, before the final norm.
        """
        patches = self.grid[0] * self.grid[1]
        found = self.model(**self._inputs(images, patches), output_hidden_states=layers)
        tokens = found.last_hidden_state
        # Class and register tokens lead; a model without any has as many tokens as patches.
        leading = tokens.shape[1] - patches
        if leading < 0:
            raise UserError(f"encoder=hf:{self._path} gave {tokens.shape[1]} tokens, expected at least {patches}")
        out = {"pooled": tokens[:, leading:].mean(dim=1)}
        if leading:
            out["cls"] = tokens[:, 0] if self.class_tokens == 1 else tokens[:, : self.class_tokens].mean(dim=1)
        if layers:  # the first is what enters the first block
            out |= {f"layer{k}": each[:, leading:] for k, each in enumerate(found.hidden_states[1:], start=1)}
        return tokens[:, leading:], out

    def _inputs(self, images: Tensor, patches: int) -> dict[str, Any]:
        if self.tubelet is not None:
            video = images[:, None].expand(-1, self.tubelet, -1, -1, -1)  # (B, T, 3, S, S)
            return {"pixel_values_videos": video, "skip_predictor": True}
        if not self.masked:
            return {"pixel_values": images}
        # Ascending noise keeps ViT-MAE's shuffle the identity.
        noise = torch.arange(patches, dtype=torch.float32, device=images.device).expand(images.shape[0], -1)
        return {"pixel_values": images, "noise": noise}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder; mean and standard deviation are part of the fingerprint as buffers."""
        return {"name": "embodied.encoders.hf.HuggingFaceEncoder", "path": self._path}


@dataclass(frozen=True)
class Source:
    """A loaded model: the part that sees, its config, the whole model's config, its processor's settings."""

    model: nn.Module
    vision: Any
    config: Any
    processor: dict[str, Any]

    def input_size(self) -> int | None:
        """The side that frames are resized to; None where it is no square."""
        vision = self.vision
        size = _side(getattr(vision, "image_size", None)) or _side(getattr(vision, "crop_size", None))
        return (_side(self.processor.get("crop_size")) or size) if self.config.model_type in STRETCHES else size


def open_model(path: str) -> Source:
    """A vision model of transformers from a folder or the hub.

    Raises:
        MissingExtraError: transformers is not installed.
        UserError: it cannot be loaded, is damaged, or lacks weights that its patch tokens depend on.
    """
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingExtraError("transformers", "hf") from error
    location = local_or_hub(path, "encoder")
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        model, notes = AutoModel.from_pretrained(
            location, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except SafetensorError as error:
        raise UserError(f"encoder=hf:{path} is damaged ({error}): copy or download it again") from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, StrictDataclassError) as error:
        raise UserError(f"encoder=hf:{path} cannot be loaded: {_reason(error)}") from error
    # A model of images and text (CLIP, SigLIP) holds the part that sees.
    part: nn.Module = getattr(model, "vision_model", model)
    missing = _missing(model, part, notes["missing_keys"])
    if missing:
        raise UserError(
            f"encoder=hf:{path}: its file lacks {len(missing)} weights, among them {missing[0]}, which would be "
            "random: download the model again"
        )
    return Source(part, getattr(config, "vision_config", config), model.config, processor_settings(location))


def _reason(error: Exception) -> str:
    """One line of what transformers says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"its config.json says {lines[0]}, which transformers does not know"
    if isinstance(error, RuntimeError):  # of weights of other shapes; its text is about an option of theirs
        return "its weights do not fit its config.json"
    return " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]


def _missing(model: nn.Module, part: nn.Module, missing: Iterable[str]) -> list[str]:
    """The weights of the part that sees that no file holds, but for those that its patch tokens do not depend on."""
    seen = {id(parameter) for parameter in part.parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in seen}
    return sorted(name for name in names & set(missing) if not any(word in name for word in UNREAD))


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


def processor_settings(location: str) -> dict[str, Any]:
    """The settings of the model's processor of images, else of videos; empty where it has none."""
    from transformers.utils import cached_file

    found = None
    for name in PROCESSORS:
        found = found or cached_file(
            location,
            name,
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


def statistics(processor: dict[str, Any], path: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of an image processor; ImageNet's where it has none."""
    values = []
    for name, otherwise in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
        value = processor.get(name, otherwise)
        if not are_channels(value):
            raise UserError(f"encoder=hf:{path}: its {name} must be three numbers, got {value}")
        values.append(tuple(float(x) for x in value))
    if min(values[1]) <= 0:
        raise UserError(f"encoder=hf:{path}: its image_std must be positive, got {list(values[1])}")
    return values[0], values[1]
