"""From what a modality gives at each step to tokens. Legend: B batch, T steps, V values, M inputs of a step, N tokens
of a step, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.models.sequence.cross_attention import LatentReader, Resampler
from embodied.models.sequence.times import sincos_1d

Reading = Literal["reader", "resampler"]


class LinearStem(nn.Module):
    """One linear layer: a vector per step becomes one token (RPT's every modality, GR-1's state).

    Args:
        inputs: V.
        width: D.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.embed = nn.Linear(inputs, width)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, values: Float[Tensor, "B T V"]) -> Float[Tensor, "B T 1 D"]:
        """One token per step; raises UsageError for another number of values."""
        if values.shape[-1] != self.inputs:
            raise UsageError(f"expected {self.inputs} values per step, got {values.shape[-1]}")
        return self.embed(values)[:, :, None]


class FrozenTokenStem(nn.Module):
    """The tokens of a frozen image encoder, all of them or their mean, by one linear layer.

    No gradient goes back into what made the tokens.

    Args:
        inputs: V.
        width: D.
        pool: None keeps the M tokens, `mean` makes one of them.
    """

    def __init__(self, inputs: int, width: int, *, pool: Literal["mean"] | None = None) -> None:
        super().__init__()
        if pool not in (None, "mean"):
            raise unknown_name("pool", str(pool), ("mean", "None"))
        self.pool = pool
        self.embed = nn.Linear(inputs, width)

    def forward(self, tokens: Float[Tensor, "B T M V"]) -> Float[Tensor, "B T N D"]:
        seen = tokens.detach()
        return self.embed(seen.mean(dim=2, keepdim=True) if self.pool == "mean" else seen)


class LatentStem(nn.Module):
    """However many inputs a step (or the whole window) has, a fixed number of learned latents read them.

    Args:
        inputs: V.
        width: D.
        latents: N.
        reading: `reader`: HPT's single cross-attention; `resampler`: GR-1's layers, after a linear layer to D.
        positions: add sines and cosines of an input's place in the set to its V values first, as HPT does.
        hidden: widths of an MLP (SiLU) on every input before it is read, as HPT has one; none by default.
        whole_window: latents read all T * M inputs at once, as HPT's do: the result has T = 1.
        dropout: of the attention of `reader`.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        latents: int = 16,
        reading: Reading = "reader",
        positions: bool = False,
        hidden: Sequence[int] = (),
        whole_window: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.inputs, self.positions, self.whole_window = inputs, positions, whole_window
        layers: list[nn.Module] = []
        for before, after in zip([inputs, *hidden][:-1], hidden, strict=True):
            layers += [nn.Linear(before, after), nn.SiLU()]
        size = hidden[-1] if hidden else inputs
        self.reader: nn.Module
        if reading == "reader":
            self.reader = LatentReader(size, width, latents=latents, dropout=dropout)
        elif reading == "resampler":
            layers.append(nn.Linear(size, width))
            self.reader = Resampler(width, latents=latents)
        else:
            raise unknown_name("reading", str(reading), ("reader", "resampler"))
        self.embed = nn.Sequential(*layers)

    def forward(self, values: Float[Tensor, "B T M V"]) -> Float[Tensor, "B T N D"]:
        """N tokens per step, or [B, 1, N, D] with `whole_window`."""
        if values.ndim != 4 or values.shape[-1] != self.inputs:
            raise UsageError(f"expected [B, T, M, {self.inputs}], got {list(values.shape)}")
        batch, steps = values.shape[:2]
        sets = values.flatten(1, 2) if self.whole_window else values.flatten(0, 1)  # (B or B*T, inputs of one set, V)
        if self.positions:
            sets = sets + sincos_1d(self.inputs, sets.shape[1], interleaved=True).to(sets)
        read = self.reader(self.embed(sets))
        return read.unflatten(0, (batch, 1 if self.whole_window else steps))


class CodeStem(nn.Module):
    """The codes of a discrete tokenizer, looked up in a learned table: MaskViT's, Toto's and 1xgpt's input.

    A large vocabulary may be written as the product of small ones (1xgpt: 2^18 = 512 * 512): the code is taken apart,
    and the vectors of its parts are added.

    Args:
        vocabulary: number of codes, or of each factor, the last one changing fastest.
        width: D.
    """

    def __init__(self, vocabulary: int | Sequence[int], width: int) -> None:
        super().__init__()
        self.factors = [int(vocabulary)] if isinstance(vocabulary, int) else [int(each) for each in vocabulary]
        if not self.factors or min(self.factors) < 1:
            raise UsageError(f"vocabulary: expected one or several numbers of codes, got {vocabulary}")
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in self.factors)
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, codes: Int[Tensor, "B T N"]) -> Float[Tensor, "B T N D"]:
        """One token per code."""
        tokens, rest = None, codes
        for factor, table in zip(reversed(self.factors), reversed(list(self.tables)), strict=True):
            part = table(rest % factor)
            tokens, rest = part if tokens is None else tokens + part, torch.div(rest, factor, rounding_mode="floor")
        assert tokens is not None
        return tokens
