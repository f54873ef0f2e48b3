"""Random numbers of heads: handed in, or drawn from a generator.

All noise is standard normal, so one source serves every head: where a choice is needed, its uniform number is the
normal distribution function of the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embodied.core.errors import UsageError


def draw_normal(shape: tuple[int, ...], generator: torch.Generator | None, *, like: Tensor) -> Tensor:
    """Standard normal numbers with the dtype and on the device of `like`, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator | None, *, like: Tensor) -> Tensor:
    """Numbers in [0, 1) with the dtype and on the device of `like`, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def given_or_drawn(
    noise: Tensor | None, shape: tuple[int, ...], generator: torch.Generator | None, *, like: Tensor
) -> Tensor:
    """`noise` if it was given, else standard normal noise from `generator`.

    Raises:
        UsageError: the given noise is not of that shape.
    """
    if noise is None:
        return draw_normal(shape, generator, like=like)
    if tuple(noise.shape) != shape:
        raise UsageError(f"noise: expected {list(shape)} (see noise_shape), got {list(noise.shape)}")
    return noise.to(device=like.device, dtype=like.dtype)


def choose(probabilities: Float[Tensor, "*batch C"], noise: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """One of C choices from standard normal noise: the first whose cumulated probability exceeds Phi(noise)."""
    uniform = torch.special.ndtr(noise).clamp(max=1 - 1e-6)
    cumulated = probabilities.cumsum(dim=-1) / probabilities.sum(dim=-1, keepdim=True)
    return (cumulated <= uniform[..., None]).sum(dim=-1).clamp(max=probabilities.shape[-1] - 1)


@contextmanager
def dropout_from(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Inside, dropout draws from a seed that `generator` gives; the global generators are as before afterwards.

    Torch's dropout reads the global generator of its device and takes no other. Without a generator nothing is done.
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield
