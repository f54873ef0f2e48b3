"""Pictures of what an objective predicts. Legend: B batch, S image size, N patches."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor

from embodied.encoders.vit import ViTEncoder
from embodied.models.patches import patchify, unpatchify
from embodied.objectives.parts.targets import denormalize_patches


def patch_pictures(
    encoder: ViTEncoder,
    images: Float[Tensor, "B 3 S S"],
    prediction: Float[Tensor, "B N PPC"],
    mask: Float[Tensor, "B N"],
    *,
    normalized: bool,
) -> list[UInt8[Tensor, "B S S 3"]]:
    """Masked input, prediction in the gaps, original.

    Args:
        encoder: whose preprocessing made `images`.
        images: normalised.
        prediction: of every patch.
        mask: 1 = removed.
        normalized: the prediction is of per-patch normalised pixels: each patch then gets the mean and deviation of
            the true one, else it cannot be looked at.
    """
    vit = encoder.vit
    patches = patchify(images, vit.patch_size)
    if normalized:
        prediction = denormalize_patches(prediction, patches)
    hidden = mask[..., None]
    shown = (patches * (1 - hidden), patches * (1 - hidden) + prediction * hidden, patches)
    return [encoder.normalize.inverse(unpatchify(part, vit.patch_size, vit.grid[0])) for part in shown]
