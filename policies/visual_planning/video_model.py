"""A video objective as a world model: what it predicts of the codes that follow, under candidates of actions.

Legend: B environments, K candidates, R rows of both, T frames of the context, s stride, H actions of a plan, F = H / s
predicted frames, A action, N codes of a frame, S image side, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, cast, get_args

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.core.seeding import torch_generator
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.models.sequence.world_model import Context, Rollout

CODES = "codes"
Shown = Literal["none", "last", "all"]


class VideoPredictor(Protocol):
    """A video objective: what of it predicts."""

    encoder: Any  # with the frozen tokenizer `frames`, and `sequence.sizes`

    def predict(
        self, batch: Mapping[str, Tensor], *, context: int, generator: torch.Generator | None
    ) -> Int[Tensor, "R T N"]:
        """The clip, of which the first `context` frames are given."""
        ...


class VideoModel(nn.Module):
    """Predicts with a trained video objective.

    The context is every s-th frame until now, as in training. Where an episode is younger than that, its first frame
    stands there again and zeros are its actions: the robot was at rest, so to say. The tokenizer's codes of a frame do
    not depend on others, but frames are encoded anew for every call: predicting takes many times as long.

    Args:
        objective: with an encoder that holds a tokenizer; frozen by the caller.
        context: T.
        stride: s, of its clips.
        action_dim: A of the environment.
        frames: decoded of a candidate: `none`, the `last` one, or `all`; codes come in any case.
        rows: candidates predicted at once.
        draws: let the model draw its predictions instead of taking the most probable ones. Environments are then
            predicted one after the other, each by a generator of its own key and step.

    Raises:
        UsageError: it knows nothing of actions, or of actions of another size; or a number makes no sense.
    """

    privileged = False
    limit: int | None = None

    def __init__(
        self,
        objective: nn.Module,
        *,
        context: int,
        stride: int = 1,
        action_dim: int,
        frames: Shown = "none",
        rows: int = 64,
        draws: bool = False,
    ) -> None:
        super().__init__()
        if frames not in get_args(Shown):
            raise unknown_name("frames of a video model", str(frames), get_args(Shown))
        if min(context, stride, rows) < 1:
            raise UsageError(f"context, stride and rows must be at least 1, got {context}, {stride} and {rows}")
        self.objective, self.context, self.stride = objective, context, stride
        self.history = (context - 1) * stride + 1
        self.action_dim, self._frames, self._rows, self._draws = action_dim, frames, rows, draws
        self._check_actions()

    @property
    def predictor(self) -> VideoPredictor:
        """The objective, typed."""
        return cast(VideoPredictor, self.objective)

    @property
    def tokenizer(self) -> FrameTokenizer:
        """What makes codes of frames."""
        return cast(FrameTokenizer, self.predictor.encoder.frames)

    def _check_actions(self) -> None:
        known = int(self.predictor.encoder.sequence.sizes.get(ACTION, 0))
        if not known:
            raise UsageError(
                "policy.model: this model was trained without actions, so it predicts the same whatever is done: "
                "pre-train it on data with actions"
            )
        if known != self.stride * self.action_dim:
            raise UsageError(
                f"policy.model was trained on {known} values of actions per frame of a clip; here there are "
                f"{self.stride} steps per frame of {self.action_dim} values each: use the environment whose data it "
                "was trained on"
            )

    def rollout(
        self, context: Context, actions: Float[Tensor, "B K H A"], *, generator: torch.Generator | None = None
    ) -> Rollout:
        """Codes [B, K, F, N], and frames uint8 [B, K, 1 or F, S, S, 3] where they are decoded."""
        self._check_plan(context, actions)
        environments, candidates = actions.shape[:2]
        seen = self._clip(context.frames[:, :: self.stride])  # (B, T, N)
        done = context.actions.unflatten(1, (self.context - 1, self.stride)).flatten(2)  # (B, T-1, s*A)
        moves = actions.unflatten(2, (-1, self.stride)).flatten(3)  # (B, K, F, s*A)
        found = []
        for rows, drawn in self._parts(context, candidates, generator):
            environment = rows // candidates
            batch = clip_batch(seen[environment], done[environment], moves.flatten(0, 1)[rows])
            predicted = self.predictor.predict(batch, context=self.context, generator=drawn)
            found.append(predicted[:, self.context :])
        codes = torch.cat(found).unflatten(0, (environments, candidates))
        return Rollout(codes=codes, frames=self._decoded(codes))

    def shows(self, frames: UInt8[Tensor, "B S S 3"]) -> UInt8[Tensor, "B _ _ 3"]:
        """Frames that went through the tokenizer."""
        return self.tokenizer.decode(self.codes(frames))

    def codes(self, frames: UInt8[Tensor, "B S S 3"]) -> Int[Tensor, "B N"]:
        """The tokenizer's."""
        return self.tokenizer.codes(frames)

    def code_vectors(self, codes: Int[Tensor, "*batch N"]) -> Float[Tensor, "*batch N D"]:
        """The tokenizer's."""
        found: Tensor = self.tokenizer.quantizer.lookup(codes)
        return found

    def _check_plan(self, context: Context, actions: Tensor) -> None:
        if actions.shape[-1] != self.action_dim:
            raise UsageError(f"actions: expected {self.action_dim} values per step, got {actions.shape[-1]}")
        if actions.shape[2] % self.stride:
            raise UsageError(
                f"policy.horizon must be a multiple of the model's stride of {self.stride}, got {actions.shape[2]}"
            )
        if context.frames.shape[1] != self.history:
            raise UsageError(f"context: expected {self.history} frames, got {context.frames.shape[1]}")

    def _parts(
        self, context: Context, candidates: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, torch.Generator | None]]:
        """Rows int64 [R] of environments and candidates to be predicted together, and what they draw from."""
        keys, steps = context.keys.tolist(), context.steps.tolist()
        rows = torch.arange(len(keys) * candidates, device=context.frames.device)
        if not self._draws:
            yield from ((part, None) for part in rows.split(self._rows))
            return
        for environment, own in enumerate(rows.split(candidates)):
            source = generator or torch_generator(keys[environment], "predict", steps[environment])
            yield from ((part, source) for part in own.split(self._rows))

    def _clip(self, frames: UInt8[Tensor, "B T S S 3"]) -> Int[Tensor, "B T N"]:
        return self.codes(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _decoded(self, codes: Int[Tensor, "B K F N"]) -> Tensor | None:
        if self._frames == "none":
            return None
        wanted = codes if self._frames == "all" else codes[:, :, -1:]
        parts = [self.tokenizer.decode(part) for part in wanted.flatten(0, 2).split(self._rows)]
        return torch.cat(parts).unflatten(0, wanted.shape[:3])


def clip_batch(
    seen: Int[Tensor, "R T N"], done: Float[Tensor, "R T-1 V"], moves: Float[Tensor, "R F V"]
) -> dict[str, Tensor]:
    """Clips of T + F frames as `datasets.loading.clips.ClipDataset` gives them, what is to be predicted being zero.

    Args:
        seen: codes of the frames until now.
        done: between them.
        moves: from the present on, of which each leads to one frame more.
    """
    rows, frames = moves.shape[:2]
    nothing = moves.new_zeros(rows, 1, moves.shape[2])  # after the last frame
    steps = seen.shape[1] + frames
    away = torch.zeros(rows, steps, dtype=torch.bool, device=seen.device)
    away[:, -1] = True
    return {
        CODES: torch.cat([seen, seen.new_zeros(rows, frames, seen.shape[2])], dim=1),
        ACTION: torch.cat([done, moves, nothing], dim=1),
        ACTION + PAD_SUFFIX: away,
    }
