"""BEiT: BERT pre-training of image transformers (Bao et al. 2022, https://arxiv.org/abs/2106.08254).

Legend: B batch, S image size, N patches, V codes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.losses import code_error, masked_mean
from embodied.objectives.parts.masks import block_mask
from embodied.objectives.parts.quantizers import code_use
from embodied.objectives.parts.settings import area_range, block_sizes
from embodied.objectives.parts.tokenizer import Tokenizer, load_tokenizer


class BEiT(nn.Module):
    """Replace blocks of patches by a mask token and predict the codes that a frozen tokenizer gives them (Fig. 1).

    Departures: the tokenizer is ours (`objective=vq`), not DALL-E's, and sees the same crop at the same size; no colour
    jitter; branches of deeper blocks do not start smaller (its code divides by the root of twice the block's number).
    The paper's encoder has LayerScale 0.1, drop-path 0.1 and a relative bias: `objective/beit.yaml` says how.

    Args:
        encoder: the ViT to train.
        tokenizer: a run folder of `embodied pretrain objective=vq`, its file, or the module.
        mask_ratio: share of hidden patches, at most: the paper's 75 of 196; blocks fall a little short of it.
        min_block: patches in a block, at least; None: 16 on a grid of 14 x 14, in proportion on others.
        crop_scale: of the random resized crop.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        mask_ratio: float = 0.3827,
        min_block: int | None = None,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if tokenizer is None:
            raise UsageError("objective.tokenizer: give the run folder of embodied pretrain objective=vq")
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = load_tokenizer(tokenizer)
        rows, columns = encoder.grid
        theirs = tokenizer.encoder.vit
        if (theirs.image_size, theirs.patch_size) != (encoder.vit.image_size, encoder.vit.patch_size):
            raise UsageError(
                f"the tokenizer names patches of {theirs.patch_size} pixels in images of {theirs.image_size}, the "
                f"encoder sees {encoder.vit.patch_size} in {encoder.vit.image_size}: train both with the same "
                "encoder.image_size and encoder.patch_size"
            )
        self.encoder, self.tokenizer = encoder, tokenizer.requires_grad_(False)
        self.count, self.min_block = block_sizes(mask_ratio, min_block, patches=rows * columns, reference=16)
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.head = nn.Linear(encoder.width, tokenizer.vocabulary)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch; `accuracy` on hidden patches, their share, and how many codes the targets use."""
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
        codes = self.tokenizer.codes(images)
        loss, logits = self.masked_loss(images, mask, codes)
        hits = masked_mean((logits.argmax(-1) == codes).float(), mask.float(), reduction="batch")
        return loss, {"accuracy": hits, "hidden": mask.float().mean(), **code_use(codes, self.tokenizer.vocabulary)}

    def masked_loss(
        self, images: Float[Tensor, "B 3 S S"], mask: Bool[Tensor, "B N"], codes: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N V"]]:
        """Loss and logits of every patch; mask True = hidden (Eq. 2)."""
        tokens, _ = self.encoder.vit(images, token_mask=mask, mask_token=self.mask_token)
        logits = self.head(tokens)
        return masked_mean(code_error(logits, codes), mask, reduction="batch"), logits

    def train(self, mode: bool = True) -> BEiT:
        """The tokenizer stays as it was trained."""
        super().train(mode)
        self.tokenizer.eval()
        return self
