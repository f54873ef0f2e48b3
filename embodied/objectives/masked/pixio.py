"""Pixio: in pursuit of pixel supervision for visual pre-training (Yang et al. 2025,
https://arxiv.org/abs/2512.15715).

MAE with four changes: squares of patches are hidden, several class tokens, learned positions, a deep decoder.
Written from the paper's facts; the released code is for research only and none of it is here.

Legend: B batch, S image size, P patch size, N patches, K kept patches, G squares, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import SelfDecoder, leading_tokens
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.masks import grid_mask
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.settings import area_range, share
from embodied.objectives.parts.targets import flat_share, pixel_target


class Pixio(nn.Module):
    """Hide squares of `grid` x `grid` patches and predict their per-patch normalised pixels.

    The class tokens and learned positions are the encoder's: `encoder.class_tokens=8 encoder.positions=learned`, which
    `objective/pixio.yaml` sets. With `grid` 1 the hidden patches are MAE's, bit for bit.

    Args:
        encoder: the ViT to train.
        decoder_width, decoder_depth, decoder_heads: the paper's 512, 32, 16 go with a ViT-H and larger.
        grid: side of a square in patches; must divide the encoder's grid. The paper's 4 is of 16 x 16 patches.
        mask_ratio: share of removed squares.
        norm_pix: as in MAE. On, as in the paper; on flat simulator backgrounds that target is noise.
        learned_positions: of the decoder; False: fixed sine-cosine.
        crop_scale: of the random resized crop. Departure: the paper's (0.2, 1) makes a gripper of a few pixels vanish.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 4,
        decoder_heads: int = 4,
        grid: int = 4,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        learned_positions: bool = True,
        crop_scale: tuple[float, float] = (0.6, 1.0),
    ) -> None:
        super().__init__()
        rows, columns = encoder.grid
        if grid < 1 or rows % grid or columns % grid:
            raise UsageError(f"grid must divide the encoder's {rows}x{columns} patches, got {grid}")
        self.encoder, self.grid, self.norm_pix = encoder, grid, norm_pix
        self.mask_ratio, self.crop_scale = share("mask_ratio", mask_ratio), area_range("crop_scale", crop_scale)
        self.squares = (rows // grid) * (columns // grid)
        if int(self.squares * (1 - mask_ratio)) < 1:
            raise UsageError(f"mask_ratio {mask_ratio} leaves none of {self.squares} squares: lower it, or grid")
        self.decoder = SelfDecoder(
            inputs=encoder.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            grid=encoder.grid,
            leading=encoder.vit.class_tokens,
            positions="learned" if learned_positions else "sincos",
        )

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch and `flat_patches`; see `MAE.forward`."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale)
        noise = torch.rand(len(images), self.squares, generator=generator)
        loss, _, _ = self.masked_loss(images, noise.to(images.device))
        return loss, {"flat_patches": flat_share(images, self.encoder.vit.patch_size)}

    def masked_loss(
        self, images: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B G"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Loss, prediction of every patch, and mask (1 = removed) for preprocessed images and noise per square."""
        rows, columns = self.encoder.grid
        keep_ids, restore_ids, mask = grid_mask(noise, self.mask_ratio, rows=rows, columns=columns, block=self.grid)
        tokens, out = self.encoder(images, keep_ids)  # (B, K, D)
        prediction = self.decoder(leading_tokens(tokens, out), tokens, restore_ids)
        target = pixel_target(images, self.encoder.vit.patch_size, normalize=self.norm_pix)
        return masked_mean(squared_error(prediction, target), mask, reduction="batch"), prediction, mask

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: masked input, prediction in the gaps, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        noise = torch.rand(len(images), self.squares, generator=generator).to(images.device)
        _, prediction, mask = self.masked_loss(images, noise)
        return patch_pictures(self.encoder, images, prediction, mask, normalized=self.norm_pix)
