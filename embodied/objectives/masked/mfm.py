"""MFM: masked frequency modeling for self-supervised visual pre-training (Xie et al. 2023,
https://arxiv.org/abs/2206.07706).

Legend: B batch, S image size, P patch size, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.corruptions import filter_frequencies, low_frequencies
from embodied.objectives.parts.decoders import PixelHead
from embodied.objectives.parts.losses import REDUCTIONS, Reduction, frequency_error, masked_mean
from embodied.objectives.parts.settings import area_range


class MFM(nn.Module):
    """Remove low or high frequencies of the image and predict them (Fig. 2).

    No patch is hidden: the encoder sees the whole filtered image, and a linear layer predicts the whole image; the loss
    counts the removed frequencies only (Eq. 6).

    Args:
        encoder: the ViT to train.
        radius: of the circle around the zero frequency; None: the paper's 16 of 224 pixels, in proportion.
        low_pass: probability that the inside of the circle is kept; else the outside is.
        gamma: exponent of the distance in the spectrum.
        reduction: `batch` is the released code's: high-pass images, whose removed frequencies are few, count less.
        crop_scale: of the random resized crop. Departure: the paper's (0.2, 1) makes a gripper of a few pixels vanish.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        radius: float | None = None,
        low_pass: float = 0.5,
        gamma: float = 1.0,
        reduction: Reduction = "batch",
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= low_pass <= 1 or gamma <= 0:
            raise UsageError(f"low_pass must be in [0, 1] and gamma positive, got {low_pass} and {gamma}")
        if reduction not in REDUCTIONS:
            raise unknown_name("reduction", reduction, REDUCTIONS)
        vit = encoder.vit
        self.encoder, self.low_pass, self.gamma = encoder, low_pass, gamma
        side = encoder.grid[0] * vit.patch_size
        self.radius = 16 * side / 224 if radius is None else radius
        if not 0 < self.radius < side / 2:
            raise UsageError(f"radius must be in (0, {side / 2:g}), got {self.radius:g}")
        self.reduction: Reduction = reduction
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.head = PixelHead(vit.width, vit.patch_size, encoder.grid[0])

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        low = (torch.rand(len(images), generator=generator) < self.low_pass).to(images.device)
        loss, _, error = self.filtered_loss(images, low)
        # Per branch, since their scales differ by far; 0 where a batch has none of a branch.
        with torch.no_grad():
            kinds = {"low_pass_loss": low, "high_pass_loss": ~low}
            means = {name: masked_mean(error, kind.float(), reduction="batch") for name, kind in kinds.items()}
        return loss, means

    def filtered_loss(
        self, images: Float[Tensor, "B 3 S S"], low: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B 3 S S"], Float[Tensor, " B"]]:
        """Loss, predicted image and mean error of each image; `low` True = low frequencies are kept."""
        kept = self.kept_frequencies(images, low)
        tokens, _ = self.encoder.vit(self.corrupt(images, kept))
        prediction = self.head(tokens)
        error = frequency_error(prediction, images, gamma=self.gamma).mean(dim=1)  # (B, S, S)
        removed = torch.fft.ifftshift(~kept, dim=(-2, -1)).float()  # the error has its zero frequency first
        loss = masked_mean(error, removed, reduction=self.reduction)
        return loss, prediction, (error * removed).flatten(1).sum(1) / removed.flatten(1).sum(1)

    def kept_frequencies(self, images: Float[Tensor, "B 3 S S"], low: Bool[Tensor, " B"]) -> Bool[Tensor, "B S S"]:
        """True = kept, zero frequency in the middle."""
        inside = low_frequencies((images.shape[-2], images.shape[-1]), self.radius, images.device)
        return torch.where(low[:, None, None], inside, ~inside)

    def corrupt(self, images: Float[Tensor, "B 3 S S"], kept: Bool[Tensor, "B S S"]) -> Float[Tensor, "B 3 S S"]:
        """The normalised image with frequencies removed from its pixels in [0, 1] and clamped there (released code).

        The clamp matters: without the zero frequency about half the pixels are negative.
        """
        mean, std = self.encoder.normalize.mean, self.encoder.normalize.std
        return (filter_frequencies(images * std + mean, kept).clamp(0, 1) - mean) / std

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: filtered input, prediction, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        low = (torch.rand(len(images), generator=generator) < self.low_pass).to(images.device)
        _, prediction, _ = self.filtered_loss(images, low)
        shown = (self.corrupt(images, self.kept_frequencies(images, low)), prediction, images)
        return [self.encoder.normalize.inverse(part) for part in shown]
