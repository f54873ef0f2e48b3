"""DINO: emerging properties in self-supervised vision transformers (Caron et al. 2021,
https://arxiv.org/abs/2104.14294), with DINOv2's Sinkhorn and KoLeo as options (https://arxiv.org/abs/2304.07193).

Legend: B batch, S image size, V prototypes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.parts.losses import koleo, soft_code_error
from embodied.objectives.parts.prototypes import PrototypeHead
from embodied.objectives.parts.schedules import ramp
from embodied.objectives.parts.settings import area_range, pair
from embodied.objectives.parts.teacher import Centre, Teacher, entropy, feature_spread, sinkhorn
from embodied.objectives.parts.views import GLOBAL, MultiCrop

CENTRINGS = ("centre", "sinkhorn")


class DINO(nn.Module):
    """Predict, from any view, which prototypes the teacher sees in each large view (Eq. 2, Algorithm 1).

    Schedules run over shares of the training, where the papers count epochs. Sinkhorn scales over the samples of all
    processes, but of one part only where a batch is accumulated in several.

    Args:
        encoder: the ViT to train; needs a class token.
        prototypes, hidden, bottleneck: of the head; the papers' 65536 (iBOT 8192), 2048, 256 go with ViT-S and large
            data, fewer prototypes with small.
        norm_last: prototypes of length 1.
        freeze_last: share of the training before the prototypes move; the paper's first epoch of 100.
        centring: `centre` (DINO, iBOT) or `sinkhorn` (DINOv2).
        momentum: of the teacher, from this to 1 along a cosine.
        student_temperature: of the student.
        teacher_temperatures: of the teacher, from the first to the second linearly in `temperature_warmup`.
        temperature_warmup: share of the training; the paper's 30 epochs of 100 to 800.
        koleo_weight: of KoLeo on the student's class tokens of either large view; DINOv2's 0.1.
        local_crops, local_patches, global_scale, local_scale, strength, flip: see `MultiCrop`. Departure: no mirror
            images and half the colour changes by default, since a mirrored robot scene is another state.
    """

    temperature: Tensor

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        prototypes: int = 1024,
        hidden: int = 512,
        bottleneck: int = 128,
        norm_last: bool = True,
        freeze_last: float = 0.01,
        centring: str = "centre",
        momentum: float = 0.996,
        student_temperature: float = 0.1,
        teacher_temperatures: tuple[float, float] = (0.04, 0.07),
        temperature_warmup: float = 0.1,
        koleo_weight: float = 0.0,
        local_crops: int = 4,
        local_patches: int = 3,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.1, 0.4),
        strength: float = 0.5,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not encoder.vit.class_tokens:
            raise UsageError("DINO needs an encoder with a class token: encoder.class_tokens=1")
        if centring not in CENTRINGS:
            raise unknown_name("centring", centring, CENTRINGS)
        if not 0 <= momentum < 1 or not 0 <= freeze_last < 1 or not 0 <= temperature_warmup <= 1:
            raise UsageError(
                "momentum and freeze_last must be in [0, 1), temperature_warmup in [0, 1], got "
                f"{momentum}, {freeze_last} and {temperature_warmup}"
            )
        self.temperatures = pair("teacher_temperatures", teacher_temperatures)
        if min(student_temperature, *self.temperatures) <= 0 or koleo_weight < 0:
            raise UsageError(
                "student_temperature and teacher_temperatures must be positive and koleo_weight not negative, got "
                f"{student_temperature}, {list(self.temperatures)} and {koleo_weight}"
            )
        self.crops = MultiCrop(
            local_crops=local_crops,
            local_patches=local_patches,
            global_scale=area_range("global_scale", global_scale),
            local_scale=area_range("local_scale", local_scale),
            strength=strength,
            flip=flip,
        )
        self.encoder = encoder
        self.head = PrototypeHead(
            inputs=encoder.width, hidden=hidden, bottleneck=bottleneck, prototypes=prototypes, norm_last=norm_last
        )
        self.teacher, self.teacher_head = Teacher(encoder.vit), Teacher(self.head)
        self.centre = Centre(prototypes)
        self.centring, self.momentum, self.koleo_weight = centring, momentum, koleo_weight
        self.student_temperature, self.freeze_last = student_temperature, freeze_last
        self.temperature_warmup = temperature_warmup
        self.register_buffer("temperature", torch.tensor(self.temperatures[0]))
        self.head.frozen.fill_(freeze_last > 0)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, and what shows a collapse; see `class_loss`."""
        images = self.encoder.preprocess(batch["images"])
        large, small = self.crops(self.encoder, images, generator)
        teacher = self.teacher(large)[1]["cls"]
        student = self.encoder.vit(large)[1]["cls"]
        return self.class_loss(student, small, teacher)

    def class_loss(
        self, student: Float[Tensor, "GB D"], small: Float[Tensor, "VB 3 S2 S2"], teacher: Float[Tensor, "GB D"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss from class tokens of the large views, and of small views yet to be encoded.

        Returns:
            The loss; `teacher_entropy` (0 or log V when collapsed), `teacher_spread` (0 when collapsed, about 1 else).
        """
        targets = self.targets(self.teacher_head(teacher), self.centre)
        scores = self.head(student)
        if len(small):
            scores = torch.cat([scores, self.head(self.encoder.vit(small)[1]["cls"])])
        loss = view_loss(scores / self.student_temperature, targets, views=GLOBAL + self.crops.local_crops)
        metrics = {"teacher_entropy": entropy(targets), "teacher_spread": feature_spread(teacher)}
        if self.koleo_weight:
            spread = sum((koleo(view) for view in student.chunk(GLOBAL)), start=student.new_zeros(()))
            loss = loss + self.koleo_weight * spread
            metrics["koleo"] = spread.detach() / GLOBAL
        return loss, metrics

    def targets(self, outputs: Float[Tensor, "B V"], centre: Centre) -> Float[Tensor, "B V"]:
        """Probabilities of the teacher, kept from collapse by the centre or by Sinkhorn."""
        if self.centring == "sinkhorn":
            return sinkhorn(outputs, self.temperature)
        return centre(outputs, self.temperature)

    def after_step(self, step: int, steps: int) -> None:
        """Teacher, centre, and the next step's temperature."""
        momentum = ramp("cosine", self.momentum, 1.0, step, steps)
        self.teacher.update(self.encoder.vit, momentum)
        self.teacher_head.update(self.head, momentum)
        self.centre.update()
        warmup = self.temperature_warmup * steps
        self.temperature.fill_(
            ramp("linear", *self.temperatures, step, warmup) if step < warmup else self.temperatures[1]
        )
        self.head.frozen.fill_(step < self.freeze_last * steps)


def view_loss(logits: Float[Tensor, "VB C"], targets: Float[Tensor, "GB C"], *, views: int) -> Float[Tensor, ""]:
    """Mean cross-entropy over pairs of a teacher's view and another view of the student (Algorithm 1)."""
    terms = [
        soft_code_error(student, teacher).mean()
        for number, teacher in enumerate(targets.chunk(GLOBAL))
        for other, student in enumerate(logits.chunk(views))
        if other != number
    ]
    return torch.stack(terms).mean()
