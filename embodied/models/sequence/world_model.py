"""What a planner asks of a world model, whatever it is: a video model, a latent one, or the simulator itself.

Legend: B environments, T frames seen, K candidates, H actions of a plan, F predicted frames, A action, L actions of an
episode at most, N codes of a frame, D width of a feature, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Context:
    """What has been seen and done until now, a row per environment; the last frame is the present.

    Args:
        frames: one per step of the environment. Where an episode is younger than T frames, its first is repeated.
        actions: in units of the environment: `actions[:, t]` was done between the frames t and t+1; zero where an
            episode is younger.
        steps: actions since the episode began.
        keys: a number that tells episodes apart; what a model draws for one depends on its key and step alone.
        seeds: that the simulator started the episodes with; None: not told. See `WorldModel.privileged`.
        past: all actions since the episodes began, of which `steps` of a row count; None: not told.
    """

    frames: UInt8[Tensor, "B T S S 3"]
    actions: Float[Tensor, "B T-1 A"]
    steps: Int[Tensor, " B"]
    keys: Int[Tensor, " B"]
    seeds: Int[Tensor, " B"] | None = None
    past: Float[Tensor, "B L A"] | None = None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What a model says would follow; at least one of these is there. The last frame is that after the last action.

    Args:
        frames: F of them, as many as the model was made to show.
        codes: of the model's tokenizer.
        features: of a model that predicts those.
        rewards: of a model that knows them, one per action.
    """

    frames: UInt8[Tensor, "B K F S S 3"] | None = None
    codes: Int[Tensor, "B K F N"] | None = None
    features: Float[Tensor, "B K F D"] | None = None
    rewards: Float[Tensor, "B K H"] | None = None


class WorldModel(Protocol):
    """Continues what was seen under candidates of what could be done."""

    history: int  # T, frames of a context that it reads: one per step of the environment, at least 1
    stride: int  # actions per predicted frame: H must be a multiple of it
    limit: int | None  # H at most; None: any
    privileged: bool  # it is the simulator: it needs `seeds` and `past` of a context

    def rollout(
        self,
        context: Context,
        actions: Float[Tensor, "B K H A"],
        *,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """What follows the present under candidates, in units of the environment.

        What it says of an environment does not depend on the others in the batch.

        Args:
            context: the past, with T frames.
            actions: inside the action space.
            generator: on the CPU, for a model that draws; None: it draws by keys and steps of the context.

        Raises:
            UsageError: the actions have another size than those that it knows, or there are too many of them.
        """
        ...

    def shows(self, frames: UInt8[Tensor, "B S S 3"]) -> UInt8[Tensor, "B _ _ 3"]:
        """Frames as this model would show them, so that goals and predictions differ by what happens alone."""
        ...


class TokenModel(WorldModel, Protocol):
    """A model that predicts codes of frames."""

    def codes(self, frames: UInt8[Tensor, "B S S 3"]) -> Int[Tensor, "B N"]:
        """The codes of frames."""
        ...

    def code_vectors(self, codes: Int[Tensor, "*batch N"]) -> Float[Tensor, "*batch N D"]:
        """What the codes stand for."""
        ...
