"""ROPIM: pre-training with random orthogonal projection image modeling (Haghighat et al. 2024,
https://arxiv.org/abs/2310.18737).

Legend: B batch, S image size, P patch size, N patches, M rank, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.patches import patchify
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.corruptions import count_sketch, projector
from embodied.objectives.parts.decoders import PixelHead
from embodied.objectives.parts.settings import area_range


class ROPIM(nn.Module):
    """Project the patch embeddings onto a random subspace of the patches; predict what the projection lost (Eq. 7).

    Departure from the released code: it scales the projector by 0.14 instead of M / N = 1/7, so that it is not quite
    one; ours is exact. Its encoder has a shared relative bias and no absolute positions
    (`encoder.relative_bias=shared encoder.positions=none`); ours keeps what the encoder has.

    Args:
        encoder: the ViT to train.
        rank: M, must divide N; None: N / 7 or the next smaller divisor, as the paper's 28 of 196.
        crop_scale: of the random resized crop; the paper's is (0.67, 1).
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        rank: int | None = None,
        crop_scale: tuple[float, float] = (0.67, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        patches = encoder.grid[0] * encoder.grid[1]
        default = max(size for size in range(1, max(1, patches // 7) + 1) if patches % size == 0)
        self.rank = default if rank is None else rank
        if not 0 < self.rank < patches or patches % self.rank:
            raise UsageError(f"rank must divide the {patches} patches and be smaller, got {self.rank}")
        self.encoder, self.patches = encoder, patches
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        self.head = PixelHead(encoder.width, encoder.vit.patch_size, encoder.grid[0])

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        sketch = count_sketch(len(images), self.patches, self.rank, generator).to(images.device)
        loss, _ = self.projected_loss(images, projector(sketch))
        return loss, {}

    def projected_loss(
        self, images: Float[Tensor, "B 3 S S"], seen: Float[Tensor, "B N N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B 3 S S"]]:
        """Loss and predicted image, given the projector onto what the encoder sees."""
        embeddings = seen @ self.encoder.vit.embed_patches(images).to(seen.dtype)  # (B, N, D), Eq. 5
        tokens, _ = self.encoder.vit(images, embeddings=embeddings)
        prediction = self.head(tokens)
        return complement_error(patchify(prediction - images, self.encoder.vit.patch_size), seen), prediction

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: prediction, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        sketch = count_sketch(len(images), self.patches, self.rank, generator).to(images.device)
        _, prediction = self.projected_loss(images, projector(sketch))
        return [self.encoder.normalize.inverse(part) for part in (prediction, images)]


def complement_error(residual: Float[Tensor, "B N PPC"], seen: Float[Tensor, "B N N"]) -> Float[Tensor, ""]:
    """Mean absolute value of (I - P) times the residual: errors inside the range of P, which was seen, are free."""
    residual = residual.float()
    return (residual - seen.float() @ residual).abs().mean()
