"""A frozen network that names every patch with a code, as BEiT's target. Legend: B batch, N patches, V codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UserError
from embodied.encoders.artifact import build_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import initialize
from embodied.models.codebooks import FSQ, Codebook, make_codebook

FILE = "tokenizer.safetensors"
DECODER = "decoder."  # of the weights of a `FrameTokenizer`, which are not wanted here


class Tokenizer(nn.Module):
    """A ViT, a linear layer and a codebook: the half of a `FrameTokenizer` that reads preprocessed images.

    Args:
        encoder: the ViT.
        quantizer: what turns its tokens into codes.
    """

    def __init__(self, encoder: ViTEncoder, quantizer: Codebook | FSQ) -> None:
        super().__init__()
        self.encoder, self.quantizer = encoder, quantizer
        self.project = nn.Linear(encoder.width, quantizer.width)
        initialize(self.project)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.quantizer.vocabulary

    def vectors(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """What is quantised, from preprocessed images."""
        tokens, _ = self.encoder.vit(images)
        return self.project(tokens)

    @torch.no_grad()
    def codes(self, images: Float[Tensor, "B 3 S S"]) -> Int[Tensor, "B N"]:
        """The code of every patch of preprocessed images."""
        return self.quantizer.nearest(self.vectors(images))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The frozen tokenizer of a run folder of `embodied pretrain objective=vq`, or of its `tokenizer.safetensors`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(path).expanduser()
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}: train one with embodied pretrain objective=vq, give its run folder")
    tensors, config = load_checkpoint(path)
    if "encoder" not in config:
        raise UserError(f"{path} is a checkpoint, but not of a tokenizer")
    encoder = build_encoder(config["encoder"])
    assert isinstance(encoder, ViTEncoder), type(encoder)
    tokenizer = Tokenizer(encoder, make_codebook(_codebook(config)))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in ("quantizer.share", "quantizer.sums")}
    try:
        tokenizer.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its own description: {str(error).splitlines()[-1].strip()}") from error
    return tokenizer.requires_grad_(False).eval()


def _codebook(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the codebook; files of earlier versions have its settings, and its averages, under other names."""
    if "quantizer" in config:
        return dict(config["quantizer"])
    return {"levels": config["levels"]} if "levels" in config else dict(config["book"])
