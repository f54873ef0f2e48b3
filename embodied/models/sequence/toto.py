"""The network of Toto: a causal transformer over the codes of frames, one after the other.

Legend: B batch, T frames, N = h * w codes of a frame in raster order, V codes of the vocabulary, A action, L tokens of
a sequence, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, image_key
from embodied.models.sequence.llama import INITIAL_STD, Llama
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.readouts import pool_tokens
from embodied.models.sequence.standardize import Standardize
from embodied.models.sequence.toto_sizes import choose_size
from embodied.models.sequence.toto_tokens import FIRST_CODE, TotoTokens

Pool = Literal["mean", "last"]


class TotoNetwork(SequenceNetwork):
    """Codes of frames in raster order, frame after frame, each predicted from all before it.

    Source: Rajasegaran et al. 2025 (https://arxiv.org/abs/2501.05453), whose code is not public. Ours where it is
    silent: widths and heads (see `toto_sizes`); weights of input and output are the same ones (`tied`); they start from
    a normal distribution of 0.02. Also ours are actions, see `TotoTokens`, which are standardised.

    Args:
        cameras: the name of the one view.
        grid: h and w.
        vocabulary: V.
        action_dim: A; 0: actions are not read.
        context: T at most; with 1 the frames are images, not videos.
        size: of the transformer, see `toto_sizes.SIZES`; None: by width, depth, heads and hidden.
        width, depth, heads, hidden: D, blocks, heads, width of the MLP.
        rotary_base: the paper's is 10,000, and 50,000 where it goes on at a higher resolution.
        tied: see above.
        read_depth: blocks before the tokens that features are made of; None: half of them, where the paper's probes
            are best.
        pool: how the tokens of a frame become its feature: their `mean`, or the `last`, which has seen all others.
        recompute: see `Llama`.

    Raises:
        UsageError: a number makes no sense, or both a size and numbers are given.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        grid: Sequence[int],
        vocabulary: int,
        action_dim: int = 0,
        context: int = 16,
        size: str | None = "tiny",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        hidden: int | None = None,
        rotary_base: float = 10000.0,
        tied: bool = True,
        read_depth: int | None = None,
        pool: Pool = "mean",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if len(cameras) != 1 or len(grid) != 2 or min(grid) < 1:
            raise UsageError(f"expected one camera and a grid of rows and columns, got {list(cameras)}, {list(grid)}")
        if pool not in get_args(Pool):
            raise unknown_name("pool", str(pool), get_args(Pool))
        if context < 1:
            raise UsageError(f"context must be at least 1, got {context}")
        shape = choose_size(size, width=width, depth=depth, heads=heads, hidden=hidden)
        self.cameras, self.context, self.width = tuple(cameras), context, shape.width
        self.grid, self.vocabulary, self.view = (int(grid[0]), int(grid[1])), vocabulary, image_key(cameras[0])
        self.depth, self.pool = shape.depth, pool
        self.read_depth = max(1, round(shape.depth / 2)) if read_depth is None else read_depth
        if not 0 <= self.read_depth <= shape.depth:
            raise UsageError(f"read_depth must be in [0, {shape.depth}], the blocks, got {read_depth}")
        frame_tokens = self.grid[0] * self.grid[1]
        self.sizes = {self.view: frame_tokens, ACTION: action_dim}
        built: dict[str, Any] = {**vars(shape), "rotary_base": float(rotary_base), "recompute": recompute}
        self._arguments: dict[str, Any] = {
            **{"cameras": list(cameras), "grid": list(self.grid), "vocabulary": vocabulary, "action_dim": action_dim},
            **{"context": context, "size": None, **built, "tied": tied, "read_depth": self.read_depth, "pool": pool},
        }
        self.tokens = TotoTokens(codes=vocabulary, frame_tokens=frame_tokens, action_dim=action_dim, width=shape.width)
        self.trunk = Llama(**built)
        self.output = None if tied else nn.Linear(shape.width, FIRST_CODE + vocabulary, bias=False)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=INITIAL_STD)
        self.scale = Standardize(action_dim) if action_dim else None

    def fit(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take mean and standard deviation [A] of actions, where they are read; other keys are not looked at.

        Raises:
            UsageError: they are missing or have another size.
        """
        if self.scale is not None:
            self.scale.fit(ACTION, statistics)

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """Actions standardised, codes as they are; raises UsageError for another number of values."""
        if values.shape[-1] != self.sizes[name]:
            raise UsageError(f"{name}: expected {self.sizes[name]} values per step, got {values.shape[-1]}")
        return values if name != ACTION or self.scale is None else self.scale(values)

    def logits(self, tokens: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V4"]:
        """Of the next token, from the transformer's output: V + 4 values."""
        return F.linear(tokens, self.tokens.table.weight) if self.output is None else self.output(tokens)

    def forward(
        self,
        values: Mapping[str, Tensor],
        hidden: Mapping[str, Tensor],
        *,
        depths: Sequence[int] = (),
        images: Bool[Tensor, " B"] | None = None,
        predict: bool = False,
    ) -> dict[str, Tensor]:
        """Features [B, T, D] by the key `action`: what each frame's tokens are, given those before it.

        Frames that are hidden are left out of the sequence, with the actions behind them: a window that begins before
        its episode is that of a younger episode. Their feature is that of the frame before, or of the beginning.

        Args:
            values: codes [B, T, N], integers or whole numbers as float, and normalised actions [B, T, A].
            hidden: [B, T], True = not there; it may hold anything, not a number included.
            depths: where to read beside `read_depth`.
            images: with `predict` True = the frames of a row are images that have nothing to do with each other.
            predict: give predictions in place of features. All frames have to be there; only actions may be hidden.

        Returns:
            With the features, `tokens` [B, T, N, D] that they are made of, and by `depth_<depth>` those of `depths`. Or
            logits: `codes` [B, T, N, V + 4] of every code from all tokens before it, and `end` [B, V + 4] of what
            follows the last one.
        """
        if predict:  # here, not in a method of its own, so that a compiled network does it too
            inputs = self.tokens(values[self.view], values.get(ACTION), hidden.get(ACTION), images=images)
            out, places = self.trunk(inputs), self.tokens.places(values[self.view].shape[1], inputs.device)
            return {"codes": self.logits(out[:, places - 1]), "end": self.logits(out[:, -1])}
        codes, actions, away, latest = self._shown(values, hidden)
        states = self._states(codes, actions, away, [self.read_depth, *depths])
        rows = torch.arange(len(codes), device=codes.device)[:, None]
        tokens = [state[rows, latest] for state in states]  # each (B, T, N, D)
        named = {f"depth_{depth}": part for depth, part in zip(depths, tokens[1:], strict=True)}
        return {ACTION: self.pooled(tokens[0]), "tokens": tokens[0], **named}

    def present_tokens(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B N D"]:
        """The tokens of the last frame, which its feature is made of."""
        return self(values, hidden)["tokens"][:, -1]

    def pooled(self, tokens: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        """The feature of each frame."""
        return pool_tokens(tokens.flatten(0, 1), self.pool).unflatten(0, tokens.shape[:2])

    def _states(
        self, codes: Int[Tensor, "B T N"], actions: Tensor | None, away: Tensor | None, depths: Sequence[int]
    ) -> list[Float[Tensor, "B T1 N D"]]:
        """Per depth the tokens of nothing yet (N times that of the beginning) and of every frame, T + 1 in all."""
        images = torch.full(codes.shape[:1], self.context == 1, device=codes.device)
        found = self.trunk.at_depths(self.tokens(codes, actions, away, images=images), depths)
        places = self.tokens.places(codes.shape[1], codes.device)
        places = torch.cat([torch.zeros_like(places[:1]), places])  # (T + 1, N)
        return [self._scaled(state, depth)[:, places] for state, depth in zip(found, depths, strict=True)]

    def _scaled(self, state: Tensor, depth: int) -> Tensor:
        """Past the last norm after all blocks; else, ours, with a root mean square of 1: tokens grow with depth."""
        return self.trunk.norm(state) if depth == self.depth else F.rms_norm(state, (self.width,))

    def _shown(
        self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Codes, actions and which of these are not known, with the frames that are there first; how many until each.

        What is behind the frames that are there does not matter: nobody looks ahead.
        """
        gone = hidden[self.view]
        if gone.shape[1] > self.context:
            raise UsageError(f"a window of {gone.shape[1]} frames is longer than the {self.context} of this encoder")
        if self.view in values:
            codes = values[self.view]
        else:
            codes, gone = torch.zeros(*gone.shape, self.sizes[self.view], device=gone.device), torch.ones_like(gone)
        order = gone.int().argsort(dim=1, stable=True)  # (B, T)
        rows = torch.arange(len(gone), device=gone.device)[:, None]
        codes = torch.where(gone[..., None], torch.zeros_like(codes), codes).double().round().long()[rows, order]
        latest = (~gone).int().cumsum(dim=1)
        if self.scale is None or ACTION not in values:
            return codes, None, None, latest
        return codes, values[ACTION][rows, order], (hidden[ACTION] | gone)[rows, order], latest

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return dict(self._arguments)
