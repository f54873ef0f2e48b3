"""Losses with their reduction spelled out. Legend: B batch, N tokens, C classes or channels, S image size, D width,
Q negatives."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.nn import functional as F

from embodied.core.errors import unknown_name

Reduction = Literal["batch", "image"]
REDUCTIONS = ("batch", "image")


def masked_mean(
    values: Float[Tensor, "B ..."], mask: Float[Tensor, "B ..."], *, reduction: Reduction
) -> Float[Tensor, ""]:
    """Mean of `values` where `mask` is 1.

    Args:
        values: float.
        mask: 1 or True = counts; of the same shape.
        reduction: `batch`: over all that counts in the batch (MAE, BEiT). `image`: per image, then over images; an
            image where nothing counts gives 0 and still counts as an image (iBOT, DINOv2).
    """
    weight = mask.to(values.dtype)
    if reduction == "batch":
        return (values * weight).sum() / weight.sum().clamp(min=1)
    if reduction == "image":
        return ((values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)).mean()
    raise unknown_name("reduction", reduction, REDUCTIONS)


def squared_error(prediction: Float[Tensor, "B N C"], target: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
    """Mean over channels of the squared difference, in float32 under autocast too."""
    return (prediction - target).pow(2).mean(dim=-1)


def absolute_error(prediction: Float[Tensor, "B N C"], target: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
    """Mean over channels of the absolute difference."""
    return (prediction - target).abs().mean(dim=-1)


def code_error(logits: Float[Tensor, "B N C"], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Cross-entropy of each token with its class."""
    return F.cross_entropy(logits.float().transpose(1, 2), codes, reduction="none")


def soft_code_error(logits: Float[Tensor, "B N C"], probabilities: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
    """Cross-entropy of each token with a distribution over classes."""
    return -(probabilities * logits.float().log_softmax(dim=-1)).sum(dim=-1)


def contrast_error(
    queries: Float[Tensor, "B ... D"],
    positives: Float[Tensor, "B ... D"],
    negatives: Float[Tensor, "Q D"],
    *,
    temperature: float,
) -> Float[Tensor, "B ..."]:
    """InfoNCE: cross-entropy of telling each query's positive from negatives that all queries share (MoCo Eq. 1).

    Args:
        queries: of length 1.
        positives: of length 1, one per query.
        negatives: of length 1.
        temperature: cosines are divided by.
    """
    alike = (queries.float() * positives.float()).sum(dim=-1, keepdim=True)
    logits = torch.cat([alike, F.linear(queries.float(), negatives.float()).float()], dim=-1) / temperature
    return -logits.log_softmax(dim=-1)[..., 0]


def spectrum(images: Float[Tensor, "B C S S"]) -> Complex[Tensor, "B C S S"]:
    """Orthonormal 2-D Fourier transform, zero frequency first; always in float32."""
    return torch.fft.fft2(images.float(), norm="ortho")


def frequency_error(
    prediction: Float[Tensor, "B C S S"], target: Float[Tensor, "B C S S"], *, gamma: float = 1.0
) -> Float[Tensor, "B C S S"]:
    """|F(prediction) - F(target)|^gamma per frequency, zero frequency first (MFM Eq. 5).

    With gamma 2 its mean over all frequencies is the mean squared error of the pixels (Parseval).
    """
    difference = spectrum(prediction) - spectrum(target)
    # The small constant keeps the gradient finite where a frequency is met exactly (released code).
    return (difference.real.square() + difference.imag.square() + 1e-12).pow(gamma / 2)


def koleo(features: Float[Tensor, "B D"], *, eps: float = 1e-8) -> Float[Tensor, ""]:
    """Kozachenko-Leonenko: minus the mean log distance of each L2-normalised feature to its nearest (DINOv2).

    It is lowest where features spread evenly over the sphere.
    """
    unit = F.normalize(features.float(), dim=-1, eps=eps)
    with torch.no_grad():
        similar = unit @ unit.T
        similar.fill_diagonal_(-1)
        nearest = similar.argmax(dim=1)
    # pairwise_distance's own eps, added to the difference, as DINOv2's loss.
    return -(F.pairwise_distance(unit, unit[nearest], 2, eps) + eps).log().mean()
