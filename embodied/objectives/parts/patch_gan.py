"""A discriminator of image patches, its losses, and the weight of the generator's. Legend: B batch, S image size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from embodied.core.errors import UsageError

MOST = 1e4  # of the adaptive weight


class PatchDiscriminator(nn.Module):
    """One logit per patch: positive = it thinks that the patch is of a real image.

    Isola et al. 2017 (https://arxiv.org/abs/1611.07004): convolutions of 4 x 4 with LeakyReLU, `layers` of stride 2.
    Departure: group norms where it has batch norms, so that a logit depends on its image alone, and processes and parts
    of a batch need not exchange statistics.

    Args:
        width: channels of the first convolution; doubled by each, up to 8 times.
        layers: of stride 2: how large a patch is. VQ-GAN's 3 see 70 x 70 pixels.

    Raises:
        UsageError: a number makes no sense.
    """

    def __init__(self, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if width < 8 or width % 8 or layers < 1:
            raise UsageError(
                f"discriminator_width must be a multiple of 8 and discriminator_layers at least 1, got {width} and "
                f"{layers}"
            )
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        here = width
        for number in range(1, layers + 1):
            after = width * min(2**number, 8)
            parts += [
                nn.Conv2d(here, after, 4, stride=2 if number < layers else 1, padding=1, bias=False),
                nn.GroupNorm(8, after),
                nn.LeakyReLU(0.2),
            ]
            here = after
        self.layers = nn.Sequential(*parts, nn.Conv2d(here, 1, 4, padding=1))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.02)

    def forward(self, images: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, "B 1 h w"]:
        return self.layers(images)


def hinge_loss(real: Float[Tensor, " *any"], drawn: Float[Tensor, " *any"]) -> Float[Tensor, ""]:
    """The discriminator's, from its logits of both (Lim and Ye 2017, https://arxiv.org/abs/1705.02894)."""
    return (F.relu(1 - real).mean() + F.relu(1 + drawn).mean()) / 2


def generator_loss(discriminator: nn.Module, drawn: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, ""]:
    """How little the discriminator believes in drawn images; its own weights get no gradient of it."""
    still = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return -functional_call(discriminator, still, (drawn,)).float().mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last: Tensor
) -> Float[Tensor, ""]:
    """What makes both losses pull as hard at the decoder's last layer (Esser et al. 2021, Eq. 7); at most 10,000."""
    wanted, opposed = (
        torch.autograd.grad(loss, last, retain_graph=True)[0].float().norm() for loss in (reconstruction, adversarial)
    )
    return (wanted / (opposed + 1e-4)).clamp(0.0, MOST).detach()
