"""TBM, our variant of the token boosting module on a masked autoencoder (Li et al. 2023,
https://arxiv.org/abs/2304.04175): pre-training on corrupted images.

A layer between blocks takes unreliable features F, makes them worse by known noise, I = F + Q with Q = alpha * S and S
standard normal, lets an auto-encoder g estimate F from I, and hands on the boosted R = 2 g(I) - I. Why: F is what is
reliable plus some U that is not; where U and Q are alike in distribution, E[U | I] = E[Q | I], hence
2 E[F | I] - I = E[R | I], which is the best estimate of the reliable part.

There is no released code; the paper's Eq. 1 was not at hand, and R above is our derivation. Our choices: g(I) is
I + mlp(norm(I)) / 2, on each token by itself, so that R = I + mlp(norm(I)); then the layer is a block of a transformer
without attention, and is built as one, with its attention's output fixed at zero. The artifact is thereby a plain ViT
with that many blocks more, which no longer adds noise. Also ours: layers after the middle and the last block; alpha one
number per channel, 0.1 at the start, that learns from the reconstruction only, and a loss of the estimate, with weight
1, that trains g only: both could be made small otherwise by less noise or smaller features. Images are made worse by
noise and blur, and the target is the image before that.

Legend: B batch, S image size, N patches, K kept, T leading tokens + K, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import Block
from embodied.models.masks import uniform_mask
from embodied.objectives.augment import gaussian_blur, random_resized_crop
from embodied.objectives.masked.mae import MAE
from embodied.objectives.parts.boosters import ChannelNoise, add_boosters, estimate
from embodied.objectives.parts.decoders import leading_tokens
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.targets import flat_share


class TBM(nn.Module):
    """MAE on corrupted images, with boosters in its encoder.

    Args:
        encoder: its weights are copied into `TBM.encoder`, the ViT to train, which has the boosters too.
        after: blocks, counted from 1, that a booster follows; None: the middle and the last one.
        scale: alpha at the start.
        learn_scale: whether alpha is learned.
        estimate_weight: of the auxiliary loss |g(I) - F|^2.
        noise: largest standard deviation of the noise on pixels in [0, 1]; uniform from 0 for each image.
        blur: share of the images that are blurred. With `noise` and `blur` 0 the data are taken as they are.
        clean_target: reconstruct the image before noise and blur; else the corrupted one.
        mae: everything else, as of `MAE`.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        after: Sequence[int] | None = None,
        scale: float = 0.1,
        learn_scale: bool = True,
        estimate_weight: float = 1.0,
        noise: float = 0.2,
        blur: float = 0.5,
        clean_target: bool = True,
        **mae: Any,
    ) -> None:
        super().__init__()
        if scale <= 0 or estimate_weight <= 0 or noise < 0 or not 0 <= blur <= 1:
            raise UsageError(
                "scale and estimate_weight must be positive, noise not negative and blur in [0, 1], got "
                f"{scale}, {estimate_weight}, {noise} and {blur}"
            )
        boosted, self.places = add_boosters(encoder, after)
        self.mae = MAE(boosted, **mae)
        self.estimate_weight, self.noise, self.blur, self.clean_target = estimate_weight, noise, blur, clean_target
        self.noises = nn.ModuleList(ChannelNoise(boosted.width, scale, learned=learn_scale) for _ in self.places)
        for place, added in zip(self.places, self.noises, strict=True):
            boosted.vit.blocks[place].register_forward_pre_hook(added.add)  # type: ignore[arg-type]

    @property
    def encoder(self) -> ViTEncoder:
        """The ViT with its boosters."""
        return self.mae.encoder

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch; its parts, the mean size of alpha, and the share of flat patches."""
        clean = self.encoder.preprocess(batch["images"])
        clean = random_resized_crop(clean, generator, scale=self.mae.crop_scale, flip=self.mae.flip)
        images = self.corrupt(clean, generator)
        order = torch.rand(len(images), self.encoder.grid[0] * self.encoder.grid[1], generator=generator)
        target = clean if self.clean_target else images
        error, misjudged, _, _ = self.boosted_loss(images, target, order.to(images.device), generator)
        alphas = torch.stack([part.alpha.detach().abs().mean() for part in self._noises()]).mean()
        parts = {"pixel_error": error.detach(), "estimate_error": misjudged.detach(), "alpha": alphas}
        flat = flat_share(clean, self.encoder.vit.patch_size)
        return error + self.estimate_weight * misjudged, {**parts, "flat_patches": flat}

    def corrupt(self, images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
        """Preprocessed images with blur, then noise, still within the range of pixels."""
        if self.noise == 0 and self.blur == 0:
            return images
        mean, std = self.encoder.normalize.mean, self.encoder.normalize.std
        pixels = gaussian_blur((images * std + mean).clamp(0, 1), generator, share=self.blur)
        deviation = self.noise * torch.rand(len(images), 1, 1, 1, generator=generator)
        added = deviation * torch.randn(images.shape, generator=generator)
        return ((pixels + added.to(pixels)).clamp(0, 1) - mean) / std

    def boosted_loss(
        self,
        images: Float[Tensor, "B 3 S S"],
        target: Float[Tensor, "B 3 S S"],
        order: Float[Tensor, "B N"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Error of hidden patches, error of the estimates (0 in eval mode), prediction, and mask (1 = removed).

        Args:
            images: preprocessed, corrupted.
            target: what is reconstructed.
            order: mask noise; the patches with the lowest are kept.
            generator: for S; in eval mode there is none.
        """
        keep_ids, restore_ids, mask = uniform_mask(order, self.mae.mask_ratio)
        count = self.encoder.vit.leading + keep_ids.shape[1]
        for added in self._noises():
            added.draw(len(images), count, generator if self.training else None)
        tokens, out = self.encoder(images, keep_ids, layers=True)  # (B, K, D)
        prediction = self.mae.decoder(leading_tokens(tokens, out), tokens, restore_ids)
        error = masked_mean(squared_error(prediction, self.mae.target(target)), mask, reduction="batch")
        misjudged = self._estimate_error(out) if self.training else error.new_zeros(())
        return error, misjudged, prediction, mask

    def _estimate_error(self, out: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean over boosters and patches of |g(I) - F|^2 per channel; neither F nor alpha gets a gradient."""
        errors = []
        for place, added in zip(self.places, self._noises(), strict=True):
            block = self.encoder.vit.blocks[place]
            assert isinstance(block, Block) and added.drawn is not None
            features = out[f"layer{place}"].detach()  # after the block before the booster
            noisy = features + (added.alpha * added.drawn[:, self.encoder.vit.leading :]).detach()
            errors.append(F.mse_loss(estimate(block, noisy).float(), features.float()))
        return torch.stack(errors).mean()

    def _noises(self) -> list[ChannelNoise]:
        return [part for part in self.noises if isinstance(part, ChannelNoise)]

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures: corrupted and masked, prediction in the gaps, original; each uint8 [B, S, S, 3]."""
        clean = self.encoder.preprocess(frames)
        images = self.corrupt(clean, generator)
        order = torch.rand(len(images), self.encoder.grid[0] * self.encoder.grid[1], generator=generator)
        _, _, prediction, mask = self.boosted_loss(images, clean, order.to(images.device), generator)
        shown = patch_pictures(self.encoder, images, prediction, mask, normalized=self.mae.norm_pix)
        return [*shown[:2], self.encoder.normalize.inverse(clean)]
