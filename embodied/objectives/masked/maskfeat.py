"""MaskFeat: masked feature prediction for self-supervised visual pre-training (Wei et al. 2022,
https://arxiv.org/abs/2112.09133).

Legend: B batch, S image size, P patch size, N patches, O values of a patch's histograms, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import initialize
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.hog import BINS, hog_target
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.masks import block_mask
from embodied.objectives.parts.settings import area_range, block_sizes


class MaskFeat(nn.Module):
    """Predict histograms of oriented gradients where blocks of patches are replaced by a mask token (Fig. 2).

    The encoder sees the whole length; one linear layer predicts (Sec. 3.1). The target follows the released code,
    which other ports do not: see `parts.hog`.

    Args:
        encoder: the ViT to train.
        mask_ratio: share of hidden patches, at most; BEiT's blocks fall a little short of it.
        min_block: patches in a block, at least; None: 15 on a grid of 14 x 14, in proportion on others.
        cell: pixels of a histogram's side; must divide P.
        gaussian: weigh gradients as mmpretrain's port does.
        floor: least norm a histogram is divided by.
        crop_scale: of the random resized crop; the paper's is (0.5, 1).
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        mask_ratio: float = 0.4,
        min_block: int | None = None,
        cell: int = 8,
        gaussian: bool = False,
        floor: float = 0.01,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        vit, patches = encoder.vit, encoder.grid[0] * encoder.grid[1]
        if cell < 1 or vit.patch_size % cell:
            raise UsageError(f"cell must divide the patch size {vit.patch_size}, got {cell}")
        self.encoder = encoder
        if floor <= 0:
            raise UsageError(f"floor must be positive, got {floor}")
        self.count, self.min_block = block_sizes(mask_ratio, min_block, patches=patches, reference=15)
        self.cell, self.gaussian, self.floor = cell, gaussian, floor
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.head = nn.Linear(encoder.width, 3 * BINS * (vit.patch_size // cell) ** 2)
        initialize(self.head)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, the share of hidden patches, and that of cells without any gradient."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        rows, columns = self.encoder.grid
        mask = block_mask(
            len(images),
            rows=rows,
            columns=columns,
            counts=self.count,
            smallest=self.min_block,
            generator=generator,
        ).to(images.device)
        loss, _, empty = self.masked_loss(images, mask)
        return loss, {"hidden": mask.float().mean(), "empty_cells": empty}

    def masked_loss(
        self, images: Float[Tensor, "B 3 S S"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N O"], Float[Tensor, ""]]:
        """Loss, prediction of every patch, and share of empty cells; mask True = hidden."""
        target, empty = hog_target(
            images, self.encoder.vit.patch_size, cell=self.cell, gaussian=self.gaussian, floor=self.floor
        )
        tokens, _ = self.encoder.vit(images, token_mask=mask, mask_token=self.mask_token)
        prediction = self.head(tokens)
        return masked_mean(squared_error(prediction, target), mask, reduction="batch"), prediction, empty
