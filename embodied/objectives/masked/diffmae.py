"""DiffMAE, our variant of diffusion models as masked autoencoders (Wei et al. 2023, https://arxiv.org/abs/2304.03283).

There is no released code, and these details are our choices: betas of DDPM over 1000 times raised by an exponent of
0.8, a mask ratio of 0.75, a decoder with cross- and self-attention that sees the last layer of the encoder only (the
paper's best sees all of them), pixels that are not normalised per patch, and no weighting of the loss by time.

Legend: B batch, S image size, P patch size, N patches, K kept, M hidden, D width, T times.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.encoders.vit import ViTEncoder
from embodied.models.block import initialize
from embodied.models.positions import sincos_2d
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.corruptions import NoiseSchedule, add_noise, time_embedding
from embodied.objectives.parts.decoders import CrossDecoder, leading_tokens
from embodied.objectives.parts.losses import squared_error
from embodied.objectives.parts.masks import uniform_mask
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.settings import area_range, kept_share
from embodied.objectives.parts.targets import pixel_target


class DiffMAE(nn.Module):
    """Denoise the hidden patches given the visible ones (Eq. 4): at the last time it is a masked autoencoder.

    Args:
        encoder: the ViT to train; it sees the kept patches only, clean.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        decoder: `cross_self`, `cross` or `joint`; see `CrossDecoder`.
        mask_ratio: share of removed patches.
        times: T.
        exponent: of the noise schedule; see `NoiseSchedule`.
        norm_pix: predict per-patch normalised pixels.
        crop_scale: of the random resized crop.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        decoder: str = "cross_self",
        mask_ratio: float = 0.75,
        times: int = 1000,
        exponent: float = 0.8,
        norm_pix: bool = False,
        crop_scale: tuple[float, float] = (0.6, 1.0),
    ) -> None:
        super().__init__()
        values, (rows, columns) = 3 * encoder.vit.patch_size**2, encoder.grid
        self.encoder, self.norm_pix, self.times = encoder, norm_pix, times
        self.mask_ratio = kept_share("mask_ratio", mask_ratio, rows * columns)
        self.crop_scale = area_range("crop_scale", crop_scale)
        self.decoder = CrossDecoder(
            inputs=encoder.width,
            outputs=values,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            kind=decoder,
        )
        self.embed_noised = nn.Linear(values, decoder_width)
        self.embed_time = nn.Sequential(
            nn.Linear(decoder_width, decoder_width), nn.SiLU(), nn.Linear(decoder_width, decoder_width)
        )
        for part in (self.embed_noised, self.embed_time):
            initialize(part)
        self.kept: Tensor
        self.positions: Tensor
        self.register_buffer("kept", NoiseSchedule(times, exponent).kept(), persistent=False)
        table = sincos_2d(decoder_width, rows, columns, class_token=False)
        self.register_buffer("positions", table, persistent=False)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale)
        order = torch.rand(len(images), len(self.positions), generator=generator)
        times = torch.randint(1, self.times + 1, (len(images),), generator=generator)
        noise = torch.randn(len(images), *self._values(), generator=generator)
        loss, _, _ = self.noised_loss(images, *(part.to(images.device) for part in (order, times, noise)))
        return loss, {}

    def noised_loss(
        self,
        images: Float[Tensor, "B 3 S S"],
        order: Float[Tensor, "B N"],
        times: Int[Tensor, " B"],
        noise: Float[Tensor, "B N PPC"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B N PPC"], Float[Tensor, "B N"]]:
        """Loss, prediction of every patch (0 where visible) and mask (1 = removed).

        Args:
            images: preprocessed.
            order: mask noise; the patches with the lowest are kept.
            times: t from 1 to T per image.
            noise: standard normal, of every patch; only that of hidden ones is used.
        """
        keep_ids, restore_ids, mask = uniform_mask(order, self.mask_ratio)
        hidden_ids = restore_ids.argsort(dim=1)[:, keep_ids.shape[1] :]  # (B, M)
        target = pixel_target(images, self.encoder.vit.patch_size, normalize=self.norm_pix)
        index = hidden_ids[..., None].expand(-1, -1, target.shape[-1])
        clean = target.gather(1, index)  # (B, M, PPC)
        noised = add_noise(clean, noise.gather(1, index), self.kept[times - 1])
        tokens, out = self.encoder(images, keep_ids)
        memory = torch.cat([leading_tokens(tokens, out), tokens], dim=1)
        placed = self.positions[keep_ids]  # (B, K, decoder width)
        placed = torch.cat(
            [placed.new_zeros(len(placed), memory.shape[1] - placed.shape[1], placed.shape[2]), placed], 1
        )
        moment = self.embed_time(time_embedding(times / self.times, self.positions.shape[1]))
        queries = self.embed_noised(noised) + self.positions[hidden_ids] + moment[:, None]
        prediction = self.decoder(queries, memory, placed)
        loss = squared_error(prediction, clean).mean()  # every image hides equally many
        return loss, torch.zeros_like(target).scatter(1, index, prediction.to(target.dtype)), mask

    def _values(self) -> tuple[int, int]:
        return len(self.positions), 3 * self.encoder.vit.patch_size**2

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures from pure noise in one step: masked input, prediction, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        order = torch.rand(len(images), len(self.positions), generator=generator).to(images.device)
        noise = torch.randn(len(images), *self._values(), generator=generator).to(images.device)
        times = torch.full((len(images),), self.times, device=images.device)
        _, prediction, mask = self.noised_loss(images, order, times, noise)
        return patch_pictures(self.encoder, images, prediction, mask, normalized=self.norm_pix)
