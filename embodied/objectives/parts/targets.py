"""What is predicted. Legend: B batch, S image size, P patch size, N patches, C channels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.models.patches import patchify

FLAT_VARIANCE = 1e-4  # of a patch of the normalised image; below it a per-patch normalised target is mostly noise


def normalize_patches(patches: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
    """Each patch minus its mean, over its deviation: unbiased variance, eps 1e-6 inside the root (MAE)."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def denormalize_patches(values: Float[Tensor, "B N C"], patches: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
    """Predicted normalised patches with the mean and deviation of the true ones, to be looked at."""
    deviation = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return values * deviation + patches.mean(dim=-1, keepdim=True)


def pixel_target(images: Float[Tensor, "B 3 S S"], patch_size: int, *, normalize: bool) -> Float[Tensor, "B N PPC"]:
    """Patches of the normalised image, each normalised by itself if asked."""
    patches = patchify(images, patch_size)
    return normalize_patches(patches) if normalize else patches


def next_patch(patches: Float[Tensor, "B N C"]) -> Float[Tensor, "B M C"]:
    """What outputs 0 to N - 2 predict: the patch that follows each in raster order (AIM); M = N - 1."""
    return patches[:, 1:]


@torch.no_grad()
def flat_share(images: Float[Tensor, "B 3 S S"], patch_size: int) -> Float[Tensor, ""]:
    """The share of patches with next to no variance: of a robot's table, say."""
    patches = patchify(images, patch_size)
    # The mean of squares less the squared mean: ten times as fast on a CPU as `var`, and the threshold is coarse.
    variance = patches.square().mean(dim=-1) - patches.mean(dim=-1).square()
    return (variance < FLAT_VARIANCE).float().mean()
