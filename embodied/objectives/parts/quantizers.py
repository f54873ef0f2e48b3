"""Vectors to codes and back. Legend: B batch, N tokens, C code width, V codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.objectives.parts.distributed import from_first_process, sum_over_processes


class VectorQuantizer(nn.Module):
    """The nearest of V learned vectors (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

    Codes are moved by the exponential average of the vectors that chose them (its Appendix A), or by a loss of their
    own; a code that next to nobody chooses is replaced by a vector of the present batch. All of that happens in
    `update`, so that gradient accumulation and several processes see the same codes within a step.

    Args:
        codes: V.
        width: C.
        average: move codes by averages with this decay; None: by gradient (Eq. 3, second term).
        commitment: weight of the loss that draws vectors to their codes.
        restart_below: a code whose average share of choices is below this times 1 / V starts anew; 0 never.
        unit: compare L2-normalised vectors, as BEiT v2 and ViT-VQGAN do; it keeps more codes in use.
    """

    def __init__(
        self,
        *,
        codes: int,
        width: int,
        average: float | None = 0.99,
        commitment: float = 0.25,
        restart_below: float = 0.03,
        unit: bool = True,
    ) -> None:
        super().__init__()
        if codes < 2 or width < 1:
            raise UsageError(f"codes must be at least 2 and code_width at least 1, got {codes} and {width}")
        if average is not None and not 0 < average < 1:
            raise UsageError(f"average must be in (0, 1) or null, got {average}")
        self.vocabulary, self.width, self.average, self.unit = codes, width, average, unit
        self.commitment, self.restart_below = commitment, restart_below
        start = F.normalize(torch.randn(codes, width), dim=1)
        self.book = nn.Parameter(start, requires_grad=average is None)
        self.share: Tensor
        self.sums: Tensor
        self.register_buffer("share", torch.full((codes,), 1 / codes))  # moving average of each code's share
        self.register_buffer("sums", start / codes)  # moving average of the sum of its vectors, per vector
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, vectors: Float[Tensor, "B N C"]) -> tuple[Tensor, Int[Tensor, " *any"], Float[Tensor, ""]]:
        """Quantised vectors with the gradient of the given ones (straight through), codes, and loss."""
        vectors = self._scaled(vectors.float())
        codes = self.nearest(vectors)
        chosen = self.lookup(codes)
        loss = self.commitment * (vectors - chosen.detach()).pow(2).mean()
        if self.average is None:
            loss = loss + (chosen - vectors.detach()).pow(2).mean()
        if self.training and torch.is_grad_enabled():
            flat = vectors.detach().flatten(0, 1)
            counts = torch.bincount(codes.flatten(), minlength=self.vocabulary).float()
            sums = torch.zeros_like(self.sums).index_add_(0, codes.flatten(), flat)
            self._pending.append((counts, sums, flat))
        return vectors + (chosen - vectors).detach(), codes, loss

    def nearest(self, vectors: Float[Tensor, "... C"]) -> Int[Tensor, " *any"]:
        """The code of each vector; of several equally near ones the first."""
        vectors, book = self._scaled(vectors.float()), self._scaled(self.book.float())
        return (book.pow(2).sum(1) - 2 * vectors @ book.T).argmin(dim=-1)

    def lookup(self, codes: Int[Tensor, " *any"]) -> Float[Tensor, "... C"]:
        """The vector of each code."""
        return self._scaled(F.embedding(codes, self.book))

    @torch.no_grad()
    def update(self) -> None:
        """Move the codes after an optimiser step; all processes end with the same ones."""
        if not self._pending:
            return
        counts = sum_over_processes(torch.stack([part[0] for part in self._pending]).sum(0))
        sums = sum_over_processes(torch.stack([part[1] for part in self._pending]).sum(0))
        seen, total = torch.cat([part[2] for part in self._pending]), counts.sum()
        self._pending = []
        decay = 0.99 if self.average is None else self.average
        self.share.lerp_(counts / total, 1 - decay)
        self.sums.lerp_(sums / total, 1 - decay)
        if self.average is not None:
            self.book.copy_(self.sums / self.share.clamp(min=1e-8)[:, None])
        self._restart(seen)

    def _restart(self, seen: Float[Tensor, "M C"]) -> None:
        """Replace dead codes by vectors spread over the batch: which ones depends on nothing random."""
        dead = (self.share * self.vocabulary < self.restart_below).nonzero()[:, 0]
        if len(dead) == 0:
            return
        chosen = from_first_process(seen[torch.arange(len(dead), device=seen.device) * len(seen) // len(dead)].clone())
        self.book[dead] = chosen
        self.share[dead] = 1 / self.vocabulary  # a fresh start: it has the time of an average code to prove itself
        self.sums[dead] = chosen / self.vocabulary

    def _scaled(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.unit else vectors


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

    def _bound(self, vectors: Tensor) -> Tensor:
        """Coordinates so that rounding gives exactly `levels` values (Sec. 3, their `bound`)."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        return (vectors + (offset / half).atanh()).tanh() * half - offset

    def _codes(self, rounded: Tensor) -> Tensor:
        return ((rounded + self.levels // 2).long() * self.basis).sum(dim=-1)


@torch.no_grad()
def code_use(codes: Int[Tensor, " *any"], vocabulary: int) -> dict[str, Float[Tensor, ""]]:
    """`perplexity`, exp of the entropy of the batch's codes, and `codes_used`, the share that occurs at all."""
    counts = torch.bincount(codes.flatten(), minlength=vocabulary).float()
    shares = counts / counts.sum()
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return {"perplexity": entropy.exp(), "codes_used": (counts > 0).float().mean()}
