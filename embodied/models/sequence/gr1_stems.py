"""What goes into GR-1's trunk. Legend: B batch, T steps, N patches of a frame, V values of each, P proprioception,
E width of an instruction, Q latents, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.protocols import INSTRUCTION, STATE, image_key
from embodied.models.sequence.cross_attention import Resampler
from embodied.models.sequence.gr1_action import arm_values

Tokens = tuple[dict[str, Float[Tensor, "B T _ D"]], dict[str, Bool[Tensor, "B T"]]]
"""Tokens by their kind, and whether they are there."""


class StateStem(nn.Module):
    """One token of proprioception: the arm's values and the gripper, each by a linear layer, and one over both.

    Args:
        values: P.
        width: D.
        gripper: which of the values is the gripper's. It is read as closed (not above 0) or open; None: none is.

    Raises:
        UsageError: there is no such value, or no other.
    """

    def __init__(self, values: int, width: int, *, gripper: int | None = None) -> None:
        super().__init__()
        arm = arm_values(values, gripper, "encoder.state_gripper")
        self.register_buffer("arm_values", torch.tensor(arm), persistent=False)
        self.gripper = gripper
        self.arm = nn.Linear(len(arm), width)
        self.hand = None if gripper is None else nn.Linear(2, width)
        self.join = nn.Linear(width if gripper is None else 2 * width, width)

    def forward(self, state: Float[Tensor, "B T P"]) -> Float[Tensor, "B T D"]:
        token = self.arm(state[..., self.get_buffer("arm_values")])
        if self.hand is not None:
            opened = (state[..., self.gripper] > 0).to(token.dtype)
            token = torch.cat([token, self.hand(torch.stack([1 - opened, opened], dim=-1))], dim=-1)
        return self.join(token)


class GR1Stems(nn.Module):
    """A token of the instruction, one of proprioception, for every camera Q latents of its patches and a class token.

    Cameras share the resampler, and have linear layers of their own. All tokens of a step get its learned embedding;
    steps are counted from the first one that is there.

    Args:
        cameras: names of the views.
        latent_dim: V.
        state_dim: P; 0: none.
        text_dim: E; 0: none.
        context: T at most.
        width: D.
        latents: Q.
        resampler_depth, resampler_heads, resampler_head_width: see `Resampler`.
        state_gripper: see `StateStem`.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        latent_dim: int,
        state_dim: int,
        text_dim: int,
        context: int,
        width: int,
        latents: int,
        resampler_depth: int,
        resampler_heads: int,
        resampler_head_width: int,
        state_gripper: int | None,
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.language = nn.Linear(text_dim, width) if text_dim else None
        self.state = StateStem(state_dim, width, gripper=state_gripper) if state_dim else None
        self.resampler = Resampler(
            latent_dim,
            latents=latents,
            depth=resampler_depth,
            heads=resampler_heads,
            head_width=resampler_head_width,
            media_embedding=True,
        )
        self.patches = nn.ModuleDict({module_name(camera): nn.Linear(latent_dim, width) for camera in cameras})
        self.frames = nn.ModuleDict({module_name(camera): nn.Linear(latent_dim, width) for camera in cameras})
        self.absent = nn.Parameter(torch.randn(width) * 0.02)
        self.times = nn.Parameter(torch.randn(context, width))
        self.tokens = {INSTRUCTION: 1} if text_dim else {}  # of a step, by their kind, in order
        self.tokens |= {STATE: 1} if state_dim else {}
        for camera in cameras:
            self.tokens |= {_patches(camera): latents, _frame(camera): 1}

    def forward(self, values: Mapping[str, Tensor], hidden: Mapping[str, Bool[Tensor, "B T"]]) -> Tokens:
        """See `GR1Network.forward`."""
        away = {name: gone if name in values else torch.ones_like(gone) for name, gone in hidden.items()}
        sensed = [away[image_key(camera)] for camera in self.cameras] + ([away[STATE]] if self.state else [])
        nothing = torch.stack(sensed).all(dim=0)  # (B, T)
        made: dict[str, Tensor] = {}
        gone: dict[str, Tensor] = {}
        if self.language is not None:
            gone[INSTRUCTION] = away[INSTRUCTION] | nothing
            if INSTRUCTION in values:
                made[INSTRUCTION] = self.language(_shown(values[INSTRUCTION], gone[INSTRUCTION]))[:, :, None]
        if self.state is not None:
            gone[STATE] = away[STATE]
            if STATE in values:
                made[STATE] = self.state(_shown(values[STATE], gone[STATE]))[:, :, None]
        for camera in self.cameras:
            patches, frames = self.patches[module_name(camera)], self.frames[module_name(camera)]
            gone |= dict.fromkeys((_patches(camera), _frame(camera)), away[image_key(camera)])
            if image_key(camera) in values:
                shown = _shown(values[image_key(camera)], away[image_key(camera)])
                read = self.resampler(shown[:, :, 1:].flatten(0, 1)).unflatten(0, shown.shape[:2])  # (B, T, Q, V)
                made |= {_patches(camera): patches(read), _frame(camera): frames(shown[:, :, :1])}
        times = self._times(nothing)
        placed = {name: self._placed(made.get(name), gone[name], count) + times for name, count in self.tokens.items()}
        return placed, {name: ~away for name, away in gone.items()}

    def _times(self, nothing: Bool[Tensor, "B T"]) -> Float[Tensor, "B T 1 D"]:
        first = (~nothing).int().argmax(dim=1, keepdim=True)
        place = (torch.arange(nothing.shape[1], device=nothing.device) - first).clamp(min=0)
        return self.times[place][:, :, None]

    def _placed(self, made: Tensor | None, gone: Bool[Tensor, "B T"], count: int) -> Float[Tensor, "B T _ D"]:
        """The tokens of a kind, and something to hold the place of those that are not there."""
        absent = self.absent.expand(*gone.shape, count, -1)
        return absent if made is None else torch.where(gone[..., None, None], absent.to(made.dtype), made)


def _shown(values: Tensor, gone: Bool[Tensor, "B T"]) -> Tensor:
    """Zeros where it is not there: nan times a gradient of zero would be nan in the stem's weights."""
    return torch.where(gone.reshape(*gone.shape, *[1] * (values.ndim - 2)), torch.zeros_like(values), values)


def _patches(camera: str) -> str:
    return f"patches.{camera}"


def _frame(camera: str) -> str:
    return f"frame.{camera}"


def module_name(name: str) -> str:
    """Names of modules and parameters hold no dots."""
    return name.replace(".", "_")
