"""How different two images look to a network. Legend: B batch, S image size, N tokens, D width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.encoders.preprocessing import Normalize

NETWORK = "default@2+4+6"
_FROZEN = "network."


class PerceptualDistance(nn.Module):
    """Mean squared difference of what a frozen image encoder says of two images, at several depths.

    The idea is LPIPS' (Zhang et al. 2018, https://arxiv.org/abs/1801.03924), which VQ-GAN trains with. Its VGG-16 and
    its weights fitted to people's judgements cannot be had offline; in their place stands the encoder that comes with
    this package, whose masked autoencoding on simulator frames and photographs knows edges and parts. Tokens of each
    layer are normalised (zero mean, unit variance, so that no layer drowns the others) and count alike, where LPIPS
    normalises channels to length 1 and weighs them. Values are not comparable to LPIPS'.

    Args:
        network: any frozen image encoder by name, see `encoders.load.load_encoder`.
        normalize: what made the images that are compared.

    Raises:
        UsageError: the network does not say how it normalises pixels, or learns along.
    """

    def __init__(self, network: str = NETWORK, *, normalize: Normalize) -> None:
        super().__init__()
        self.network: Any = load_encoder(network, state_dim=1)
        within = getattr(self.network, "encoder", self.network)
        theirs = getattr(within, "normalize", None)
        if not isinstance(theirs, Normalize) or getattr(self.network, "trainable", False):
            raise UsageError(
                f"perceptual_network={network} does not work: choose a frozen vision transformer, such as {NETWORK}"
            )
        self.ours, self.theirs = normalize, theirs
        self.network_print: Tensor
        digest = list(bytes.fromhex(fingerprint(self.network)))
        self.register_buffer("network_print", torch.tensor(digest, dtype=torch.uint8))
        self.register_state_dict_post_hook(_leave_network_out)
        self.register_load_state_dict_pre_hook(_keep_network)

    def forward(self, images: Float[Tensor, "B 3 S1 S2"], targets: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, ""]:
        """The mean over the batch; images and targets are normalised by `normalize`."""
        with torch.no_grad():
            expected, _ = self.network(self._as_theirs(targets))
        found, _ = self.network(self._as_theirs(images))
        return (found.float() - expected.float()).pow(2).mean()

    def _as_theirs(self, images: Tensor) -> Tensor:
        pixels = images.float() * self.ours.std + self.ours.mean
        if pixels.shape[-2:] != self.theirs.size:
            pixels = F.interpolate(pixels, size=self.theirs.size, mode="bilinear", antialias=True, align_corners=False)
        return (pixels - self.theirs.mean) / self.theirs.std

    def train(self, mode: bool = True) -> PerceptualDistance:
        """The network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self


def _leave_network_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(prefix + _FROZEN)]:
        del state[name]


def _keep_network(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    assert isinstance(module, PerceptualDistance)
    saved = state.get(prefix + "network_print")
    if saved is not None and not torch.equal(saved.cpu(), module.network_print.cpu()):
        raise UserError("this training had another perceptual_network: give the same one to go on with it")
    ours: Mapping[str, Tensor] = module.network.state_dict()
    state.update({prefix + _FROZEN + name: tensor for name, tensor in ours.items()})
