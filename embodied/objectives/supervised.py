"""Supervised pre-training on labelled pictures: cross-entropy, or the leave-one-out kNN loss of LOOK (Feng et al. 2022,
https://arxiv.org/abs/2110.06014).

Legend: B batch, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import initialize
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import global_feature
from embodied.objectives.parts.losses import masked_mean, soft_code_error
from embodied.objectives.parts.mixing import Mixing
from embodied.objectives.parts.neighbours import neighbour_error, voted_classes
from embodied.objectives.parts.queue import ContrastHead, Queue
from embodied.objectives.parts.settings import area_range
from embodied.objectives.parts.views import change_colours

LOSSES = ("cross_entropy", "look")


class Supervised(nn.Module):
    """Tell the class of a picture, from the class token (or the mean of the patches, where there is none).

    With `loss=look` no classifier is learned: most of a picture's nearest neighbours shall have its class, so that a
    class may be several clusters. Our variant of LOOK, whose hyperparameters, bank and key encoder could not be
    confirmed: features are those of a projector (MoCo v2's); neighbours are looked for among the other pictures of the
    same part of the batch, and among the features of earlier steps as they were then, without a momentum encoder.
    Leaving one out is exact within a batch; a bank that reaches back to the last epoch can hold a picture's own old
    feature. With several processes or parts of a batch, pictures of the other parts become neighbours in the next step,
    as part of the bank.

    Departures from DeiT's recipe: colour changes stand for RandAugment, and nothing is erased.

    Args:
        encoder: the ViT to train.
        classes: C; None: as many as the data has, which `expect_classes` says before the training.
        loss: `cross_entropy` or `look`.
        smoothing: share of a label's probability that is spread over all classes; of cross-entropy.
        mixup, cutmix: see `Mixing`; of cross-entropy. DeiT's 0.8 and 1.
        neighbours, temperature, hidden, outputs: k of the neighbours, what cosines are divided by, and the sizes of the
            projector; of LOOK.
        bank: features of earlier steps, 0: none; of LOOK.
        crop_scale: of the random resized crop; the usual (0.08, 1) makes a gripper of a few pixels vanish.
        strength: of changes of colour, see `MultiCrop`; 0: none, as the colour may be the class.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    wants_labels = True

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        classes: int | None = None,
        loss: str = "cross_entropy",
        smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        neighbours: int = 20,
        temperature: float = 0.1,
        hidden: int = 512,
        outputs: int = 128,
        bank: int = 1024,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        strength: float = 0.0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.mixing = Mixing(mixup=mixup, cutmix=cutmix)
        if loss == "look" and self.mixing.on:
            raise UsageError(f"loss=look knows no mixed pictures: mixup and cutmix must be 0, got {mixup} and {cutmix}")
        if not 0 <= smoothing < 1 or not 0 <= strength <= 1 or temperature <= 0 or neighbours < 1 or bank < 0:
            raise UsageError(
                "smoothing must be in [0, 1), strength in [0, 1], temperature positive, neighbours at least 1 and bank "
                f"not negative, got {smoothing}, {strength}, {temperature}, {neighbours} and {bank}"
            )
        self.encoder, self.classes = encoder, classes
        self.smoothing, self.neighbours, self.temperature = smoothing, neighbours, temperature
        self.crop_scale, self.strength, self.flip = area_range("crop_scale", crop_scale), strength, flip
        self.names: list[str] | None = None
        self.head: nn.Module | None = None  # the classifier, or LOOK's projector
        self.bank: Queue | None = None
        self.look = loss == "look"
        # Drawn now, so that weights depend on the caller's seed alone, whenever the number of classes is known.
        self._head_seed = int(torch.randint(1 << 62, ()))
        if self.look:
            self.head = ContrastHead(inputs=encoder.width, hidden=hidden, outputs=outputs)
            self.bank = Queue(bank, outputs, labelled=True) if bank else None
        if classes is not None:
            self._set_classes(classes)

    def expect_classes(self, names: Sequence[str]) -> None:
        """What the labels 0, 1, ... of the data mean.

        Raises:
            UsageError: there are fewer than two, or more than `classes`.
        """
        if self.classes is not None and self.classes < len(names):
            raise UsageError(f"objective.classes must be at least {len(names)}, as in data; got {self.classes}")
        self.names = [str(name) for name in names]
        if self.classes is None:
            self._set_classes(len(names))

    def _set_classes(self, classes: int) -> None:
        if classes < 2:
            raise UsageError(f"there must be at least two classes to tell apart, got {classes}")
        self.classes = classes
        if not self.look:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._head_seed)
                self.head = nn.Linear(self.encoder.width, classes)
                initialize(self.head)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `images`, frames uint8 [B, H, W, 3], and `labels` int64 [B] in 0 to C - 1.
            generator: a CPU generator, for crops, colours and mixing.

        Returns:
            The loss and `accuracy`: the share of pictures whose class gets most of the probability (of mixed ones, the
            class of the larger part), or of LOOK most of the neighbours' weight. Of LOOK also `alone`, the share of
            pictures whose class nothing else has, which the loss leaves out.

        Raises:
            UsageError: there are no labels, or nobody said how many classes there are.
        """
        if "labels" not in batch:
            raise UsageError("this objective needs labelled pictures: batch['labels'] int64 [B]")
        if self.head is None or self.classes is None:
            raise UsageError("how many classes are there? give objective.classes, or call expect_classes")
        images = self._change(self.encoder.preprocess(batch["images"]), generator)
        if self.look:
            return self.neighbour_loss(self.head(self._feature(images)), batch["labels"])
        mixed, partners, shares = self.mixing(images, generator) if self.mixing.on else _unmixed(images)
        return self.class_loss(self.head(self._feature(mixed)), batch["labels"], partners, shares)

    def class_loss(
        self,
        logits: Float[Tensor, "B C"],
        labels: Int[Tensor, " B"],
        partners: Int[Tensor, " B"],
        shares: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Cross-entropy with smoothed labels of mixed pictures, and the accuracy; see `Mixing` for the arguments."""
        own, other = (nn.functional.one_hot(each, logits.shape[1]).float() for each in (labels, labels[partners]))
        target = shares[:, None] * own + (1 - shares[:, None]) * other
        target = (1 - self.smoothing) * target + self.smoothing / logits.shape[1]
        larger = torch.where(shares >= 0.5, labels, labels[partners])
        accuracy = (logits.detach().argmax(dim=1) == larger).float().mean()
        return soft_code_error(logits, target).mean(), {"accuracy": accuracy}

    def neighbour_loss(
        self, queries: Float[Tensor, "B E"], labels: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """LOOK's loss and accuracy; the queries, of length 1, are noted for the bank."""
        assert self.classes is not None
        bank, bank_labels = queries.new_zeros(0, queries.shape[1]), labels.new_zeros(0)
        if self.bank is not None and self.bank.labels is not None:
            bank, bank_labels = self.bank.value.clone(), self.bank.labels.clone()  # which change before the backward
        error, found, votes = neighbour_error(
            queries, labels, bank, bank_labels, neighbours=self.neighbours, temperature=self.temperature
        )
        predicted = voted_classes(votes, torch.cat([labels, bank_labels]), self.classes)
        if self.bank is not None:
            self.bank.note(queries, labels)
        loss = masked_mean(error, found, reduction="batch")
        return loss, {
            "accuracy": (predicted == labels).float().mean(),
            "alone": (~found).float().mean(),
        }

    def after_step(self, step: int, steps: int) -> None:
        """The bank."""
        if self.bank is not None:
            self.bank.update()

    def exports(self) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        """The classifier with the names of the classes, `classifier.safetensors`; LOOK learns none."""
        if self.look or self.head is None:
            return {}
        return {"classifier": (dict(self.head.state_dict()), {"classes": self.names or self.classes})}

    def _feature(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return global_feature(self.encoder.vit(images)[1])

    def _change(self, images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
        """A part of each picture, in other colours."""
        images = random_resized_crop(images, generator, scale=self.crop_scale, flip=self.flip)
        if not self.strength:
            return images
        mean, std = self.encoder.normalize.mean, self.encoder.normalize.std
        pixels = (images * std + mean).clamp(0, 1)
        pixels = change_colours(pixels, generator, strength=self.strength, blur=0.1, solarized=0.0)
        return (pixels - mean) / std


def _unmixed(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `Mixing`: every picture is its own partner."""
    return images, torch.arange(len(images), device=images.device), images.new_ones(len(images))
