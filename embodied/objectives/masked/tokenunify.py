"""TokenUnify, our variant of autoregressive pre-training with mixture token prediction (Chen et al. 2024,
https://arxiv.org/abs/2405.16847).

The paper mixes the prediction of random, of the next, and of all next tokens of electron-microscopy volumes, with
Mamba; its released code does not contain that mixture. Ours is the mixture it states, on images, with the attention of
a ViT in place of Mamba: each image of a batch gets one of three tasks by lot, and one pass of the encoder serves all
three. Random patches: hidden ones are replaced by a mask token and predicted, as BERT does. Next patch: a prefix of
random length is seen from both sides, and each output after it sees what came before it and predicts the patch that
follows, as AIM does. All next patches: the output at the end of the prefix, which sees the prefix alone, predicts
every patch after it. Also ours: equal odds of the tasks, a mask ratio of 0.75, one head that is told the place of the
patch it is asked for, and a mean over the asked patches of each image, then over images, so that odds are weights.

Legend: B batch, S image size, P patch size, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.models.positions import sincos_2d
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import ResidualMLP
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.masks import prefix_attention, prefix_lengths
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.settings import area_range, kept_share
from embodied.objectives.parts.targets import flat_share, pixel_target

TASKS = ("random", "next", "all")
RANDOM, NEXT, ALL = range(3)


class TokenUnify(nn.Module):
    """Predict random patches, the next patch, or all next patches: one of these for each image.

    Args:
        encoder: the ViT to train, with `encoder.class_tokens=0` and no registers; a width that is a multiple of 4.
        odds: of the three tasks, in this order; a task may have none.
        mask_ratio: share of hidden patches in the first task.
        head_width, head_depth: of the MLP blocks on each token.
        norm_pix: predict per-patch normalised pixels.
        crop_scale: of the random resized crop.
        flip: mirror images. Off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        odds: tuple[float, float, float] = (1.0, 1.0, 1.0),
        mask_ratio: float = 0.75,
        head_width: int = 192,
        head_depth: int = 4,
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if encoder.vit.leading:
            raise UsageError("TokenUnify needs an encoder of patches alone: encoder.class_tokens=0 encoder.registers=0")
        if len(odds) != len(TASKS) or min(odds) < 0 or sum(odds) <= 0:
            raise UsageError(f"odds must be three numbers, none negative and not all 0, got {list(odds)}")
        self.encoder, self.norm_pix = encoder, norm_pix
        self.odds = tuple(float(each) for each in odds)
        self.mask_ratio = kept_share("mask_ratio", mask_ratio, encoder.grid[0] * encoder.grid[1])
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.task_tokens = nn.Parameter(torch.zeros(len(TASKS), encoder.width))
        for learned in (self.mask_token, self.task_tokens):
            nn.init.trunc_normal_(learned, std=0.02)
        self.head = ResidualMLP(
            inputs=encoder.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=head_width,
            depth=head_depth,
        )
        self.places: Tensor
        table = sincos_2d(encoder.width, *encoder.grid, class_token=False)
        self.register_buffer("places", table, persistent=False)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, and `flat_patches`, the share of patches with next to no variance."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        count, patches = len(images), len(self.places)
        tasks = torch.multinomial(torch.tensor(self.odds), count, replacement=True, generator=generator)
        hidden = uniform_mask(torch.rand(count, patches, generator=generator), self.mask_ratio)[2].bool()
        lengths = prefix_lengths(count, patches, generator)
        loss, _, _ = self.mixed_loss(images, *(part.to(images.device) for part in (tasks, hidden, lengths)))
        return loss, {"flat_patches": flat_share(images, self.encoder.vit.patch_size)}

    def mixed_loss(
        self,
        images: Float[Tensor, "B 3 S S"],
        tasks: Int[Tensor, " B"],
        hidden: Bool[Tensor, "B N"],
        lengths: Int[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N PPC"], Bool[Tensor, "B N"]]:
        """Loss, prediction of every patch, and which of them count (True).

        Args:
            images: preprocessed.
            tasks: index into `TASKS` for each image.
            hidden: True = hidden, for the first task; others ignore it.
            lengths: of the prefix, 1 to N - 1, for the other two; the first ignores it.
        """
        task = tasks[:, None]  # (B, 1)
        hidden = hidden & (task == RANDOM)
        sees = prefix_attention(lengths, len(self.places)) | (task == RANDOM)[:, :, None, None]
        tokens, _ = self.encoder.vit(images, token_mask=hidden, mask_token=self.mask_token, attention_mask=sees)
        patch = torch.arange(len(self.places), device=images.device).expand_as(hidden)
        before = (patch - 1).clamp(min=0)  # patch 0 always belongs to the prefix
        last = (lengths[:, None] - 1).expand_as(patch)
        source = torch.where(task == RANDOM, patch, torch.where(task == NEXT, before, last))
        asked = torch.where(task == RANDOM, hidden, patch >= lengths[:, None])
        queries = tokens.gather(1, source[..., None].expand(-1, -1, tokens.shape[-1]))
        prediction = self.head(queries + self.places + self.task_tokens[tasks][:, None])
        target = pixel_target(images, self.encoder.vit.patch_size, normalize=self.norm_pix)
        return masked_mean(squared_error(prediction, target), asked, reduction="image"), prediction, asked

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures: masked input and prediction for random patches, then for all after half of them; original."""
        images = self.encoder.preprocess(frames)
        count, patches = len(images), len(self.places)
        hidden = uniform_mask(torch.rand(count, patches, generator=generator), self.mask_ratio)[2].bool()
        half = torch.full((count,), patches // 2, device=images.device)
        pictures = []
        for task in (RANDOM, ALL):
            tasks = torch.full_like(half, task)
            _, prediction, asked = self.mixed_loss(images, tasks, hidden.to(images.device), half)
            shown = patch_pictures(self.encoder, images, prediction, asked.float(), normalized=self.norm_pix)
            pictures += shown[:2]
        return [*pictures, shown[2]]
