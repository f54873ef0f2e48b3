"""Histograms of oriented gradients. Legend: B batch, C channels, S image size, P patch size, N patches."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BINS = 9


def hog_cells(images: Float[Tensor, "B C S S"], *, cell: int = 8, gaussian: bool = False) -> Float[Tensor, "B C O R Q"]:
    """Unnormalised histograms of each channel's cells, [B, C, 9 orientations, cell rows, cell columns].

    Sobel gradients (cross-correlation, reflected border), magnitude into the bin floor(9 * angle / pi) mod 9 of the
    angle atan2(gx, gy), summed over a cell; no interpolation between bins or cells.

    Source: MaskFeat's released code (SlowFast). Its arguments of atan2 are the other way round than usual; kept.

    Args:
        images: float.
        cell: side in pixels; S must be a multiple.
        gaussian: weigh magnitudes by a 16 x 16 Gaussian of deviation 8, tiled: mmpretrain's port does, MaskFeat not.
    """
    return orientation_cells(*sobel(images), cell=cell, gaussian=gaussian)


def sobel(images: Float[Tensor, "B C S S"]) -> tuple[Float[Tensor, "B C S S"], Float[Tensor, "B C S S"]]:
    """Gradients across and down: left minus right and above minus below, as the kernels are correlated."""
    kernel = images.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = torch.stack([kernel, kernel.T])[:, None]  # (2, 1, 3, 3)
    batch, channels, height, width = images.shape
    padded = F.pad(images.reshape(batch * channels, 1, height, width), (1, 1, 1, 1), mode="reflect")
    gradient = F.conv2d(padded, kernels).unflatten(0, (batch, channels))  # (B, C, 2, S, S)
    return gradient[:, :, 0], gradient[:, :, 1]


def orientation_cells(
    across: Float[Tensor, "B C S S"], down: Float[Tensor, "B C S S"], *, cell: int, gaussian: bool = False
) -> Float[Tensor, "B C O R Q"]:
    """The histograms of given gradients; see `hog_cells`."""
    batch, channels, height, width = across.shape
    magnitude = (across.square() + down.square()).sqrt()
    if gaussian:
        magnitude = magnitude * _tiled_gaussian(height, width).to(magnitude)
    orientation = (torch.atan2(across, down) / math.pi * BINS).floor().long() % BINS
    weighted = F.one_hot(orientation, BINS).permute(0, 1, 4, 2, 3) * magnitude[:, :, None]  # (B, C, 9, S, S)
    cells = F.avg_pool2d(weighted.flatten(0, 1), cell) * cell**2
    return cells.unflatten(0, (batch, channels))


def _tiled_gaussian(height: int, width: int, *, side: int = 16, deviation: float = 8.0) -> Float[Tensor, "H W"]:
    place = torch.arange(side) - (side - 1) / 2
    line = torch.exp(-0.5 * (place / deviation) ** 2)
    tile = line[:, None] * line[None, :]
    return tile.repeat(-(-height // side), -(-width // side))[:height, :width] / tile.sum()


@torch.no_grad()
def hog_target(
    images: Float[Tensor, "B 3 S S"],
    patch_size: int,
    *,
    cell: int = 8,
    gaussian: bool = False,
    floor: float = 0.01,
) -> tuple[Float[Tensor, "B N O"], Float[Tensor, ""]]:
    """Histograms of each patch, L2-normalised per cell and channel, and the share of cells without any gradient.

    A vector is ordered channel, bin, row and column of the cell: 3 * 9 * (P / cell)^2 values.

    Args:
        images: normalised; scaling a channel or adding to it changes nothing.
        patch_size: P, a multiple of `cell`.
        cell: side of a cell in pixels.
        gaussian: see `hog_cells`.
        floor: least norm that is divided by: below it a histogram stays short instead of becoming noise. An edge of one
            grey level has 0.07 per pixel, the rounding errors of a resized flat area 1e-4 in all.
    """
    cells = hog_cells(images.float(), cell=cell, gaussian=gaussian)
    norm = cells.norm(dim=2, keepdim=True)
    per_patch = patch_size // cell
    unit = cells / norm.clamp(min=floor)
    target = rearrange(unit, "b c o (h p) (w q) -> b (h w) (c o p q)", p=per_patch, q=per_patch)
    return target, (norm <= floor).float().mean()
