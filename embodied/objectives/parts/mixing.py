"""Images made of two: mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al. 2019,
https://arxiv.org/abs/1905.04899). Legend: B batch, S image size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Every image is mixed with another one of the batch; where both ways are on, either by lot.

    Departure: partners, shares and ways are drawn for each image; DeiT's recipe draws one share and way for a batch and
    mixes it with its reverse.

    Attributes:
        mixup: both parameters of the Beta distribution of shares; 0: off. DeiT's 0.8.
        cutmix: the same for the area that stays; DeiT's 1.
    """

    mixup: float
    cutmix: float

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0:
            raise UsageError(f"mixup and cutmix must not be negative, got {self.mixup} and {self.cutmix}")

    @property
    def on(self) -> bool:
        """Whether any image is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(
        self, images: Float[Tensor, "B C S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B C S S"], Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The mixed images, the index of each one's partner, and the share that is its own, in [0, 1].

        Args:
            images: float.
            generator: a CPU generator.
        """
        batch = len(images)
        partners = torch.randperm(batch, generator=generator)
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        cut = rng.random(batch) < (0.5 if self.mixup and self.cutmix else float(self.cutmix > 0))
        concentration = np.where(cut, self.cutmix, self.mixup)
        shares = torch.from_numpy(rng.beta(concentration, concentration)).float()
        others = images[partners.to(images.device)]
        pasted = pasted_boxes(shares, torch.rand(2, batch, generator=generator), images.shape[-1])
        chosen = torch.from_numpy(cut)
        shares = torch.where(chosen, 1 - pasted.float().mean(dim=(1, 2)), shares)
        own = torch.where(chosen[:, None, None], (~pasted).float(), shares[:, None, None])[:, None].to(images)
        return own * images + (1 - own) * others, partners.to(images.device), shares.to(images.device)


def pasted_boxes(shares: Float[Tensor, " B"], centres: Float[Tensor, "2 B"], size: int) -> Bool[Tensor, "B S S"]:
    """True = the partner's: boxes of the image's proportions and of area 1 - share, cut off at the image's edges.

    Args:
        shares: of the area that stays where nothing is cut off.
        centres: down and across, in [0, 1).
        size: S.
    """
    sides = size * (1 - shares).sqrt()
    first = (centres * size - sides / 2).round()[..., None]  # (2, B, 1)
    last = (centres * size + sides / 2).round()[..., None]
    pixels = torch.arange(size)
    inside = (pixels >= first) & (pixels < last)  # (2, B, S)
    return inside[0, :, :, None] & inside[1, :, None, :]
