"""Several views of each image. Legend: B batch, S image size, V views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.augment import colour_jitter, gaussian_blur, grey_scale, random_resized_crop, solarize

GLOBAL = 2  # views that the teacher sees


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Two large views and several small ones of each image (SwAV, DINO, iBOT).

    Attributes:
        local_crops: small views per image.
        local_patches: their side in patches; the papers' 6 of 14.
        global_scale, local_scale: area of a view over the image's, at least and at most.
        strength: of the colour changes: 1 is the papers' jitter (0.4, 0.4, 0.2, 0.1) of 80 % of the views, grey 20 %,
            blur of all, 10 % and 50 % of the first, second and small views, the second one solarised in 20 %; 0 none.
        flip: mirror half of the views.
    """

    local_crops: int
    local_patches: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    strength: float
    flip: bool

    def __post_init__(self) -> None:
        if self.local_crops < 0 or self.local_patches < 1 or not 0 <= self.strength <= 1:
            raise UsageError(
                "local_crops must not be negative, local_patches at least 1 and strength in [0, 1], got "
                f"{self.local_crops}, {self.local_patches} and {self.strength}"
            )

    def __call__(
        self, encoder: ViTEncoder, images: Float[Tensor, "B 3 S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "VB 3 S S"], Float[Tensor, "VB 3 S2 S2"]]:
        """Large and small views of preprocessed images, view by view: the first B rows are the first view.

        Args:
            encoder: whose preprocessing made the images.
            images: normalised.
            generator: a CPU generator.
        """
        mean, std = encoder.normalize.mean, encoder.normalize.std
        pixels = (images * std + mean).clamp(0, 1)
        side = self.local_patches * encoder.vit.patch_size
        blurred = (1.0, 0.1)
        large = [
            change_colours(
                random_resized_crop(pixels, generator, scale=self.global_scale, flip=self.flip),
                generator,
                strength=self.strength,
                blur=blurred[number],
                solarized=0.2 * number,
            )
            for number in range(GLOBAL)
        ]
        small = [
            change_colours(
                random_resized_crop(pixels, generator, scale=self.local_scale, flip=self.flip, size=(side, side)),
                generator,
                strength=self.strength,
                blur=0.5,
                solarized=0.0,
            )
            for _ in range(self.local_crops)
        ]
        none = pixels.new_zeros(0, 3, side, side)
        return (torch.cat(large) - mean) / std, (torch.cat([*small, none]) - mean) / std


def change_colours(
    pixels: Float[Tensor, "B 3 S S"], generator: torch.Generator, *, strength: float, blur: float, solarized: float
) -> Float[Tensor, "B 3 S S"]:
    """The papers' changes of a view, see `MultiCrop`.

    Args:
        pixels: in [0, 1].
        generator: a CPU generator.
        strength: of all of them; with 0 nothing is drawn.
        blur, solarized: shares of the views at strength 1.
    """
    if strength == 0:
        return pixels
    jittered = colour_jitter(
        pixels,
        generator,
        brightness=0.4 * strength,
        contrast=0.4 * strength,
        saturation=0.2 * strength,
        hue=0.1 * strength,
    )
    chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.8
    pixels = torch.where(chosen.to(pixels.device), jittered, pixels)
    pixels = grey_scale(pixels, generator, share=0.2 * strength)
    pixels = gaussian_blur(pixels, generator, share=blur * strength)
    return solarize(pixels, generator, share=solarized * strength)
