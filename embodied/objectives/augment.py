"""Augmentations of a batch, on its device, with randomness from a generator. Legend: B batch, S image size."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def random_resized_crop(
    images: Float[Tensor, "B C S S"],
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
) -> Float[Tensor, "B C S S"]:
    """A random part of each image, resized back to the whole size, bilinear.

    Args:
        images: float.
        generator: a CPU generator.
        scale: area of the part over the area of the image, at least and at most; (1, 1) with ratio (1, 1) is identity.
        ratio: width over height, drawn log-uniformly.
        flip: mirror every second image on average.
    """
    batch = len(images)
    area = torch.empty(batch).uniform_(*scale, generator=generator)
    log_ratio = torch.empty(batch).uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator)
    width = (area * log_ratio.exp()).sqrt().clamp(max=1.0)
    height = (area / log_ratio.exp()).sqrt().clamp(max=1.0)
    place = torch.rand(2, batch, generator=generator) * 2 - 1  # centre of the part in the room that is left
    mirror = torch.ones(batch)
    if flip:
        mirror -= 2 * (torch.rand(batch, generator=generator) < 0.5).float()
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, place[0] * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, place[1] * (1 - height)
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
