"""MAE: masked autoencoders are scalable vision learners (He et al. 2022, https://arxiv.org/abs/2111.06377).

Legend: B batch, S image size, P patch size, N patches, K kept patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.models.patches import patchify, unpatchify
from embodied.models.positions import sincos_2d
from embodied.models.vit import Block, initialize
from embodied.objectives.augment import random_resized_crop

FLAT_VARIANCE = 1e-4  # of a patch of the normalised image; below it the normalised target is mostly noise


class MAE(nn.Module):
    """Hide patches, encode the rest, predict the pixels of the hidden ones (Fig. 1).

    The encoder sees the kept patches only; a narrow decoder gets them with a learned mask token in every gap (Sec. 3).

    Args:
        encoder: the ViT to train.
        decoder_width, decoder_depth, decoder_heads: the paper's 512, 8, 16 go with a ViT-B; ours is for a tiny ViT.
        mask_ratio: share of removed patches; K = int(N * (1 - mask_ratio)) are kept.
        norm_pix: predict each patch minus its mean over its standard deviation (unbiased variance, eps 1e-6), the
            paper's best. Departure: off by default, since on flat simulator backgrounds that target is noise.
        crop_scale: of the random resized crop. Departure: the paper's (0.2, 1) makes a gripper of a few pixels vanish.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        mask_ratio: float = 0.75,
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise UsageError(f"mask_ratio must be in (0, 1), got {mask_ratio}")
        vit = encoder.vit
        rows, columns = vit.grid
        self.encoder = encoder
        self.patch_size, self.rows = vit.patch_size, rows
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        self.crop_scale, self.flip = (crop_scale[0], crop_scale[1]), flip
        self.embed = nn.Linear(vit.width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.positions: Tensor
        positions = sincos_2d(decoder_width, rows, columns, class_token=True)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(Block(decoder_width, decoder_heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.head = nn.Linear(decoder_width, 3 * vit.patch_size**2)
        for part in (self.embed, self.blocks, self.head):
            initialize(part)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `images`, frames uint8 [B, H, W, 3].
            generator: a CPU generator, for crops and masks.

        Returns:
            The loss, and `flat_patches`, the share of patches with next to no variance.
        """
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        noise = torch.rand(len(images), self.encoder.vit.grid[0] * self.encoder.vit.grid[1], generator=generator)
        loss, _, _ = self.masked_loss(images, noise.to(images.device))
        flat = patchify(images, self.patch_size).var(dim=-1) < FLAT_VARIANCE
        return loss, {"flat_patches": flat.float().mean()}

    def masked_loss(
        self, images: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Loss, prediction of every patch, and mask (1 = removed) for preprocessed images and given mask noise."""
        keep_ids, restore_ids, mask = uniform_mask(noise, self.mask_ratio)
        tokens, out = self.encoder(images, keep_ids)  # (B, K, D)
        prediction = self.decode(tokens, out["cls"], restore_ids)
        error = (prediction - self.target(images)).pow(2).mean(dim=-1)  # (B, N)
        # The mean is over all removed patches of the batch, not per image first (released code).
        return (error * mask).sum() / mask.sum(), prediction, mask

    def decode(
        self, tokens: Float[Tensor, "B K D"], cls: Float[Tensor, "B D"], restore_ids: Tensor
    ) -> Float[Tensor, "B N PPC"]:
        """Predicted patches in raster order from the kept tokens."""
        kept = self.embed(torch.cat([cls[:, None], tokens], dim=1))  # (B, 1 + K, decoder width)
        gaps = self.mask_token.expand(len(kept), restore_ids.shape[1] - tokens.shape[1], -1)
        shuffled = torch.cat([kept[:, 1:], gaps], dim=1)  # (B, N, decoder width)
        ordered = shuffled.gather(1, restore_ids[..., None].expand(-1, -1, shuffled.shape[-1]))
        sequence = torch.cat([kept[:, :1], ordered], dim=1) + self.positions
        for block in self.blocks:
            sequence = block(sequence)
        return self.head(self.norm(sequence))[:, 1:]

    def target(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N PPC"]:
        """What is predicted: patches of the normalised image, each normalised by itself with `norm_pix` (Sec. 3)."""
        patches = patchify(images, self.patch_size)
        if not self.norm_pix:
            return patches
        mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: masked input, prediction in the gaps, original; each uint8 [B, S, S, 3].

        With `norm_pix` each predicted patch gets the mean and deviation of the true one, else it cannot be looked at.
        """
        images = self.encoder.preprocess(frames)
        patches = patchify(images, self.patch_size)
        noise = torch.rand(patches.shape[:2], generator=generator).to(images.device)
        _, prediction, mask = self.masked_loss(images, noise)
        if self.norm_pix:
            deviation = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
            prediction = prediction * deviation + patches.mean(dim=-1, keepdim=True)
        hidden = mask[..., None]
        shown = (patches * (1 - hidden), patches * (1 - hidden) + prediction * hidden, patches)
        return [self.encoder.normalize.inverse(unpatchify(part, self.patch_size, self.rows)) for part in shown]
