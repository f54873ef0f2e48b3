"""DropPos: pre-training vision transformers by reconstructing dropped positions (Wang et al. 2023,
https://arxiv.org/abs/2309.03576).

Legend: B batch, S image size, N patches, K visible patches, L class tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.corruptions import subset
from embodied.objectives.parts.decoders import SelfDecoder
from embodied.objectives.parts.losses import masked_mean, soft_code_error
from embodied.objectives.parts.masks import uniform_mask
from embodied.objectives.parts.settings import area_range, share


class DropPos(nn.Module):
    """Show a quarter of the patches, most of them without their position, and classify where those belong (Fig. 2).

    Args:
        encoder: the ViT to train; its positions must be added to the patches (`sincos` or `learned`).
        decoder_width, decoder_depth, decoder_heads: the paper's 512, 2, 16 go with a ViT-B.
        mask_ratio: share of patches that are removed; K = int(N * (1 - mask_ratio)) are left.
        position_ratio: share of the visible ones whose position is dropped; int(K * (1 - position_ratio)) keep it.
        sigma: width, in patches, of the soft labels at the start; it falls linearly to 0, one-hot labels, at the end
            (Eq. 5; 0 from the start: no smoothing).
        attention_guide: weigh each patch by its similarity to the class token (Eq. 6), as the release script does; it
            costs a pass over the whole image without gradients. Weights are normalised over the visible patches of each
            image, the loss by all that count in the batch (released code).
        guide_temperature: of those weights.
        crop_scale: of the random resized crop. Departure: the paper's (0.2, 1) makes a gripper of a few pixels vanish.
    """

    sigma: Tensor
    distances: Tensor

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        mask_ratio: float = 0.75,
        position_ratio: float = 0.75,
        sigma: float = 1.0,
        attention_guide: bool = True,
        guide_temperature: float = 0.1,
        crop_scale: tuple[float, float] = (0.6, 1.0),
    ) -> None:
        super().__init__()
        vit, (rows, columns) = encoder.vit, encoder.grid
        if vit.positions is None or vit.registers is not None or vit.pre_norm is not None or len(vit.relative):
            raise UsageError("DropPos needs an encoder whose only positions are added ones: sincos or learned")
        if attention_guide and not vit.class_tokens:
            raise UsageError("attention_guide needs an encoder with a class token")
        self.visible = int(rows * columns * (1 - share("mask_ratio", mask_ratio)))
        self.placed = int(self.visible * (1 - share("position_ratio", position_ratio)))
        if self.visible < 2:
            raise UsageError(f"mask_ratio {mask_ratio} leaves {self.visible} of {rows * columns} patches: lower it")
        if sigma < 0 or guide_temperature <= 0:
            raise UsageError(
                f"sigma must not be negative and guide_temperature positive, got {sigma} and {guide_temperature}"
            )
        self.encoder, self.mask_ratio, self.first_sigma = encoder, mask_ratio, sigma
        self.attention_guide, self.guide_temperature = attention_guide, guide_temperature
        self.crop_scale = area_range("crop_scale", crop_scale)
        self.no_position = nn.Parameter(torch.zeros(encoder.width))
        self.decoder = SelfDecoder(
            inputs=encoder.width,
            outputs=rows * columns,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            grid=encoder.grid,
            leading=vit.class_tokens,
            positions="none",  # else it would know what it is asked
            gaps=False,
        )
        nn.init.normal_(self.no_position, std=0.02)
        self.register_buffer("sigma", torch.tensor(float(sigma)))
        self.register_buffer("distances", squared_distances(rows, columns), persistent=False)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, and `accuracy`, the share of positions met exactly (chance is 1 / N)."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale)
        noise = torch.rand(len(images), len(self.distances), generator=generator)
        keep_ids, _, _ = uniform_mask(noise, self.mask_ratio)
        placed = subset(len(images), self.visible, self.placed, generator).to(images.device)
        loss, logits = self.position_loss(images, keep_ids.to(images.device), placed)
        hits = (logits.argmax(-1) == keep_ids.to(images.device)).float()
        return loss, {"accuracy": masked_mean(hits, (~placed).float(), reduction="batch")}

    def position_loss(
        self, images: Float[Tensor, "B 3 S S"], keep_ids: Int[Tensor, "B K"], placed: Bool[Tensor, "B K"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B K N"]]:
        """Loss and logits over positions; `placed` True = the patch keeps its position and is not predicted."""
        leading, tokens = self.encode(images, keep_ids, placed)
        logits = self.decoder(leading, tokens)
        error = soft_code_error(logits, soft_positions(self.distances, self.sigma)[keep_ids])
        if not self.attention_guide:
            return masked_mean(error, (~placed).float(), reduction="batch"), logits
        weight = self.guide(images, keep_ids).masked_fill(placed, 0.0)
        return (error * weight).sum() / weight.sum().clamp(min=1e-12), logits

    def encode(
        self, images: Float[Tensor, "B 3 S S"], keep_ids: Int[Tensor, "B K"], placed: Bool[Tensor, "B K"]
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B K D"]]:
        """Class and patch tokens of the visible patches, of which those not `placed` have no position (Eq. 2)."""
        # By hand, since the encoder's own forward would add every position.
        vit = self.encoder.vit
        assert isinstance(vit.positions, Tensor)
        embedded = vit.embed_patches(images)
        tokens = embedded.gather(1, keep_ids[..., None].expand(-1, -1, vit.width))
        position = vit.positions[vit.class_tokens :][keep_ids]  # (B, K, D)
        tokens = tokens + torch.where(placed[..., None], position, self.no_position)
        if vit.class_token is not None:
            first = vit.class_token + vit.positions[: vit.class_tokens]
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in vit.blocks:
            tokens = block(tokens)
        tokens = vit.norm(tokens)
        return tokens[:, : vit.class_tokens], tokens[:, vit.class_tokens :]

    @torch.no_grad()
    def guide(self, images: Float[Tensor, "B 3 S S"], keep_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Softmax of the patches' cosines with the class token, in the whole image (Eq. 6); of visible ones, sum 1."""
        everything = torch.arange(len(self.distances), device=keep_ids.device).expand(len(keep_ids), -1)
        leading, tokens = self.encode(images, everything, torch.ones_like(everything, dtype=torch.bool))
        similarity = F.cosine_similarity(leading.mean(dim=1, keepdim=True).float(), tokens.float(), dim=-1)
        # The softmax over the visible ones is that over all of them, normalised again.
        return (similarity.gather(1, keep_ids) / self.guide_temperature).softmax(dim=1)

    def after_step(self, step: int, steps: int) -> None:
        """Sharpen the labels of the next step."""
        self.sigma.fill_(self.first_sigma * max(0.0, 1 - step / steps))


def squared_distances(rows: int, columns: int) -> Float[Tensor, "N N"]:
    """Squared distance of any two patches, in patches."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([row.flatten(), column.flatten()], dim=1).float()
    return (place[:, None] - place[None]).pow(2).sum(dim=-1)


def soft_positions(distances: Float[Tensor, "N N"], sigma: Float[Tensor, ""]) -> Float[Tensor, "N N"]:
    """Labels proportional to exp(-d^2 / sigma^2), rows summing to 1; one-hot for sigma 0 (Eq. 5)."""
    # The floor makes the division harmless; any neighbour is then exp(-1e8) = 0.
    return (-distances / sigma.clamp(min=1e-4) ** 2).softmax(dim=1)
