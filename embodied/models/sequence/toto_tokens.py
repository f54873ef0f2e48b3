"""The sequence that Toto reads: what begins it, codes of frames, and actions between them.

Legend: B batch, T frames, N codes of a frame, V codes that there are, A action, S tokens of a frame (N, and one more
with actions), L tokens of a sequence, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.models.sequence.llama import INITIAL_STD

VIDEO, END, IMAGE = 1, 2, 3  # what begins a video, ends a sequence, begins a sequence of images; 0 stands for nothing
FIRST_CODE = 4  # the token of code 0


class TotoTokens(nn.Module):
    """A learned vector for each code, and for what begins and ends a sequence.

    Code c is token c + 4. With actions a token stands behind each frame, made by one linear layer of the action that
    was done then; one that is not known is a learned vector.

    Args:
        codes: V.
        frame_tokens: N.
        action_dim: A; 0: no actions.
        width: D.
    """

    def __init__(self, *, codes: int, frame_tokens: int, action_dim: int, width: int) -> None:
        super().__init__()
        if min(codes, frame_tokens) < 1 or action_dim < 0:
            raise UsageError(
                f"codes and frame_tokens must be at least 1 and action_dim at least 0, got {codes}, {frame_tokens} "
                f"and {action_dim}"
            )
        self.frame_tokens, self.action_dim = frame_tokens, action_dim
        self.table = nn.Embedding(FIRST_CODE + codes, width)
        nn.init.normal_(self.table.weight, std=INITIAL_STD)
        self.act = nn.Linear(action_dim, width) if action_dim else None
        self.no_action = nn.Parameter(torch.randn(width) * INITIAL_STD) if action_dim else None
        if self.act is not None:
            nn.init.normal_(self.act.weight, std=INITIAL_STD)
            nn.init.zeros_(self.act.bias)

    @property
    def step(self) -> int:
        """S."""
        return self.frame_tokens + bool(self.action_dim)

    def length(self, frames: int) -> int:
        """L of a sequence of frames, without its end."""
        return 1 + frames * self.step - bool(self.action_dim)

    def places(self, frames: int, device: torch.device) -> Int[Tensor, "T N"]:
        """Where the codes of frames stand in a sequence; each is predicted at the place before."""
        start = 1 + self.step * torch.arange(frames, device=device)[:, None]
        return start + torch.arange(self.frame_tokens, device=device)

    def forward(
        self,
        codes: Int[Tensor, "B T N"],
        actions: Float[Tensor, "B T A"] | None = None,
        away: Bool[Tensor, "B T"] | None = None,
        *,
        images: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The beginning, and frame after frame, with no action behind the last one.

        Args:
            codes: of each frame.
            actions: standardised; None: none is known. Where `away` is True they may hold anything.
            away: True = the action is not known.
            images: True = the frames of a row are images that have nothing to do with each other; None: none are.
        """
        first = torch.full(codes.shape[:1], VIDEO, device=codes.device)
        if images is not None:
            first = torch.where(images, IMAGE, first)
        frames = self.table(codes + FIRST_CODE)  # (B, T, N, D)
        if self.action_dim:
            frames = torch.cat([frames, self.done(codes.shape[:2], actions, away).to(frames.dtype)[:, :, None]], dim=2)
        sequence = torch.cat([self.table(first)[:, None], frames.flatten(1, 2)], dim=1)
        return sequence[:, : self.length(codes.shape[1])]

    def done(
        self, shape: torch.Size, actions: Float[Tensor, "B T A"] | None, away: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T D"]:
        """The tokens of actions, `shape` [B, T]; the others as of `forward`."""
        assert self.act is not None and self.no_action is not None
        unknown = self.no_action.expand(*shape, -1)
        if actions is None:
            return unknown
        if away is None:
            return self.act(actions)
        # Zeros, not just unused: nan times a gradient of zero would be nan in the layer's weights.
        known = self.act(torch.where(away[..., None], torch.zeros_like(actions), actions))
        return torch.where(away[..., None], unknown.to(known.dtype), known)
