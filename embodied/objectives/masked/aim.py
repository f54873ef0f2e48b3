"""AIM: scalable pre-training of large autoregressive image models (El-Nouby et al. 2024,
https://arxiv.org/abs/2401.08541).

Legend: B batch, S image size, P patch size, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import ResidualMLP
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.masks import prefix_attention, prefix_lengths
from embodied.objectives.parts.settings import area_range
from embodied.objectives.parts.targets import flat_share, next_patch, pixel_target


class AIM(nn.Module):
    """Predict each patch from those before it, in raster order (Eq. 1), by attention that looks back only.

    A prefix of random length is seen from both sides and not predicted (Sec. 3.2), so that the frozen encoder may be
    used with attention in both directions. No class token: probe the pooled patches. The released encoder has no
    biases; ours keeps what the encoder has.

    Args:
        encoder: the ViT to train, with `encoder.class_tokens=0` and no registers.
        head_width, head_depth: of the MLP blocks on each token; the paper's 2048 and 12 go with 600 M parameters.
        norm_pix: predict per-patch normalised pixels, as the paper. Departure: off by default, as for MAE here.
        crop_scale: of the random resized crop; the paper's is (0.4, 1). Departure: its code changes colours too.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        head_width: int = 192,
        head_depth: int = 4,
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if encoder.vit.leading:
            raise UsageError("AIM needs an encoder of patches alone: encoder.class_tokens=0 encoder.registers=0")
        self.encoder, self.norm_pix = encoder, norm_pix
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.head = ResidualMLP(
            inputs=encoder.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=head_width,
            depth=head_depth,
            bias=False,
        )

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, and `flat_patches`, the share of patches with next to no variance."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        lengths = prefix_lengths(len(images), patches, generator).to(images.device)
        loss, _ = self.causal_loss(images, lengths)
        return loss, {"flat_patches": flat_share(images, self.encoder.vit.patch_size)}

    def causal_loss(
        self, images: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B M PPC"]]:
        """Loss and the predictions of patches 1 to N - 1, for given lengths of the prefix."""
        target = next_patch(pixel_target(images, self.encoder.vit.patch_size, normalize=self.norm_pix))
        mask = prefix_attention(lengths, target.shape[1] + 1)
        tokens, _ = self.encoder.vit(images, attention_mask=mask)
        prediction = self.head(tokens[:, :-1])  # output i predicts patch i + 1
        beyond = torch.arange(1, target.shape[1] + 1, device=images.device) >= lengths[:, None]  # of the prefix
        return masked_mean(squared_error(prediction, target), beyond, reduction="batch"), prediction
