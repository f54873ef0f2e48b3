"""What is done to images or patches before the encoder sees them. Legend: B batch, S image size, N patches, M rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import UsageError


def low_frequencies(size: tuple[int, int], radius: float, device: torch.device) -> Bool[Tensor, "H W"]:
    """True = closer to the zero frequency than `radius`, in a spectrum with the zero frequency in the middle."""
    rows, columns = (torch.arange(side, device=device) - side // 2 for side in size)
    return (rows[:, None] ** 2 + columns[None, :] ** 2) < radius**2


def filter_frequencies(images: Float[Tensor, "B C S S"], kept: Bool[Tensor, "B S S"]) -> Float[Tensor, "B C S S"]:
    """The real part of each image with only the kept frequencies, zero frequency in the middle; not clamped."""
    shifted = torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1))
    return torch.fft.ifft2(torch.fft.ifftshift(shifted * kept[:, None], dim=(-2, -1))).real


def count_sketch(batch: int, patches: int, rank: int, generator: torch.Generator) -> Float[Tensor, "B N M"]:
    """Sketches S: each patch goes to one of `rank` buckets with a random sign (ROPIM Sec. 3).

    Buckets get equally many patches, and as many signs are plus as minus, both as in the released code.

    Args:
        batch: B.
        patches: N, a multiple of `rank`.
        rank: M.
        generator: a CPU generator.
    """
    if rank < 1 or patches % rank:
        raise UsageError(f"rank must divide the {patches} patches, got {rank}")
    bucket = torch.rand(batch, patches, generator=generator).argsort(dim=1) % rank
    sign = 1.0 - 2.0 * (torch.rand(batch, patches, generator=generator).argsort(dim=1) % 2)
    return torch.zeros(batch, patches, rank).scatter_(2, bucket[..., None], sign[..., None])


def projector(sketch: Float[Tensor, "B N M"]) -> Float[Tensor, "B N N"]:
    """P = (M / N) S S^T, an orthogonal projector of rank M for balanced buckets (ROPIM Eq. 4)."""
    patches, rank = sketch.shape[1:]
    return rank / patches * sketch @ sketch.transpose(1, 2)


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of an image is left at time t of T: abar_t = prod_s (1 - beta_s).

    Betas rise linearly from 1e-4 to 0.02, as for T = 1000 (DDPM, arXiv 2006.11239) and stretched for another T.
    `exponent` raises abar to a power: above 1 there is more noise at every time (DiffMAE's rho).
    """

    times: int = 1000
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.times < 1 or self.exponent <= 0:
            raise UsageError(f"times must be at least 1 and exponent positive, got {self.times} and {self.exponent}")

    def kept(self) -> Float[Tensor, " T"]:
        """abar_t for t = 1 ... T, float32."""
        scale = 1000 / self.times
        beta = torch.linspace(1e-4 * scale, 0.02 * scale, self.times, dtype=torch.float64).clamp(max=0.999)
        return ((1 - beta).cumprod(0) ** self.exponent).float()


def add_noise(
    clean: Float[Tensor, "B N C"], noise: Float[Tensor, "B N C"], kept: Float[Tensor, " B"]
) -> Float[Tensor, "B N C"]:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise, one abar per image."""
    abar = kept[:, None, None].to(clean)
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


def time_embedding(times: Float[Tensor, " B"], width: int) -> Float[Tensor, "B D"]:
    """Sines and cosines of a time in [0, 1], as of positions 0 to 1000."""
    frequency = torch.exp(-math.log(10000) * torch.arange(width // 2, device=times.device) / (width // 2))
    angle = 1000 * times[:, None] * frequency[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def subset(batch: int, size: int, count: int, generator: torch.Generator) -> Bool[Tensor, "B N"]:
    """True for exactly `count` of `size` places of each row, drawn uniformly: which positions are kept, say."""
    order = torch.rand(batch, size, generator=generator).argsort(dim=1)
    return torch.zeros(batch, size, dtype=torch.bool).scatter_(1, order[:, :count], True)
