"""Vectors to codes and back, once both are learned. Legend: B batch, N tokens, C code width, V codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError


class Codebook(nn.Module):
    """The nearest of V vectors (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

    Args:
        codes: V.
        width: C.
        unit: compare L2-normalised vectors, as BEiT v2 and ViT-VQGAN do; it keeps more codes in use.

    Raises:
        UsageError: there are too few codes or values.
    """

    def __init__(self, *, codes: int, width: int, unit: bool = True) -> None:
        super().__init__()
        if codes < 2 or width < 1:
            raise UsageError(f"codes must be at least 2 and code_width at least 1, got {codes} and {width}")
        self.vocabulary, self.width, self.unit = codes, width, unit
        self.book = nn.Parameter(F.normalize(torch.randn(codes, width), dim=1))

    def nearest(self, vectors: Float[Tensor, "... C"]) -> Int[Tensor, " *any"]:
        """The code of each vector; of several equally near ones the first."""
        vectors, book = self.scaled(vectors.float()), self.scaled(self.book.float())
        return (book.pow(2).sum(1) - 2 * vectors @ book.T).argmin(dim=-1)

    def lookup(self, codes: Int[Tensor, " *any"]) -> Float[Tensor, "... C"]:
        """The vector of each code."""
        return self.scaled(F.embedding(codes, self.book))

    def scaled(self, vectors: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        """What is compared: of length 1 where only directions count."""
        return F.normalize(vectors, dim=-1) if self.unit else vectors

    def config(self) -> dict[str, Any]:
        """What `make_codebook` rebuilds it from."""
        return {"codes": self.vocabulary, "width": self.width, "unit": self.unit}


class FSQ(nn.Module):
    """Finite scalar quantisation: each coordinate is bounded and rounded (Mentzer et al. 2024, arXiv 2309.15505).

    No codebook to learn and none to collapse; V is the product of the levels.

    Args:
        levels: values per coordinate, each at least 2; C is their number. The paper's 240 codes: (8, 6, 5).
    """

    def __init__(self, *, levels: Sequence[int] = (8, 6, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UsageError(f"levels must be whole numbers of at least 2, got {list(levels)}")
        self.width, self.vocabulary = len(levels), math.prod(levels)
        sizes = torch.tensor([int(level) for level in levels])
        self.levels: Tensor
        self.basis: Tensor
        self.register_buffer("levels", sizes, persistent=False)
        basis = torch.cat([torch.ones(1, dtype=sizes.dtype), sizes.cumprod(0)[:-1]])
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, vectors: Float[Tensor, "B N C"]) -> tuple[Tensor, Int[Tensor, " *any"], Float[Tensor, ""]]:
        """Quantised vectors in [-1, 1] with a straight-through gradient, codes, and a loss of 0."""
        bounded = self._bound(vectors.float())
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2), self._codes(rounded.detach()), vectors.new_zeros((), dtype=torch.float32)

    def nearest(self, vectors: Float[Tensor, "... C"]) -> Int[Tensor, " *any"]:
        """The code of each vector."""
        return self._codes(self._bound(vectors.float()).round())

    def lookup(self, codes: Int[Tensor, " *any"]) -> Float[Tensor, "... C"]:
        """The vector of each code."""
        half = self.levels // 2
        return (codes[..., None] // self.basis % self.levels - half) / half

    def update(self) -> None:
        """Nothing moves."""

    def config(self) -> dict[str, Any]:
        """What `make_codebook` rebuilds it from."""
        return {"levels": self.levels.tolist()}

    def _bound(self, vectors: Tensor) -> Tensor:
        """Coordinates so that rounding gives exactly `levels` values (Sec. 3, their `bound`)."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        return (vectors + (offset / half).atanh()).tanh() * half - offset

    def _codes(self, rounded: Tensor) -> Tensor:
        return ((rounded + self.levels // 2).long() * self.basis).sum(dim=-1)


def make_codebook(config: Mapping[str, Any]) -> Codebook | FSQ:
    """From the `config()` of one of them: by `levels` an FSQ, else a codebook."""
    return FSQ(**config) if "levels" in config else Codebook(**config)
