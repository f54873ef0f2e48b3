"""VQ: a tokenizer of frames, for BEiT and the models of videos (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937;
VQ-GAN: Esser et al. 2021, https://arxiv.org/abs/2012.09841; codes by finite scalars: Mentzer et al. 2024,
https://arxiv.org/abs/2309.15505).

Legend: B batch, S image size, P patch size, N patches, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.encoders.artifact import build_encoder
from embodied.encoders.pyramid import PyramidEncoder
from embodied.encoders.tokenizer import FOLDER, FrameTokenizer
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import FSQ, Codebook
from embodied.models.pyramid import PyramidUp
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.patch_gan import PatchDiscriminator, adaptive_weight, generator_loss, hinge_loss
from embodied.objectives.parts.perceptual import NETWORK, PerceptualDistance
from embodied.objectives.parts.quantizers import VectorQuantizer, code_use
from embodied.objectives.parts.settings import area_range, at_least
from embodied.objectives.parts.tokenizer import DECODER

QUANTIZERS = ("ema", "gradient", "fsq")
NETWORKS = {"vit": ViTEncoder, "conv": PyramidEncoder}
PIXELS = ("mse", "l1")


class VQ(nn.Module):
    """Encode, choose a code for every patch, decode the pixels from the codes (Fig. 1).

    With the defaults a small VQ-VAE whose encoder and decoder are vision transformers (ViT-VQGAN, arXiv 2110.04627), so
    that there is one code per patch of the network that is trained on them. `objective=vqgan` is VQ-GAN: convolutions,
    absolute errors, a perceptual distance and a discriminator of patches. In both, codes are compared on the unit
    sphere, moved by averages, and dead ones restarted; VQ-GAN's own codebook has a loss (`quantizer=gradient`).

    Departures from VQ-GAN: generator and discriminator take one step together, from one backward pass, with one
    optimiser and learning rate; see `PyramidDown`, `PatchDiscriminator` and `PerceptualDistance` for the networks. In
    eval mode, of which the held-out loss is, the adversarial term is left out: it measures two nets, not one.

    Args:
        encoder: the ViT or `PyramidEncoder` to train.
        quantizer: `ema` (codes follow averages), `gradient` (codes have a loss) or `fsq` (no codebook at all).
        codes, code_width: V and the width of a code; of `ema` and `gradient`.
        levels: of `fsq`; V is their product.
        average: decay of `ema`.
        commitment: weight of the loss that draws vectors to codes.
        restart_below: see `VectorQuantizer`.
        decoder: `vit` or `conv`; None: as the encoder.
        decoder_width, decoder_depth, decoder_heads: of the decoder; a convolutional one has no heads.
        pixels: the error of pixels, `mse` or `l1`.
        perceptual: weight of the perceptual distance; 0: none.
        perceptual_network: see `PerceptualDistance`.
        adversarial: weight of the generator's loss, on top of the adaptive one; 0: no discriminator.
        adversarial_start: the first step with a discriminator: it is of use once pictures are about right.
        discriminator_width, discriminator_layers: see `PatchDiscriminator`.
        crop_scale: of the random resized crop.

    Raises:
        UsageError: there is no such choice, or a number makes no sense.
    """

    def __init__(
        self,
        encoder: ViTEncoder | PyramidEncoder,
        *,
        quantizer: str = "ema",
        codes: int = 512,
        code_width: int = 16,
        levels: Sequence[int] = (8, 8, 8),
        average: float = 0.99,
        commitment: float = 0.25,
        restart_below: float = 0.03,
        decoder: str | None = None,
        decoder_width: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        pixels: str = "mse",
        perceptual: float = 0.0,
        perceptual_network: str = NETWORK,
        adversarial: float = 0.0,
        adversarial_start: int = 0,
        discriminator_width: int = 64,
        discriminator_layers: int = 3,
        crop_scale: tuple[float, float] = (0.6, 1.0),
    ) -> None:
        super().__init__()
        if pixels not in PIXELS:
            raise unknown_name("pixels", pixels, PIXELS)
        if min(perceptual, adversarial, adversarial_start) < 0:
            raise UsageError(
                "perceptual, adversarial and adversarial_start must not be negative, got "
                f"{perceptual}, {adversarial} and {adversarial_start}"
            )
        self.crop_scale, self.pixels = area_range("crop_scale", crop_scale), pixels
        self.perceptual_weight, self.adversarial_weight = float(perceptual), float(adversarial)
        self.adversarial_start = adversarial_start
        self.tokenizer = FrameTokenizer(
            encoder=encoder,
            quantizer=_quantizer(quantizer, codes, code_width, levels, average, commitment, restart_below),
            decoder=_decoder(encoder, decoder, width=decoder_width, depth=decoder_depth, heads=decoder_heads),
        )
        self.perceptual = PerceptualDistance(perceptual_network, normalize=encoder.normalize) if perceptual else None
        self.discriminator = (
            PatchDiscriminator(width=discriminator_width, layers=discriminator_layers) if adversarial else None
        )
        self.steps_done: Tensor
        if adversarial:
            self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    @classmethod
    def make_image_encoder(cls, settings: Mapping[str, Any]) -> ViTEncoder | PyramidEncoder:
        """The encoder that `encoder.*` of the configuration says; `network` is `vit` or `conv`.

        Raises:
            UsageError: there is no such network, or it has no such setting.
        """
        given = {str(key): value for key, value in settings.items() if value is not None}
        kind = str(given.pop("network", "vit"))
        if kind not in NETWORKS:
            raise unknown_name("encoder.network", kind, NETWORKS)
        if kind == "conv":
            given.pop("heads", None)  # a default of the configuration, for transformers
        try:
            return NETWORKS[kind](**given)
        except TypeError as error:
            raise UsageError(f"encoder: {error}, with encoder.network={kind}") from error

    @property
    def encoder(self) -> ViTEncoder | PyramidEncoder:
        """The network that is trained, without codes."""
        found: ViTEncoder | PyramidEncoder = self.tokenizer.encoder
        return found

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch, its parts without their weights, and how many codes are in use."""
        images = self.encoder.preprocess(batch["images"])
        images = random_resized_crop(images, generator, scale=self.crop_scale)
        drawn, codes, draw = self.predict(images)
        difference = drawn - images
        error = difference.pow(2).mean() if self.pixels == "mse" else difference.abs().mean()
        metrics = {"pixel_error": error, "code_error": draw}
        if self.perceptual is not None:
            metrics["perceptual_error"] = self.perceptual(drawn, images)
            error = error + self.perceptual_weight * metrics["perceptual_error"]
        loss = error + draw
        if self.discriminator is not None and self.training and torch.is_grad_enabled():
            opposed, found = self._opposed(self.discriminator, drawn, images, error)
            loss, metrics = loss + opposed, metrics | found
        use = code_use(codes, self.tokenizer.vocabulary)
        return loss, {**{name: value.detach() for name, value in metrics.items()}, **use}

    def predict(
        self, images: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "B 3 S S"], Int[Tensor, "B N"], Float[Tensor, ""]]:
        """Images decoded from codes, the codes, and the quantiser's loss."""
        quantizer = self.tokenizer.quantizer
        assert isinstance(quantizer, VectorQuantizer | FSQ)
        quantized, codes, draw = quantizer(self.tokenizer.vectors(images))
        return self.tokenizer.decode_vectors(quantized), codes, draw

    def _opposed(
        self, discriminator: nn.Module, drawn: Tensor, images: Tensor, error: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Both adversarial losses, and their parts. Before it starts, the discriminator waits."""
        if int(self.steps_done) < self.adversarial_start:
            # Not nothing: a weight without a gradient stops processes that train together.
            return torch.stack([0 * part.sum() for part in discriminator.parameters()]).sum(), {}
        doubted = generator_loss(discriminator, drawn)
        weight = adaptive_weight(error, doubted, self._last_layer())
        both = discriminator(torch.cat([images, drawn.detach()]))
        hinge = hinge_loss(*both.float().chunk(2))
        parts = {"adversarial_error": doubted, "adversarial_weight": weight, "discriminator_error": hinge}
        return self.adversarial_weight * weight * doubted + hinge, parts

    def _last_layer(self) -> Tensor:
        decoder = self.tokenizer.decoder
        return decoder.last.weight if isinstance(decoder, PyramidUp) else decoder.head.weight

    def after_step(self, step: int, steps: int) -> None:
        """Move the codes, and count."""
        quantizer = self.tokenizer.quantizer
        assert isinstance(quantizer, VectorQuantizer | FSQ)
        quantizer.update()
        if self.discriminator is not None:
            self.steps_done.fill_(step)

    def exports(self) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        """Of a ViT its half that names patches, a file of its own beside the encoder: BEiT's tokenizer."""
        if not isinstance(self.encoder, ViTEncoder):
            return {}
        frozen = self.frozen()
        state = {name: part for name, part in frozen.state_dict().items() if not name.startswith(DECODER)}
        return {"tokenizer": (state, {"encoder": self.encoder.config(), "quantizer": frozen.quantizer.config()})}

    def artifacts(self) -> dict[str, nn.Module]:
        """Further encoders to save beside the one that was trained, by their folders: the tokenizer."""
        return {FOLDER: self.frozen()}

    def frozen(self) -> FrameTokenizer:
        """A copy of the tokenizer that is done with learning: without averages of codes."""
        copy = build_encoder(self.tokenizer.config())
        assert isinstance(copy, FrameTokenizer)
        ours = self.tokenizer.state_dict()
        copy.load_state_dict({name: ours[name].cpu() for name in copy.state_dict()})
        return copy.eval()

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Pictures to look at: decoded from codes, original; each uint8 [B, S, S, 3]."""
        images = self.encoder.preprocess(frames)
        drawn, _, _ = self.predict(images)
        return [self.encoder.normalize.inverse(part) for part in (drawn, images)]


def _quantizer(
    kind: str,
    codes: int,
    width: int,
    levels: Sequence[int],
    average: float,
    commitment: float,
    restart_below: float,
) -> Codebook | FSQ:
    if kind not in QUANTIZERS:
        raise unknown_name("quantizer", kind, QUANTIZERS)
    if kind == "fsq":
        return FSQ(levels=levels)
    moved = average if kind == "ema" else None
    return VectorQuantizer(codes=codes, width=width, average=moved, commitment=commitment, restart_below=restart_below)


def _decoder(
    encoder: ViTEncoder | PyramidEncoder, kind: str | None, *, width: int, depth: int, heads: int
) -> dict[str, Any]:
    """The settings of `encoders.tokenizer.make_decoder`."""
    kind = kind or ("conv" if isinstance(encoder, PyramidEncoder) else "vit")
    if kind not in NETWORKS:
        raise unknown_name("decoder", kind, NETWORKS)
    at_least(1, decoder_width=width, decoder_heads=heads)
    sizes = {"kind": kind, "width": width, "depth": depth}
    return {**sizes, "heads": heads} if kind == "vit" else {**sizes, "stem": int(encoder.config().get("stem", 1))}
