"""iBOT: image BERT pre-training with online tokenizer (Zhou et al. 2022, https://arxiv.org/abs/2111.07832).

Legend: B batch, G large views, S image size, N patches, M hidden patches in all, V prototypes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.parts.losses import soft_code_error
from embodied.objectives.parts.masks import block_mask
from embodied.objectives.parts.prototypes import PrototypeHead
from embodied.objectives.parts.schedules import ramp
from embodied.objectives.parts.settings import pair
from embodied.objectives.parts.teacher import Centre, Teacher, entropy
from embodied.objectives.self_distillation.dino import DINO


class IBOT(nn.Module):
    """DINO on class tokens, and the same on patches: the student's are hidden, the teacher's not (Eq. 1, 3).

    The centre of patches is the mean of all of the teacher's patches, hidden or not (released code); with Sinkhorn the
    targets are those of hidden patches only (DINOv2). Small views are never hidden.

    Args:
        encoder: the ViT to train; needs a class token.
        shared_head: class tokens and patches have one head (the release); else patches have their own (DINOv2).
        mask_share: probability that a large view is hidden in part.
        mask_ratio: share of its patches that is hidden then, uniform between these.
        exact: complete the blocks to the exact number (DINOv2).
        patch_weight: of the loss on patches.
        dino: everything else, as of `DINO`.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        shared_head: bool = True,
        mask_share: float = 0.5,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        exact: bool = False,
        patch_weight: float = 1.0,
        **dino: Any,
    ) -> None:
        super().__init__()
        low, high = pair("mask_ratio", mask_ratio)
        if not 0 < mask_share <= 1 or not 0 < low <= high < 1 or patch_weight <= 0:
            raise UsageError(
                "mask_share must be in (0, 1], mask_ratio an interval in (0, 1) and patch_weight positive, got "
                f"{mask_share}, {[low, high]} and {patch_weight}"
            )
        self.dino = DINO(encoder, **dino)
        self.patch_head: PrototypeHead | None = None
        if not shared_head:
            self.patch_head = PrototypeHead(**self.dino.head.options)
            self.teacher_patch_head = Teacher(self.patch_head)
        self.patch_centre = Centre(self.dino.head.options["prototypes"])
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.mask_share, self.mask_ratio, self.exact = mask_share, (low, high), exact
        self.patch_weight = patch_weight
        rows, columns = encoder.grid
        self.min_block = max(1, (min(rows, columns) // 3) ** 2)

    @property
    def encoder(self) -> ViTEncoder:
        """The student's ViT."""
        return self.dino.encoder

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, its two parts, and what shows a collapse."""
        images = self.encoder.preprocess(batch["images"])
        large, small = self.dino.crops(self.encoder, images, generator)
        mask = self.draw_mask(len(large), generator).to(images.device)
        seen, teacher = self.dino.teacher(large)
        tokens, student = self.encoder.vit(large, token_mask=mask, mask_token=self.mask_token)
        class_loss, metrics = self.dino.class_loss(student["cls"], small, teacher["cls"])
        patch_loss, targets = self.patch_loss(tokens, seen, mask)
        parts = {"class_loss": class_loss.detach(), "patch_loss": patch_loss.detach()}
        metrics |= {"patch_entropy": entropy(targets), "hidden": mask.float().mean(), **parts}
        return class_loss + self.patch_weight * patch_loss, metrics

    def draw_mask(self, views: int, generator: torch.Generator) -> Bool[Tensor, "GB N"]:
        """True = hidden: blocks in about `mask_share` of the views."""
        rows, columns = self.encoder.grid
        low, high = self.mask_ratio
        ratio = low + (high - low) * torch.rand(views, generator=generator)
        hidden = torch.rand(views, generator=generator) < self.mask_share
        return block_mask(
            views,
            rows=rows,
            columns=columns,
            counts=(ratio * hidden * rows * columns).long(),
            smallest=self.min_block,
            generator=generator,
            exact=self.exact,
        )

    def patch_loss(
        self, tokens: Float[Tensor, "GB N D"], seen: Float[Tensor, "GB N D"], mask: Bool[Tensor, "GB N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "M V"]]:
        """Cross-entropy of hidden patches, mean per view, then over views (one without any counts as 0); the targets.

        Args:
            tokens: of the student.
            seen: the teacher's.
            mask: True = hidden.
        """
        head = self.dino.head if self.patch_head is None else self.patch_head
        teacher_head = self.dino.teacher_head if self.patch_head is None else self.teacher_patch_head
        if self.dino.centring == "centre":
            targets = self.dino.targets(teacher_head(seen.flatten(0, 1)), self.patch_centre)
            targets = targets[mask.flatten()]
        else:
            targets = self.dino.targets(teacher_head(seen[mask]), self.patch_centre)
        weight = (mask / mask.sum(dim=1, keepdim=True).clamp(min=1))[mask] / len(mask)
        error = soft_code_error(head(tokens[mask]) / self.dino.student_temperature, targets)
        # The second term is 0: a batch without any hidden patch still has the head in its graph.
        return (error * weight).sum() + 0.0 * head(tokens[:1, 0]).sum(), targets

    def after_step(self, step: int, steps: int) -> None:
        """Teachers, centres and temperatures."""
        self.dino.after_step(step, steps)
        self.patch_centre.update()
        if self.patch_head is not None:
            self.teacher_patch_head.update(self.patch_head, ramp("cosine", self.dino.momentum, 1.0, step, steps))
            self.patch_head.frozen.copy_(self.dino.head.frozen)
