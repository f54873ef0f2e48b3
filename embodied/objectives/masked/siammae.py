"""SiamMAE, our variant of siamese masked autoencoders (Gupta et al. 2023, https://arxiv.org/abs/2305.14344).

There is no released code. That 95 % of the future frame are hidden and that the gap is 4 to 48 frames is what we know
of the paper, without a second source. Our choices: the gap is uniform in that range and counts back from the frame that
is completed, one past frame for each; blocks of the decoder are `parts.decoders.CrossBlock`, in MAE's size for large
networks; rates and batches are MAE's too.

Legend: B batch, P partners, S image size, N patches, K kept patches, C values of a patch, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.completion import (
    Completion,
    CompletionDecoder,
    complete,
    completion_pictures,
    mask_noise,
    paired_views,
)
from embodied.objectives.parts.pairings import make_pairing
from embodied.objectives.parts.settings import area_range, kept_share


class SiamMAE(nn.Module):
    """Complete a frame, nearly all of it hidden, from an earlier frame of the same episode that is seen whole (Fig. 2).

    Both go through one encoder. How the scene looks is in the earlier frame; the few patches of the later one tell what
    moved, and where to. So the encoder has to find in one frame what it sees in the other.

    Args:
        encoder: the ViT to train.
        decoder_width, decoder_depth, decoder_heads: of the decoder; ours are for a tiny ViT.
        decoder: `cross_self`, the paper's, `cross` or `joint`; see `CrossDecoder`.
        mask_ratio: share of removed patches of the later frame; K = int(N * (1 - mask_ratio)) are kept.
        gap: frames between the two, at least and at most, as the data has them: the paper's videos have 30 in a second.
        norm_pix: predict per-patch normalised pixels, as the paper does. Departure: off by default, since on flat
            simulator backgrounds that target is noise.
        crop_scale: of the random resized crop, the same for both frames. Departure: more of them stays than in the
            paper, or a gripper of a few pixels would vanish; and they are not mirrored.
        watch: log `stranger_loss`, the loss with another image's partner: near the loss, partners are ignored. It costs
            a forward pass of the decoder.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        decoder: str = "cross_self",
        mask_ratio: float = 0.95,
        gap: Sequence[int] = (4, 48),
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        watch: bool = True,
    ) -> None:
        super().__init__()
        self.pairing = make_pairing("time", gap=gap)
        self.encoder, self.norm_pix, self.watch = encoder, norm_pix, watch
        self.mask_ratio = kept_share("mask_ratio", mask_ratio, encoder.grid[0] * encoder.grid[1])
        self.crop_scale = area_range("crop_scale", crop_scale)
        self.decoder = CompletionDecoder(
            encoder, width=decoder_width, depth=decoder_depth, heads=decoder_heads, kind=decoder
        )

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `images`, the later frames uint8 [B, H, W, 3], and `partners`, earlier ones uint8 [B, P, H, W, 3], of
                which the first counts.
            generator: a CPU generator, for crops and masks.

        Returns:
            The loss; `flat_patches`, the share of patches with next to no variance, and `stranger_loss` with `watch`.

        Raises:
            UsageError: there are no partners.
        """
        later, earlier = paired_views(self.encoder, batch["images"], batch.get("partners"))
        # One crop for both: different ones would pass for motion.
        both = random_resized_crop(torch.cat([later, earlier], dim=1), generator, scale=self.crop_scale)  # (B, 6, S, S)
        later, earlier = both[:, :3], both[:, 3:]
        done = self.masked_loss(later, earlier, mask_noise(self.encoder, later, generator))
        return done.loss, done.metrics

    def masked_loss(
        self, later: Float[Tensor, "B 3 S S"], earlier: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B N"]
    ) -> Completion:
        """What comes of preprocessed frames with given mask noise."""
        return complete(
            *(self.encoder, self.decoder, later, earlier, noise),
            mask_ratio=self.mask_ratio,
            norm_pix=self.norm_pix,
            watch=self.watch,
        )

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator, partners: Tensor | None = None) -> list[Tensor]:
        """Pictures: earlier frame, masked later one, prediction in the gaps, original; each uint8 [B, S, S, 3].

        Args:
            frames: uint8 [B, H, W, 3].
            generator: a CPU generator.
            partners: uint8 [B, P, H, W, 3]; None: the frames themselves, which then need only be copied.
        """
        later, earlier = paired_views(self.encoder, frames, frames[:, None] if partners is None else partners)
        done = self.masked_loss(later, earlier, mask_noise(self.encoder, later, generator))
        return completion_pictures(self.encoder, later, earlier, done, normalized=self.norm_pix)
