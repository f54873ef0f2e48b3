"""Codebooks that learn, and how many of their codes are used. Legend: B batch, N tokens, C code width, V codes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.models.codebooks import Codebook
from embodied.objectives.parts.distributed import from_first_process, sum_over_processes


class VectorQuantizer(Codebook):
    """The nearest of V vectors, which are learned (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

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
        super().__init__(codes=codes, width=width, unit=unit)
        if average is not None and not 0 < average < 1:
            raise UsageError(f"average must be in (0, 1) or null, got {average}")
        if commitment < 0 or restart_below < 0:
            raise UsageError(f"commitment and restart_below must not be negative, got {commitment} and {restart_below}")
        self.average, self.commitment, self.restart_below = average, commitment, restart_below
        self.book.requires_grad_(average is None)
        self.share: Tensor
        self.sums: Tensor
        self.register_buffer("share", torch.full((codes,), 1 / codes))  # moving average of each code's share
        # Moving average of the sum of its vectors, per vector.
        self.register_buffer("sums", self.book.detach() / codes)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, vectors: Float[Tensor, "B N C"]) -> tuple[Tensor, Int[Tensor, " *any"], Float[Tensor, ""]]:
        """Quantised vectors with the gradient of the given ones (straight through), codes, and loss."""
        vectors = self.scaled(vectors.float())
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


@torch.no_grad()
def code_use(codes: Int[Tensor, " *any"], vocabulary: int) -> dict[str, Float[Tensor, ""]]:
    """`perplexity`, exp of the entropy of the batch's codes, and `codes_used`, the share that occurs at all."""
    counts = torch.bincount(codes.flatten(), minlength=vocabulary).float()
    shares = counts / counts.sum()
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return {"perplexity": entropy.exp(), "codes_used": (counts > 0).float().mean()}
