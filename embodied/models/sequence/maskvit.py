"""The network of MaskViT: codes of frames, of which some are hidden, and attention in windows.

Legend: B batch, T frames, N = h * w codes of a frame in raster order, V codes of the vocabulary, A action, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, image_key
from embodied.models.block import Block, initialize
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.standardize import Standardize
from embodied.models.sequence.stems import CodeStem
from embodied.models.sequence.windows3d import merge_windows, split_windows

EMBEDDING_STD = (
    0.5  # what a block adds at first is of this order: vectors of 0.02, as language models have, would drown
)


class MaskViTNetwork(SequenceNetwork):
    """Attention within frames and within columns of frames in turn, in both directions of time.

    A code becomes its learned vector, a hidden one the mask token; learned positions of place and frame are added, and
    to all tokens of a frame what the action that led to it gives by a linear layer. A learned vector stands for an
    action that is not known, and for the one before the first frame.

    Source: Gupta et al. 2022 (https://arxiv.org/abs/2206.11894), whose code is not public. That blocks are a layer in
    windows within a frame and one in windows across frames is the paper's. Ours, unconfirmed: the sizes of the windows
    (a whole frame of up to 16 x 16, then all frames at 4 x 4), positions, and how actions enter.

    Args:
        cameras: the name of the one view.
        grid: h and w.
        vocabulary: V.
        action_dim: A; 0: nothing is known of actions.
        context: T at most.
        width, heads, mlp_ratio: of the layers.
        depth: blocks, of two layers each.
        spatial_window: side of the windows within a frame; that of the grid where it is larger.
        temporal_window: side of the windows across frames, likewise.
        window_frames: frames of a window across frames; None: all.

    Raises:
        UsageError: a number makes no sense, or a window does not divide the volume.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        grid: Sequence[int],
        vocabulary: int,
        action_dim: int = 0,
        context: int = 8,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        spatial_window: int = 16,
        temporal_window: int = 4,
        window_frames: int | None = None,
    ) -> None:
        super().__init__()
        if len(cameras) != 1 or len(grid) != 2 or min(grid) < 1:
            raise UsageError(f"expected one camera and a grid of rows and columns, got {list(cameras)}, {list(grid)}")
        if context < 2 or depth < 1 or heads < 1 or width % heads:
            raise UsageError(
                f"expected a context of at least 2 frames, a depth of at least 1 and a width that is a multiple of "
                f"heads={heads}, got {context}, {depth} and {width}"
            )
        self.cameras, self.context, self.width = tuple(cameras), context, width
        self.grid, self.vocabulary = (int(grid[0]), int(grid[1])), vocabulary
        self.view = image_key(self.cameras[0])
        self.sizes = {self.view: self.grid[0] * self.grid[1], ACTION: action_dim}
        self._arguments: dict[str, Any] = {
            **{"cameras": list(cameras), "grid": list(self.grid), "vocabulary": vocabulary, "action_dim": action_dim},
            **{"context": context, "width": width, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio},
            **{"spatial_window": spatial_window, "temporal_window": temporal_window, "window_frames": window_frames},
        }
        self.checkpointing = False  # recompute blocks in the backward pass: less memory, the same numbers
        self.stem = CodeStem(vocabulary, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.places = nn.Parameter(torch.empty(self.sizes[self.view], width))
        self.times = nn.Parameter(torch.empty(context, 1, width))
        if action_dim:
            self.scale = Standardize(action_dim)
            self.action = nn.Linear(action_dim, width)
            self.no_action = nn.Parameter(torch.empty(width))
        windows = _window_sizes(self.grid, context, spatial_window, temporal_window, window_frames)
        self.blocks = nn.ModuleList(
            WindowBlock(width, heads, windows=windows, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary)
        initialize(self)
        for part in (*self._tables(), *([self.action.weight] if action_dim else [])):
            nn.init.normal_(part, std=EMBEDDING_STD)

    def fit(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take mean and standard deviation [A] of actions, of the training data; other keys are not looked at.

        Raises:
            UsageError: they are missing or have another size.
        """
        if self.sizes[ACTION]:
            self.scale.fit(ACTION, statistics)

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """Actions standardised, codes as they are; raises UsageError for another number of values."""
        if values.shape[-1] != self.sizes[name]:
            raise UsageError(f"{name}: expected {self.sizes[name]} values per step, got {values.shape[-1]}")
        return self.scale(values) if name == ACTION else values

    def forward(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens after the last block [B, T, N, D] by the view's key, and their mean per frame [B, T, D] by `action`.

        Args:
            values: codes [B, T, N], integers or whole numbers as float, and normalised actions [B, T, A], of which
                `action[:, t]` leads to frame t + 1; keys that are missing altogether are hidden. The first frame is the
                first of a clip, also where T is below `context`.
            hidden: of codes bool [B, T, N], or [B, T] for whole frames, of actions [B, T]. True = the mask token, or
                the vector for an unknown action, stands for it. What is hidden may hold anything.
        """
        tokens = self._embed(values, hidden)
        volume = tokens.unflatten(2, self.grid)  # (B, T, h, w, D)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                volume = checkpoint(block, volume, use_reentrant=False)
            else:
                volume = block(volume)
        tokens = self.norm(volume).flatten(2, 3)
        return {self.view: tokens, ACTION: tokens.mean(dim=2)}

    def present(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B 1 D"]:
        """The mean of `present_tokens`."""
        return self.present_tokens(values, hidden).mean(dim=1, keepdim=True)

    def present_tokens(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B N D"]:
        """The last frame's tokens, in a clip as pre-training shows them.

        Frames that are there come first, and the rest of the clip is hidden: so a window that is shorter, or that an
        episode's beginning cuts short, is the beginning of a clip.

        Args:
            values: as of `forward`, any number of frames up to `context`.
            hidden: as of `forward`, of frames bool [B, T].
        """
        away = hidden[self.view]
        steps = away.shape[1]
        early = away.int().cumprod(dim=1).sum(dim=1)  # (B,), frames before the first that is there
        place = torch.arange(self.context, device=away.device) + early[:, None]  # (B, context)
        beyond, place = place >= steps, place.clamp(max=steps - 1)
        moved = {name: _take(each, place) for name, each in values.items()}
        gone = {name: _take(hidden[name], place) | beyond for name in self.sizes}
        tokens = self(moved, gone)[self.view]
        return _take(tokens, (steps - 1 - early).clamp(min=0)[:, None])[:, 0]

    def logits(self, tokens: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Of the codes, from tokens that `forward` gave."""
        return self.head(tokens)

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return dict(self._arguments)

    def _tables(self) -> list[nn.Parameter]:
        """Learned vectors of tokens."""
        vectors = [self.mask_token, self.places, self.times, *self.stem.parameters()]
        return [*vectors, self.no_action] if self.sizes[ACTION] else vectors

    def _embed(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B T N D"]:
        away = hidden[self.view]
        away = away if away.ndim == 3 else away[..., None].expand(-1, -1, self.sizes[self.view])
        steps = away.shape[1]
        if steps > self.context:
            raise UsageError(f"a clip of {steps} frames is longer than the {self.context} that this model knows")
        if self.view in values:
            codes = values[self.view]
            known = self.stem(torch.where(away, torch.zeros_like(codes), codes).long())
            tokens = torch.where(away[..., None], self.mask_token.to(known.dtype), known)
        else:
            tokens = self.mask_token.expand(*away.shape, -1)
        tokens = tokens + self.places + self.times[:steps]
        return tokens + self._led_by(values, hidden) if self.sizes[ACTION] else tokens

    def _led_by(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B T 1 D"]:
        """What the action before each frame adds to it."""
        away = hidden[ACTION]
        unknown = self.no_action.expand(*away.shape, -1)
        if ACTION not in values:
            return unknown[:, :, None]
        # Zeros, not just unused: nan times a gradient of zero would be nan in the weights.
        known = self.action(torch.where(away[..., None], torch.zeros_like(values[ACTION]), values[ACTION]))
        done = torch.where(away[..., None], unknown.to(known.dtype), known)
        return torch.cat([unknown[:, :1].to(done.dtype), done[:, :-1]], dim=1)[:, :, None]


class WindowBlock(nn.Module):
    """A transformer layer on windows within frames, then one on windows across frames.

    Args:
        width: D.
        heads: of attention.
        windows: of the two layers: frames, rows and columns; 0 frames stands for all that there are.
        options: further arguments of `models.block.Block`.
    """

    def __init__(self, width: int, heads: int, *, windows: Sequence[tuple[int, int, int]], **options: Any) -> None:
        super().__init__()
        self.windows = tuple(windows)
        self.layers = nn.ModuleList(Block(width, heads, **options) for _ in self.windows)

    def forward(self, volume: Float[Tensor, "B T h w D"]) -> Float[Tensor, "B T h w D"]:
        size = (volume.shape[1], volume.shape[2], volume.shape[3])
        for (frames, rows, columns), layer in zip(self.windows, self.layers, strict=True):
            window = (frames or size[0], rows, columns)
            volume = merge_windows(layer(split_windows(volume, window)), window, size)
        return volume


def _window_sizes(
    grid: tuple[int, int], context: int, spatial: int, temporal: int, frames: int | None
) -> list[tuple[int, int, int]]:
    """Of the two layers of a block."""
    for name, side in (("spatial_window", spatial), ("temporal_window", temporal)):
        if side < 1 or any(count % min(side, count) for count in grid):
            raise UsageError(f"{name} must divide the grid of {grid[0]} x {grid[1]} codes, got {side}")
    if frames is not None and (frames < 1 or context % frames):
        raise UsageError(f"window_frames must divide the {context} frames of a clip, got {frames}")
    within, across = ((min(side, grid[0]), min(side, grid[1])) for side in (spatial, temporal))
    return [(1, *within), (frames or 0, *across)]


def _take(values: Tensor, steps: Tensor) -> Tensor:
    """`values` [B, T, ...] at other steps of each row, [B, S]: [B, S, ...]."""
    return values[torch.arange(len(values), device=values.device)[:, None], steps]
