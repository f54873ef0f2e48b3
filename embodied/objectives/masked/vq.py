"""VQ: a tokenizer of patches, for BEiT (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937; codes by finite
scalars: Mentzer et al. 2024, https://arxiv.org/abs/2309.15505).

Legend: B batch, S image size, P patch size, N patches, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import unknown_name
from embodied.encoders.vit import ViTEncoder
from embodied.models.patches import patchify, unpatchify
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import SelfDecoder
from embodied.objectives.parts.quantizers import FSQ, VectorQuantizer, code_use
from embodied.objectives.parts.tokenizer import Tokenizer

QUANTIZERS = ("ema", "gradient", "fsq")


class VQ(nn.Module):
    """Encode, choose a code for every patch, decode the pixels from the codes (Fig. 1).

    Our variant: a ViT encodes and decodes instead of a convolutional net, so that there is one code per patch of the
    network that is trained on them; codes are compared on the unit sphere, moved by averages, and dead ones restarted.
    BEiT's own tokenizer is DALL-E's discrete VAE, whose weights cannot be had offline.

    Args:
        encoder: the ViT to train.
        quantizer: `ema` (codes follow averages), `gradient` (codes have a loss) or `fsq` (no codebook at all).
        codes, code_width: V and the width of a code; of `ema` and `gradient`.
        levels: of `fsq`; V is their product.
        average: decay of `ema`.
        commitment: weight of the loss that draws vectors to codes.
        restart_below: see `VectorQuantizer`.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        crop_scale: of the random resized crop.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        quantizer: str = "ema",
        codes: int = 512,
        code_width: int = 16,
        levels: Sequence[int] = (8, 8, 8),
        average: float = 0.99,
        commitment: float = 0.25,
        restart_below: float = 0.03,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        crop_scale: tuple[float, float] = (0.6, 1.0),
    ) -> None:
        super().__init__()
        if quantizer not in QUANTIZERS:
            raise unknown_name("quantizer", quantizer, QUANTIZERS)
        self.crop_scale = (crop_scale[0], crop_scale[1])
        book: VectorQuantizer | FSQ
        if quantizer == "fsq":
            book = FSQ(levels=levels)
        else:
            book = VectorQuantizer(
                codes=codes,
                width=code_width,
                average=average if quantizer == "ema" else None,
                commitment=commitment,
                restart_below=restart_below,
            )
        self.tokenizer = Tokenizer(encoder, book)
        self.decoder = SelfDecoder(
            inputs=book.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            grid=encoder.grid,
            leading=0,
            gaps=False,
        )

    @property
    def encoder(self) -> ViTEncoder:
        """The ViT that is trained."""
        return self.tokenizer.encoder

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, its two parts, and how many codes are in use."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale)
        prediction, codes, draw = self.predict(images)
        error = (prediction - patchify(images, self.encoder.vit.patch_size)).pow(2).mean()
        use = code_use(codes, self.tokenizer.vocabulary)
        return error + draw, {"pixel_error": error.detach(), "code_error": draw.detach(), **use}

    def predict(
        self, images: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "B N PPC"], Int[Tensor, "B N"], Float[Tensor, ""]]:
        """Patches decoded from codes, the codes, and the quantiser's loss."""
        quantized, codes, draw = self.tokenizer.quantizer(self.tokenizer.vectors(images))
        return self.decoder(quantized[:, :0], quantized), codes, draw

    def after_step(self, step: int, steps: int) -> None:
        """Move the codes."""
        self.tokenizer.quantizer.update()

    def exports(self) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        """The tokenizer, which becomes a file of its own beside the encoder."""
        return {"tokenizer": (self.tokenizer.state_dict(), self.tokenizer.config())}

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: decoded from codes, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        prediction, _, _ = self.predict(images)
        decoded = unpatchify(prediction, self.encoder.vit.patch_size, self.encoder.grid[0])
        return [self.encoder.normalize.inverse(part) for part in (decoded, images)]
