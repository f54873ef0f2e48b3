"""MACRL, our variant of masked contrastive representation learning (Yao et al. 2022, https://arxiv.org/abs/2211.06012).

There is no released code. From the paper: a siamese encoder and decoder; one branch sees a strongly changed view of
which much is hidden, the other a weakly changed view of which less is hidden; features of the encoder are contrasted
through a projector with a memory of earlier ones; both branches reconstruct, with an absolute error. Our choices: mask
ratios of 0.75 and 0.5, MAE's dropping of hidden patches and its decoder, a loss on hidden patches only, keys from a
moving average of encoder and projector as in MoCo (a memory of keys needs one that moves slowly), the class token as
the feature (pooled patches where there is none), a queue of 4,096, and a weight of 0.1 of the contrast.

Legend: B batch, S image size, P patch size, N patches, E outputs of the projector.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import SelfDecoder, global_feature, leading_tokens
from embodied.objectives.parts.losses import absolute_error, contrast_error, masked_mean
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.queue import ContrastHead, Queue
from embodied.objectives.parts.settings import area_range, kept_share, pair
from embodied.objectives.parts.targets import pixel_target
from embodied.objectives.parts.teacher import Teacher, feature_spread
from embodied.objectives.parts.views import change_colours


class MACRL(nn.Module):
    """Reconstruct two views from parts of them, and tell that they are of one image.

    Args:
        encoder: the ViT to train.
        decoder_width, decoder_depth, decoder_heads: of the decoder that both branches share.
        mask_ratios: share of hidden patches of the strongly and of the weakly changed view.
        contrast_weight: of the contrastive loss.
        hidden, outputs: of the projector.
        queue: keys of earlier batches.
        temperature: cosines are divided by.
        momentum: of the average that makes the keys.
        crop_scale: of the random resized crop of either view.
        strength: of the colour changes of the first view, see `MultiCrop`; the second has none.
        flip: mirror images. Off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        mask_ratios: tuple[float, float] = (0.75, 0.5),
        contrast_weight: float = 0.1,
        hidden: int = 512,
        outputs: int = 128,
        queue: int = 4096,
        temperature: float = 0.2,
        momentum: float = 0.99,
        crop_scale: tuple[float, float] = (0.4, 1.0),
        strength: float = 0.5,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or not 0 <= strength <= 1 or temperature <= 0 or contrast_weight <= 0:
            raise UsageError(
                "momentum must be in [0, 1), strength in [0, 1], temperature and contrast_weight positive, got "
                f"{momentum}, {strength}, {temperature} and {contrast_weight}"
            )
        patches, (strong, weak) = encoder.grid[0] * encoder.grid[1], pair("mask_ratios", mask_ratios)
        self.mask_ratios = (kept_share("mask_ratios", strong, patches), kept_share("mask_ratios", weak, patches))
        self.crop_scale, self.strength, self.flip = area_range("crop_scale", crop_scale), strength, flip
        self.contrast_weight, self.temperature, self.momentum = contrast_weight, temperature, momentum
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
        self.head = ContrastHead(inputs=encoder.width, hidden=hidden, outputs=outputs)
        self.teacher, self.teacher_head = Teacher(encoder.vit), Teacher(self.head)
        self.queue = Queue(queue, outputs)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, its parts, and `teacher_spread` (0 when collapsed, about 1 else)."""
        images = self.encoder.preprocess(batch["images"])
        strong, weak = self.views(images, generator)
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        noises = torch.rand(2, len(images), patches, generator=generator).to(images.device)
        strong_loss, query, _, _ = self.branch(strong, noises[0], self.mask_ratios[0])
        weak_loss, _, _, _ = self.branch(weak, noises[1], self.mask_ratios[1])
        feature = global_feature(self.teacher(weak, uniform_mask(noises[1], self.mask_ratios[1])[0])[1])
        key = self.teacher_head(feature)
        error = contrast_error(self.head(query), key, self.queue.value, temperature=self.temperature).mean()
        self.queue.note(key)
        pixels = (strong_loss + weak_loss) / 2
        parts = {"pixel_error": pixels.detach(), "contrast": error.detach()}
        return pixels + self.contrast_weight * error, {**parts, "teacher_spread": feature_spread(feature)}

    def views(
        self, images: Float[Tensor, "B 3 S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
        """The strongly and the weakly changed view of preprocessed images."""
        strong, weak = (random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip) for _ in range(2))
        mean, std = self.encoder.normalize.mean, self.encoder.normalize.std
        pixels = (strong * std + mean).clamp(0, 1)
        changed = change_colours(pixels, generator, strength=self.strength, blur=1.0, solarized=0.2)
        return (changed - mean) / std, weak

    def branch(
        self, images: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B N"], mask_ratio: float
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B D"], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Error of the hidden patches, feature of the visible ones, prediction of all, and mask (1 = removed)."""
        keep_ids, restore_ids, mask = uniform_mask(noise, mask_ratio)
        tokens, out = self.encoder(images, keep_ids)
        prediction = self.decoder(leading_tokens(tokens, out), tokens, restore_ids)
        target = pixel_target(images, self.encoder.vit.patch_size, normalize=False)
        loss = masked_mean(absolute_error(prediction, target), mask, reduction="batch")
        return loss, global_feature(out), prediction, mask

    def after_step(self, step: int, steps: int) -> None:
        """The averages and the queue."""
        self.teacher.update(self.encoder.vit, self.momentum)
        self.teacher_head.update(self.head, self.momentum)
        self.queue.update()

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures of the branch that sees less: masked input, prediction in the gaps, original; as `MAE`'s."""
        images = self.encoder.preprocess(frames)
        noise = torch.rand(len(images), self.encoder.grid[0] * self.encoder.grid[1], generator=generator)
        _, _, prediction, mask = self.branch(images, noise.to(images.device), self.mask_ratios[0])
        return patch_pictures(self.encoder, images, prediction, mask, normalized=False)
