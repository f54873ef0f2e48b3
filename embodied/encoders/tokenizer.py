"""A frame tokenizer: frames to codes and back. As an encoder, it gives the vectors of the codes.

Legend: B batch, H, W size of a frame, S image size, N = h * w places in raster order, V codes, C values of a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import build_encoder, fingerprint, freeze, load_artifact
from embodied.models.block import initialize
from embodied.models.codebooks import FSQ, Codebook, make_codebook
from embodied.models.patch_decoder import PatchDecoder
from embodied.models.pyramid import PyramidUp

DEFAULT_FOLDER = files("embodied.encoders") / "assets" / "tokenizer"
FOLDER = "frame_tokenizer"  # of it in the run folder of `embodied pretrain objective=vq`


class FrameTokenizer(nn.Module):
    """An image encoder, a linear layer, the nearest code of every token, and a decoder from codes to pixels.

    Its `fingerprint` is that of any encoder: whatever was trained on its codes names it, and is refused with another.

    Args:
        encoder: an encoder of images with a grid of tokens and a `normalize`, or its `config()`.
        quantizer: what turns vectors into codes, or its `config()`.
        decoder: its kind, `vit` or `conv`, and `width`, `depth`, with it `heads` or `stem`; see `make_decoder`.

    Raises:
        UsageError: the parts do not go together.
    """

    modality = "image"
    trainable = False

    def __init__(
        self,
        *,
        encoder: nn.Module | Mapping[str, Any],
        quantizer: Codebook | FSQ | Mapping[str, Any],
        decoder: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.encoder: Any = build_encoder(dict(encoder)) if isinstance(encoder, Mapping) else encoder
        network: Any = cast("Any", self.encoder)
        self.quantizer = make_codebook(quantizer) if isinstance(quantizer, Mapping) else quantizer
        self.project = nn.Linear(network.width, self.quantizer.width)
        initialize(self.project)
        self._decoder = {str(key): value for key, value in decoder.items()}
        rows, columns = network.grid
        height, width = network.normalize.size
        if (height % rows, width % columns) != (0, 0) or height // rows != width // columns:
            raise UsageError(
                f"a tokenizer wants square patches, got a grid of {rows} x {columns} of {height} x {width} pixels"
            )
        self.decoder = make_decoder(
            self._decoder, inputs=self.quantizer.width, patch_size=height // rows, grid=(rows, columns)
        )
        self.grid, self.width, self.image_size = (int(rows), int(columns)), self.quantizer.width, (height, width)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.quantizer.vocabulary

    @property
    def num_codes(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def preprocess(self, frames: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 S1 S2"]:
        """Frames of any size to what `forward` takes: resized to S, normalised."""
        return self.encoder.preprocess(frames)

    def vectors(self, images: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, "B N C"]:
        """What the nearest codes are taken of."""
        tokens, _ = self.encoder(images)
        return self.project(tokens)

    def forward(self, images: Float[Tensor, "B 3 S1 S2"]) -> tuple[Tensor, dict[str, Tensor]]:
        """The codes' vectors [B, N, C]; `codes` [B, N] and `pooled` [B, C], the mean of the vectors.

        Codes come as float32, which holds whole numbers up to 2^24 exactly, since that is what features are everywhere;
        `codes()` gives them as int64.
        """
        codes = self._nearest(images)
        tokens = self.quantizer.lookup(codes)
        return tokens, {"codes": codes.float(), "pooled": tokens.mean(dim=1)}

    @torch.no_grad()
    def codes(self, frames: UInt8[Tensor, "B H W 3"]) -> Int[Tensor, "B N"]:
        """The codes int64 of frames, the same with and without autocast."""
        return self._nearest(self.preprocess(frames))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"]) -> UInt8[Tensor, "B S1 S2 3"]:
        """Frames of codes.

        Raises:
            UsageError: there are not N of them, or one is not in 0 to V - 1.
        """
        if codes.ndim != 2 or codes.shape[1] != self.num_codes:
            raise UsageError(f"codes: expected [B, {self.num_codes}], got {list(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.vocabulary:
            raise UsageError(
                f"codes must be in 0 to {self.vocabulary - 1}, got {int(codes.min())} to {int(codes.max())}: they are "
                "of another tokenizer, or not codes at all"
            )
        with torch.autocast(codes.device.type, enabled=False):
            return self.encoder.normalize.inverse(self.decode_vectors(self.quantizer.lookup(codes)))

    def decode_vectors(self, vectors: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 S1 S2"]:
        """Normalised images of codes' vectors, or of mixtures of them; differentiable."""
        if isinstance(self.decoder, PyramidUp):
            vectors = vectors.transpose(1, 2).unflatten(2, self.grid)  # (B, C, h, w)
        return self.decoder(vectors)

    def config(self) -> dict[str, Any]:
        """What rebuilds this tokenizer."""
        return {
            "name": "embodied.encoders.tokenizer.FrameTokenizer",
            "encoder": self.encoder.config(),
            "quantizer": self.quantizer.config(),
            "decoder": dict(self._decoder),
        }

    def _nearest(self, images: Tensor) -> Tensor:
        # Never in bf16: a frame must have the same codes in the cache, in training and on a robot.
        with torch.autocast(images.device.type, enabled=False):
            return self.quantizer.nearest(self.vectors(images.float()))


def make_decoder(
    settings: Mapping[str, Any], *, inputs: int, patch_size: int, grid: tuple[int, int]
) -> PatchDecoder | PyramidUp:
    """The decoder of a tokenizer: `kind` is `vit` (`width`, `depth`, `heads`) or `conv` (`width`, `depth`, `stem`)."""
    arguments = {key: int(value) for key, value in settings.items() if key != "kind"}
    if settings["kind"] == "vit":
        return PatchDecoder(inputs=inputs, patch_size=patch_size, grid=grid, **arguments)
    if settings["kind"] == "conv":
        return PyramidUp(inputs=inputs, factor=patch_size, **arguments)
    raise UsageError(f"the decoder of a tokenizer is vit or conv, got {settings['kind']!r}")


def load_frame_tokenizer(spec: str | Path) -> FrameTokenizer:
    """A frozen tokenizer.

    Args:
        spec: `default`, which comes with the package; a folder with an artifact; or a run folder of
            `embodied pretrain objective=vq`.

    Raises:
        UserError: there is none, it is damaged, or it is another encoder.
    """
    if str(spec) == "default":
        folder = Path(str(DEFAULT_FOLDER))
        if not folder.is_dir():
            raise UserError(
                "this installation has no default tokenizer: train one with embodied pretrain objective=vq, "
                "give its run folder"
            )
    else:
        folder = Path(spec).expanduser()
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        if not folder.is_dir():
            raise UserError(
                f"no tokenizer at {folder}: train one with embodied pretrain objective=vq, give its run folder (or "
                "default, which comes with the package)"
            )
    tokenizer = load_artifact(folder)
    if not isinstance(tokenizer, FrameTokenizer):
        raise UserError(f"{folder} is an encoder, but no tokenizer: it gives no codes. Give a run of objective=vq")
    return freeze(tokenizer)


def require_tokenizer(tokenizer: nn.Module, expected: str, *, what: str) -> None:
    """Whatever was trained on the codes of one tokenizer means nothing with another's.

    Args:
        tokenizer: which is there.
        expected: the fingerprint of the one that it has to be.
        what: was trained with it, in words.

    Raises:
        UserError: it is another one.
    """
    found = fingerprint(tokenizer)
    if found != expected:
        raise UserError(
            f"{what} was trained on the codes of tokenizer {expected[:12]}, this one is {found[:12]}: the same numbers "
            "stand for other pictures; give the tokenizer it was trained with, or train anew"
        )
