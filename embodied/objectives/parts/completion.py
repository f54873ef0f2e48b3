"""Complete one view with the help of another: what SiamMAE and CroCo share.

Legend: B batch, P partners, S image size, N patches, K kept patches, M tokens of the other view, L leading (class)
tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.models.positions import sincos_2d
from embodied.objectives.parts.decoders import CrossDecoder, leading_tokens
from embodied.objectives.parts.losses import masked_mean, squared_error
from embodied.objectives.parts.pictures import patch_pictures
from embodied.objectives.parts.targets import flat_share, pixel_target


class CompletionDecoder(nn.Module):
    """Tokens of the kept patches, a mask token in every gap, and attention to the tokens of a whole other view.

    Args:
        encoder: whose tokens come; predictions are the pixels of its patches.
        width, depth, heads: of the blocks.
        kind: see `CrossDecoder`.
    """

    def __init__(self, encoder: ViTEncoder, *, width: int, depth: int, heads: int, kind: str) -> None:
        super().__init__()
        (rows, columns), self.leading = encoder.grid, encoder.vit.class_tokens
        self.decoder = CrossDecoder(
            inputs=encoder.width,
            outputs=3 * encoder.vit.patch_size**2,
            width=width,
            depth=depth,
            heads=heads,
            kind=kind,
        )
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.positions: Tensor
        table = sincos_2d(width, rows, columns, class_token=self.leading)
        self.register_buffer("positions", table, persistent=False)

    def forward(
        self,
        seen: Float[Tensor, "B LK D"],
        restore_ids: Int[Tensor, "B N"],
        other: Float[Tensor, "B LM D"],
    ) -> Float[Tensor, "B N C"]:
        """Predictions of all patches of the view.

        Args:
            seen: its class tokens, and those of its kept patches in the order of the mask sampler.
            restore_ids: see `models.masks.uniform_mask`.
            other: class tokens and all patches of the other view.
        """
        embedded = self.decoder.embed(seen)
        kept = embedded[:, self.leading :]
        gaps = self.mask_token.expand(len(kept), restore_ids.shape[1] - kept.shape[1], -1)
        shuffled = torch.cat([kept, gaps.to(kept.dtype)], dim=1)  # (B, N, width)
        ordered = shuffled.gather(1, restore_ids[..., None].expand(-1, -1, shuffled.shape[-1]))
        queries = torch.cat([embedded[:, : self.leading], ordered], dim=1) + self.positions
        return self.decoder(queries, other, self.positions)[:, self.leading :]


@dataclass(frozen=True)
class Completion:
    """What came of completing a batch of views.

    Attributes:
        loss: mean over all hidden patches of the batch of their squared error.
        prediction: of every patch.
        mask: 1 = removed.
        metrics: `flat_patches`, the share of patches with next to no variance; `stranger_loss`, if asked for: the loss
            with each image's other view exchanged for its neighbour's in the batch.
    """

    loss: Float[Tensor, ""]
    prediction: Float[Tensor, "B N PPC"]
    mask: Float[Tensor, "B N"]
    metrics: dict[str, Tensor]


def complete(
    encoder: ViTEncoder,
    decoder: CompletionDecoder,
    view: Float[Tensor, "B 3 S S"],
    other: Float[Tensor, "B 3 S S"],
    noise: Float[Tensor, "B N"],
    *,
    mask_ratio: float,
    norm_pix: bool,
    watch: bool,
) -> Completion:
    """Hide patches of a view, encode the rest and all of the other view, predict the pixels of the hidden ones.

    Args:
        encoder, decoder: one encoder for both views.
        view, other: preprocessed.
        noise: the patches with the lowest are kept.
        mask_ratio: share of removed patches.
        norm_pix: predict per-patch normalised pixels.
        watch: whether to compute `stranger_loss`.
    """
    keep_ids, restore_ids, mask = uniform_mask(noise, mask_ratio)
    seen, helped = _with_leading(*encoder(view, keep_ids)), _with_leading(*encoder(other))
    target = pixel_target(view, encoder.vit.patch_size, normalize=norm_pix)

    def error(prediction: Tensor) -> Float[Tensor, ""]:
        return masked_mean(squared_error(prediction, target), mask, reduction="batch")

    prediction = decoder(seen, restore_ids, helped)
    metrics = {"flat_patches": flat_share(view, encoder.vit.patch_size)}
    if watch:
        with torch.no_grad():
            metrics["stranger_loss"] = error(decoder(seen, restore_ids, helped.roll(1, dims=0)))
    return Completion(error(prediction), prediction, mask, metrics)


def completion_pictures(
    encoder: ViTEncoder,
    view: Float[Tensor, "B 3 S S"],
    other: Float[Tensor, "B 3 S S"],
    done: Completion,
    *,
    normalized: bool,
) -> list[Tensor]:
    """The other view, and of the view: masked, prediction in the gaps, original; each uint8 [B, S, S, 3]."""
    shown = patch_pictures(encoder, view, done.prediction, done.mask, normalized=normalized)
    return [encoder.normalize.inverse(other), *shown]


def _with_leading(tokens: Float[Tensor, "B K D"], out: dict[str, Tensor]) -> Float[Tensor, "B LK D"]:
    return torch.cat([leading_tokens(tokens, out), tokens], dim=1)


def paired_views(
    encoder: ViTEncoder, images: Tensor, partners: Tensor | None
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
    """Frames uint8 [B, H, W, 3] and the first of their partners uint8 [B, P, H, W, 3], both preprocessed.

    Raises:
        UsageError: there are no partners.
    """
    if partners is None:
        raise UsageError("this objective needs pairs: batch['partners'] uint8 [B, P, H, W, 3]")
    return encoder.preprocess(images), encoder.preprocess(partners[:, 0])


def mask_noise(encoder: ViTEncoder, images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Tensor:
    """float [B, N], uniform, on the device of the images; from a CPU generator."""
    return torch.rand(len(images), encoder.grid[0] * encoder.grid[1], generator=generator).to(images.device)
