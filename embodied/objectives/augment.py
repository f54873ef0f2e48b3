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
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "B C S2 S2"]:
    """A random part of each image, resized back to the whole size or to another one, bilinear.

    Args:
        images: float.
        generator: a CPU generator.
        scale: area of the part over the area of the image, at least and at most; (1, 1) with ratio (1, 1) is identity.
        ratio: width over height, drawn log-uniformly.
        flip: mirror every second image on average.
        size: height and width of the result; None: those of the images. There is no antialiasing: a size much smaller
            than the part's aliases.
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
    rows, columns = images.shape[-2:] if size is None else size
    # Row by row and column by column, since nothing is turned: `affine_grid` takes longer than the sampling does.
    across = _centres(columns) * (width * mirror)[:, None] + (place[0] * (1 - width))[:, None]  # (B, S2)
    down = _centres(rows) * height[:, None] + (place[1] * (1 - height))[:, None]
    across, down = across.to(images)[:, None, :], down.to(images)[:, :, None]
    grid = torch.stack(torch.broadcast_tensors(across, down), dim=-1)  # (B, S2, S2, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _centres(count: int) -> Tensor:
    """Those of so many pixels between -1 and 1."""
    return (torch.arange(count) * 2 + 1) / count - 1


def colour_jitter(
    pixels: Float[Tensor, "B 3 S S"],
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float[Tensor, "B 3 S S"]:
    """Brightness, contrast, saturation and hue of each image changed at random, in this order, clamped to [0, 1].

    Args:
        pixels: in [0, 1].
        generator: a CPU generator.
        brightness, contrast, saturation: factors are uniform within 1 +- this.
        hue: the colour plane of YIQ is turned by up to this share of a whole turn. Departure: torchvision turns the hue
            of HSV, and draws the order.
    """
    draws = (torch.rand(4, len(pixels), 1, 1, 1, generator=generator) * 2 - 1).to(pixels)
    pixels = (pixels * (1 + brightness * draws[0])).clamp(0, 1)
    mean = _grey(pixels).mean(dim=(1, 2, 3), keepdim=True)
    pixels = (mean + (pixels - mean) * (1 + contrast * draws[1])).clamp(0, 1)
    grey = _grey(pixels)
    pixels = (grey + (pixels - grey) * (1 + saturation * draws[2])).clamp(0, 1)
    angle = 2 * math.pi * hue * draws[3, :, 0, 0, 0]
    to_yiq = pixels.new_tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    turn = torch.zeros(len(pixels), 3, 3, device=pixels.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq  # (B, 3, 3)
    return (matrix @ pixels.flatten(2)).unflatten(2, pixels.shape[2:]).clamp(0, 1)


def grey_scale(
    pixels: Float[Tensor, "B 3 S S"], generator: torch.Generator, *, share: float
) -> Float[Tensor, "B 3 S S"]:
    """About a share of the images without colour."""
    return _some(pixels, _grey(pixels).expand_as(pixels), generator, share)


def gaussian_blur(
    pixels: Float[Tensor, "B 3 S S"],
    generator: torch.Generator,
    *,
    share: float,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> Float[Tensor, "B 3 S S"]:
    """About a share of the images blurred, with a deviation in pixels uniform in `sigma`."""
    batch, channels, height, width = pixels.shape
    deviation = torch.empty(batch, 1).uniform_(*sigma, generator=generator)
    radius = min(math.ceil(2 * sigma[1]), (min(height, width) - 1) // 2)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(pixels).repeat_interleave(channels, dim=0)  # (BC, taps)
    flat = pixels.reshape(1, batch * channels, height, width)
    for line in (kernel[:, None, None, :], kernel[:, None, :, None]):
        padding = (radius, radius, 0, 0) if line.shape[-1] > 1 else (0, 0, radius, radius)
        flat = F.conv2d(F.pad(flat, padding, mode="reflect"), line, groups=batch * channels)
    return _some(pixels, flat.view_as(pixels), generator, share)


def solarize(pixels: Float[Tensor, "B 3 S S"], generator: torch.Generator, *, share: float) -> Float[Tensor, "B 3 S S"]:
    """About a share of the images with every value of at least a half inverted."""
    return _some(pixels, torch.where(pixels >= 0.5, 1 - pixels, pixels), generator, share)


def _grey(pixels: Tensor) -> Tensor:
    weights = pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def _some(pixels: Tensor, changed: Tensor, generator: torch.Generator, share: float) -> Tensor:
    chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator) < share
    return torch.where(chosen.to(pixels.device), changed, pixels)
