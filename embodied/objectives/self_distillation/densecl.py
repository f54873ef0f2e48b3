"""DenseCL: dense contrastive learning for self-supervised visual pre-training (Wang et al. 2021,
https://arxiv.org/abs/2011.09157), on the patches of a ViT.

Legend: B batch, S image size, N patches, D width, E outputs of a head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.parts.losses import contrast_error
from embodied.objectives.parts.queue import ContrastHead, Queue
from embodied.objectives.parts.settings import area_range
from embodied.objectives.parts.teacher import Teacher, feature_spread
from embodied.objectives.parts.views import MultiCrop


class DenseCL(nn.Module):
    """Tell another view of the same image from other images (MoCo v2), and each patch's match in it from other images.

    A patch's match is the patch of the other view whose features, before the heads, are most alike (Sec. 3.4). The
    negatives of images are keys of earlier batches, those of patches the means over patches of earlier dense keys.

    Departures: the grid is a ViT's, whose layer norms need no shuffling between processes; views are changed in colour
    as DINO's are, half as much, and not mirrored; a queue of 4,096 and a teacher's momentum of 0.99 by default, for
    small data. As in the released configurations, the dense loss counts from the start.

    Args:
        encoder: the ViT to train; it needs no class token, what is contrasted of an image is its pooled patches.
        hidden, outputs: of either head; the paper's 2048 and 128.
        queue: keys of earlier batches, of images and of patches each; the paper's 65536.
        temperature: cosines are divided by.
        momentum: of the key encoder; the paper's 0.999.
        dense_weight: lambda, the dense loss's share (Eq. 3).
        global_scale, strength, flip: of the two views; see `MultiCrop`. The paper's crops are (0.2, 1).
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        hidden: int = 512,
        outputs: int = 128,
        queue: int = 4096,
        temperature: float = 0.2,
        momentum: float = 0.99,
        dense_weight: float = 0.5,
        global_scale: tuple[float, float] = (0.4, 1.0),
        strength: float = 0.5,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or not 0 < dense_weight < 1 or temperature <= 0:
            raise UsageError(
                "momentum must be in [0, 1), dense_weight in (0, 1) and temperature positive, got "
                f"{momentum}, {dense_weight} and {temperature}"
            )
        self.crops = MultiCrop(
            local_crops=0,
            local_patches=1,
            global_scale=area_range("global_scale", global_scale),
            local_scale=(1.0, 1.0),
            strength=strength,
            flip=flip,
        )
        self.encoder = encoder
        self.head = ContrastHead(inputs=encoder.width, hidden=hidden, outputs=outputs)
        self.dense_head = ContrastHead(inputs=encoder.width, hidden=hidden, outputs=outputs)
        self.teacher = Teacher(encoder.vit)
        self.teacher_head, self.teacher_dense_head = Teacher(self.head), Teacher(self.dense_head)
        self.queue, self.dense_queue = Queue(queue, outputs), Queue(queue, outputs)
        self.temperature, self.momentum, self.dense_weight = temperature, momentum, dense_weight

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch (Eq. 3), its two parts, and `teacher_spread` (0 when collapsed, about 1 else)."""
        images = self.encoder.preprocess(batch["images"])
        first, second = self.crops(self.encoder, images, generator)[0].chunk(2)
        tokens, out = self.encoder.vit(first)
        seen, keys = self.teacher(second)
        key = self.teacher_head(keys["pooled"])
        error = contrast_error(self.head(out["pooled"]), key, self.queue.value, temperature=self.temperature).mean()
        dense_key = self.teacher_dense_head(seen)
        dense = self.dense_error(tokens, seen, dense_key).mean()
        self.queue.note(key)
        self.dense_queue.note(F.normalize(dense_key.mean(dim=1), dim=-1))
        loss = (1 - self.dense_weight) * error + self.dense_weight * dense
        parts = {"global_loss": error.detach(), "dense_loss": dense.detach()}
        return loss, {**parts, "teacher_spread": feature_spread(keys["pooled"])}

    def dense_error(
        self, tokens: Float[Tensor, "B N D"], seen: Float[Tensor, "B N D"], keys: Float[Tensor, "B N E"]
    ) -> Float[Tensor, "B N"]:
        """Loss of every patch (Eq. 2).

        Args:
            tokens: of the student's view.
            seen: of the key encoder's view, by which matches are found.
            keys: the same after the dense head.
        """
        positives = keys.gather(1, matches(tokens, seen)[..., None].expand(-1, -1, keys.shape[-1]))
        return contrast_error(self.dense_head(tokens), positives, self.dense_queue.value, temperature=self.temperature)

    def after_step(self, step: int, steps: int) -> None:
        """Key encoder and queues."""
        self.teacher.update(self.encoder.vit, self.momentum)
        self.teacher_head.update(self.head, self.momentum)
        self.teacher_dense_head.update(self.dense_head, self.momentum)
        self.queue.update()
        self.dense_queue.update()


@torch.no_grad()
def matches(tokens: Float[Tensor, "B N D"], others: Float[Tensor, "B M D"]) -> Tensor:
    """For each token the index, int64 [B, N], of the other view's token with the highest cosine (Sec. 3.4)."""
    cosines = F.normalize(tokens.float(), dim=-1) @ F.normalize(others.float(), dim=-1).transpose(1, 2)
    return cosines.argmax(dim=2)
