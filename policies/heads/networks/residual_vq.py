"""Residual vector quantisation. Legend: B batch, G quantisers, C codes of each, D width of a code."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualVQ(nn.Module):
    """G codebooks, each quantises what the ones before it left over (Zeghidour et al. 2021, arXiv 2107.03312, Alg. 1).

    Codes follow the vectors that chose them by exponential moving averages (van den Oord et al. 2017, arXiv 1711.00937,
    App. A.1) with the decay and smoothing of lucidrains/vector-quantize-pytorch, which VQ-BeT uses.

    Departure: codes start at vectors of the first batch; there they start at random near zero, and codes that no
    vector ever chooses stay there. Codes are float32, and so is what is computed with them, under autocast too.

    Args:
        quantizers: G.
        codes: C.
        width: D.
        decay: share of the old average that an update keeps.
    """

    def __init__(self, *, quantizers: int, codes: int, width: int, decay: float = 0.8) -> None:
        super().__init__()
        self.decay = decay
        self.codebooks: Tensor
        self.register_buffer("codebooks", torch.zeros(quantizers, codes, width))
        self.sums: Tensor  # averages of the sums of the vectors that chose a code, and of their number
        self.register_buffer("sums", torch.zeros(quantizers, codes, width))
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(quantizers, codes))
        self.started: Tensor
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(
        self, vectors: Float[Tensor, "B D"], *, learn: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "B D"], Int[Tensor, "B G"], Float[Tensor, " B"]]:
        """Quantised vectors, their codes, and the commitment: the squared distances to the codes, mean over D, sum
        over G.

        The gradient of the output passes straight through to `vectors`, once per quantiser as in the library.

        Args:
            learn: bool [B], True = the codes follow this vector; None leaves them as they are.
            generator: picks the vectors that the codes start at.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return self._quantize(vectors.float(), learn, generator)

    def _quantize(
        self, vectors: Tensor, learn: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if learn is not None and learn.any() and not self.started:
            self._start(vectors[learn].detach(), generator)
        quantized, residual, chosen = torch.zeros_like(vectors), vectors, []
        commitment = vectors.new_zeros(len(vectors))
        for number, codebook in enumerate(self.codebooks):
            codes = torch.cdist(residual.detach(), codebook).argmin(dim=1)  # (B)
            nearest = codebook[codes]
            if learn is not None and learn.any():
                self._follow(number, residual.detach()[learn], codes[learn])
            commitment = commitment + F.mse_loss(residual, nearest, reduction="none").mean(dim=1)
            quantized = quantized + residual + (nearest - residual).detach()
            residual = residual - nearest
            chosen.append(codes)
        return quantized, torch.stack(chosen, dim=1), commitment

    def lookup(self, codes: Int[Tensor, "B G"]) -> Float[Tensor, "B D"]:
        """The quantised vector that the codes stand for."""
        numbers = torch.arange(len(self.codebooks), device=codes.device)
        return self.codebooks[numbers, codes].sum(dim=1)

    @torch.no_grad()
    def _start(self, vectors: Tensor, generator: torch.Generator | None) -> None:
        """Codes start at vectors picked at random, those of later quantisers at what the earlier ones leave over."""
        device = vectors.device if generator is None else generator.device
        for number in range(len(self.codebooks)):
            shape = (self.codebooks.shape[1],)
            picked = torch.randint(len(vectors), shape, generator=generator, device=device).to(vectors.device)
            self.codebooks[number] = vectors[picked]
            self.sums[number] = vectors[picked]
            nearest = torch.cdist(vectors, self.codebooks[number]).argmin(dim=1)
            vectors = vectors - self.codebooks[number][nearest]
        self.counts.fill_(1.0)
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, number: int, vectors: Tensor, codes: Tensor) -> None:
        """One step of the moving averages; counts are smoothed so that a code nobody chose does not divide by zero."""
        choice = F.one_hot(codes, self.codebooks.shape[1]).to(vectors.dtype)  # (B, C)
        counts, sums = self.counts[number], self.sums[number]
        counts.lerp_(choice.sum(dim=0), 1 - self.decay)
        sums.lerp_(choice.T @ vectors, 1 - self.decay)
        eps = 1e-5
        smoothed = (counts + eps) / (counts.sum() + len(counts) * eps) * counts.sum()
        self.codebooks[number] = sums / smoothed[:, None]
