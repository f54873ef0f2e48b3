"""CroCo: self-supervised pre-training for 3D vision tasks by cross-view completion (Weinzaepfel et al. 2022,
https://arxiv.org/abs/2210.10716).

Legend: B batch, P partners, S image size, N patches, K kept patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import colour_jitter, random_resized_crop
from embodied.objectives.parts.completion import (
    Completion,
    CompletionDecoder,
    complete,
    completion_pictures,
    mask_noise,
    paired_views,
)
from embodied.objectives.parts.pairings import LABELS, make_pairing
from embodied.objectives.parts.settings import area_range, kept_share


class CroCo(nn.Module):
    """Complete a view of a scene, nine tenths of it hidden, from another view that is seen whole (Fig. 1).

    Both go through one encoder. The few visible patches say where the camera is; how the scene looks is in the other
    view, seen from another place: so the encoder has to know its geometry. As many patches are kept as MAE would (the
    released code may round to one more), and a block of the decoder has a second MLP: see `parts.decoders.CrossBlock`.

    With `pairing=places` the two are of different visits to one place, as in the first stage of Pair-VPR
    (https://arxiv.org/abs/2410.06614). That method also starts from DINOv2 and hides patches by mask tokens; here they
    are dropped, as CroCo does.

    Args:
        encoder: the ViT to train; the paper's has no class token.
        pairing: which two views: `cameras` (of the same moment), `time` or `places`; see `parts.pairings`.
        gap: of `time`: frames between the two, at least and at most.
        place, place_dims, place_size: of `places`: `labels` or a key of the store, which of its elements are
            coordinates, and how large a place is.
        decoder_width, decoder_depth, decoder_heads: the paper's 512, 8, 16 go with a ViT-B; ours are for a tiny ViT.
        mask_ratio: share of removed patches of the completed view; K = int(N * (1 - mask_ratio)) are kept.
        norm_pix: predict per-patch normalised pixels, as the paper does. Departure: off by default, since on flat
            simulator backgrounds that target is noise.
        crop_scale: of the random resized crop, drawn for each view. Departure: the released code takes crops of a fixed
            size, also different ones of the two, which are about three quarters of the image.
        jitter: brightness, contrast and saturation of each view change by factors within 1 +- this; 0: none.
        watch: log `stranger_loss`, the loss with another image's partner: near the loss, partners are ignored. It costs
            a forward pass of the decoder.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        pairing: str = "cameras",
        gap: Sequence[int] = (1, 8),
        place: str = LABELS,
        place_dims: Sequence[int] | None = None,
        place_size: float = 0.5,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        mask_ratio: float = 0.9,
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        jitter: float = 0.4,
        watch: bool = True,
    ) -> None:
        super().__init__()
        self.pairing = make_pairing(pairing, gap=gap, place=place, place_dims=place_dims, place_size=place_size)
        if not 0 <= jitter <= 1:
            raise UsageError(f"jitter must be in [0, 1], got {jitter}")
        self.encoder, self.norm_pix, self.jitter, self.watch = encoder, norm_pix, jitter, watch
        self.mask_ratio = kept_share("mask_ratio", mask_ratio, encoder.grid[0] * encoder.grid[1])
        self.crop_scale = area_range("crop_scale", crop_scale)
        self.decoder = CompletionDecoder(
            encoder, width=decoder_width, depth=decoder_depth, heads=decoder_heads, kind="cross_self"
        )

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `images`, views uint8 [B, H, W, 3] to be completed, and `partners`, other views uint8
                [B, P, H, W, 3], of which the first counts.
            generator: a CPU generator, for crops, colours and masks.

        Returns:
            The loss; `flat_patches`, the share of patches with next to no variance, and `stranger_loss` with `watch`.

        Raises:
            UsageError: there are no partners.
        """
        first, second = paired_views(self.encoder, batch["images"], batch.get("partners"))
        first, second = self._change(first, generator), self._change(second, generator)
        done = self.masked_loss(first, second, mask_noise(self.encoder, first, generator))
        return done.loss, done.metrics

    def masked_loss(
        self, first: Float[Tensor, "B 3 S S"], second: Float[Tensor, "B 3 S S"], noise: Float[Tensor, "B N"]
    ) -> Completion:
        """What comes of preprocessed views, of which the first is completed, with given mask noise."""
        return complete(
            *(self.encoder, self.decoder, first, second, noise),
            mask_ratio=self.mask_ratio,
            norm_pix=self.norm_pix,
            watch=self.watch,
        )

    def _change(self, view: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
        """A random part of each image, in other colours."""
        view = random_resized_crop(view, generator, scale=self.crop_scale)
        if not self.jitter:
            return view
        mean, std = self.encoder.normalize.mean, self.encoder.normalize.std
        pixels, much = (view * std + mean).clamp(0, 1), self.jitter
        pixels = colour_jitter(pixels, generator, brightness=much, contrast=much, saturation=much, hue=0.0)
        return (pixels - mean) / std

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator, partners: Tensor | None = None) -> list[Tensor]:
        """Pictures: other view, masked view, prediction in the gaps, original; each uint8 [B, S, S, 3].

        Args:
            frames: uint8 [B, H, W, 3].
            generator: a CPU generator.
            partners: uint8 [B, P, H, W, 3]; None: the frames themselves, which then need only be copied.
        """
        first, second = paired_views(self.encoder, frames, frames[:, None] if partners is None else partners)
        done = self.masked_loss(first, second, mask_noise(self.encoder, first, generator))
        return completion_pictures(self.encoder, first, second, done, normalized=self.norm_pix)
