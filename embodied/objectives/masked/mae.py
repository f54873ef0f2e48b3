"""MAE: masked autoencoders are scalable vision learners (He et al. 2022, https://arxiv.org/abs/2111.06377).

Legend: B batch, S image size, P patch size, N patches, K kept patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import SelfDecoder, leading_tokens
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.settings import area_range, kept_share
from embodied.objectives.parts.targets import flat_share, pixel_target

DECODER = "decoder."


class MAE(nn.Module):
    """Hide patches, encode the rest, predict the pixels of the hidden ones (Fig. 1).

    The encoder sees the kept patches only; a narrow decoder gets them with a learned mask token in every gap (Sec. 3).
    On images of hands and robots this is how MVP's encoders are made (https://arxiv.org/abs/2203.06173).

    Args:
        encoder: the ViT to train.
        decoder_width, decoder_depth, decoder_heads: the paper's 512, 8, 16 go with a ViT-B; ours is for a tiny ViT.
        mask_ratio: share of removed patches; K = int(N * (1 - mask_ratio)) are kept.
        norm_pix: predict each patch minus its mean over its standard deviation (unbiased variance, eps 1e-6), the
            paper's best. Departure: off by default, since on flat simulator backgrounds that target is noise.
        crop_scale: of the random resized crop. Departure: the paper's (0.2, 1) makes a gripper of a few pixels vanish.
            Crops are bilinear here and in all methods, the paper's bicubic.
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
        self.mask_ratio = kept_share("mask_ratio", mask_ratio, encoder.grid[0] * encoder.grid[1])
        self.crop_scale, self.flip, self.norm_pix = area_range("crop_scale", crop_scale), flip, norm_pix
        self.encoder = encoder
        self.decoder = SelfDecoder(
            inputs=encoder.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            grid=encoder.grid,
            leading=encoder.vit.class_tokens,
        )
        # In files the decoder's weights stand without a prefix, as they did before it was a part of its own.
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def positions(self) -> Tensor:
        """The decoder's table, [1 + N, decoder width]."""
        assert self.decoder.positions is not None
        return self.decoder.positions

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
        noise = torch.rand(len(images), self.encoder.grid[0] * self.encoder.grid[1], generator=generator)
        loss, _, _ = self.masked_loss(images, noise.to(images.device))
        return loss, {"flat_patches": flat_share(images, self.encoder.vit.patch_size)}

    def masked_loss(
        self, images: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Loss, prediction of every patch, and mask (1 = removed) for preprocessed images and given mask noise."""
        keep_ids, restore_ids, mask = uniform_mask(noise, self.mask_ratio)
        tokens, out = self.encoder(images, keep_ids)  # (B, K, D)
        prediction = self.decoder(leading_tokens(tokens, out), tokens, restore_ids)
        # The mean is over all removed patches of the batch, not per image first (released code).
        loss = masked_mean(squared_error(prediction, self.target(images)), mask, reduction="batch")
        return loss, prediction, mask

    def target(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N PPC"]:
        """What is predicted: patches of the normalised image, each normalised by itself with `norm_pix` (Sec. 3)."""
        return pixel_target(images, self.encoder.vit.patch_size, normalize=self.norm_pix)

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: masked input, prediction in the gaps, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        noise = torch.rand(len(images), self.encoder.grid[0] * self.encoder.grid[1], generator=generator)
        _, prediction, mask = self.masked_loss(images, noise.to(images.device))
        return patch_pictures(self.encoder, images, prediction, mask, normalized=self.norm_pix)


def _drop_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(prefix + DECODER)]:
        state[prefix + name[len(prefix + DECODER) :]] = state.pop(name)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        own = name[len(prefix) :]
        if not own.startswith((DECODER, "encoder.")):
            state[prefix + DECODER + own] = state.pop(name)
