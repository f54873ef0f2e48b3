"""What a predicted future costs: how far it is from a goal, or how little reward it promises.

Legend: B environments, K candidates, F predicted frames, H actions, N codes of a frame, D width, V values of a feature,
S image side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from embodied.core.errors import UsageError, unknown_name
from embodied.models.sequence.world_model import Rollout, TokenModel, WorldModel

Kind = Literal["pixels", "features", "tokens", "reward"]
Over = Literal["last", "all"]
Distance = Literal["squared", "l1", "cosine"]
Featurize = Callable[[UInt8[Tensor, "M S S 3"]], Float[Tensor, "M V"]]
"""Features of frames."""


class Cost(Protocol):
    """What a planner minimises."""

    def goal(self, model: WorldModel, frames: UInt8[Tensor, "B S S 3"]) -> Tensor:
        """What it compares predictions with, a row per goal; empty rows where it knows no goals."""
        ...

    def __call__(self, rollout: Rollout, goal: Tensor) -> Float[Tensor, "B K"]:
        """Less is better."""
        ...


@dataclass(frozen=True, kw_only=True)
class PixelCost:
    """The sum of squared errors of all pixels in [0, 1] (VP2's `mse_rgb`), over `all` predicted frames or the `last`.

    The goal is seen through the model (`WorldModel.shows`), so that what a tokenizer loses counts nowhere.
    """

    over: Over = "all"

    def goal(self, model: WorldModel, frames: UInt8[Tensor, "B S S 3"]) -> UInt8[Tensor, "B _ _ 3"]:
        """The goal's frame."""
        return model.shows(frames)

    def __call__(self, rollout: Rollout, goal: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B K"]:
        """See the class."""
        frames = looked_at(rollout.frames, self.over, "policy.cost=pixels")
        error = frames.float().sub_(goal[:, None, None].float()).div_(255)  # (B, K, F, S, S, 3)
        return error.square_().flatten(2).sum(dim=2)


@dataclass(frozen=True, kw_only=True)
class FeatureCost:
    """The distance of a frozen encoder's features from the goal's, the mean over `all` predicted frames or the `last`.

    Args:
        featurize: features of frames.
        distance: `squared` or `l1`, the mean over values (V-JEPA 2-AC has l1 of the last frame); `cosine`, 1 - cosine.
        over: which frames.
    """

    featurize: Featurize
    distance: Distance = "l1"
    over: Over = "last"

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise unknown_name("policy.distance", str(self.distance), get_args(Distance))

    def goal(self, model: WorldModel, frames: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B V"]:
        """The goal's features."""
        return self.featurize(model.shows(frames))

    def __call__(self, rollout: Rollout, goal: Float[Tensor, "B V"]) -> Float[Tensor, "B K"]:
        """See the class."""
        frames = looked_at(rollout.frames, self.over, "policy.cost=features")
        features = self.featurize(frames.flatten(0, 2)).unflatten(0, frames.shape[:3])  # (B, K, F, V)
        wanted = goal[:, None, None]
        if self.distance == "cosine":
            return (1 - functional.cosine_similarity(features, wanted, dim=-1)).mean(dim=2)
        error = (features - wanted).abs()
        return (error if self.distance == "l1" else error.square()).mean(dim=(2, 3))


@dataclass(frozen=True, kw_only=True)
class TokenCost:
    """The mean squared distance of predicted codes' vectors from the goal's, place by place: nothing is decoded."""

    model: TokenModel
    over: Over = "last"

    def goal(self, model: WorldModel, frames: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B N D"]:
        """The vectors of the goal's codes."""
        return self.model.code_vectors(self.model.codes(frames)).float()

    def __call__(self, rollout: Rollout, goal: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        """See the class."""
        codes = looked_at(rollout.codes, self.over, "policy.cost=tokens")
        error = self.model.code_vectors(codes).float() - goal[:, None, None]  # (B, K, F, N, D)
        return error.square().mean(dim=(2, 3, 4))


@dataclass(frozen=True, kw_only=True)
class RewardCost:
    """Minus the mean reward: the model's own where it knows them, else what a head reads out of predicted frames.

    Args:
        worth: the head, on frames; None: the model has rewards.
        over: which frames the head reads.
    """

    worth: Callable[[UInt8[Tensor, "M S S 3"]], Float[Tensor, " M"]] | None = None
    over: Over = "all"

    def goal(self, model: WorldModel, frames: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B 0"]:
        """It knows none."""
        return torch.zeros(len(frames), 0, device=frames.device)

    def __call__(self, rollout: Rollout, goal: Tensor) -> Float[Tensor, "B K"]:
        """See the class."""
        if self.worth is None:
            if rollout.rewards is None:
                raise UsageError("policy.cost=reward: this model gives no rewards, and there is no head to read them")
            return -rollout.rewards.mean(dim=2)
        frames = looked_at(rollout.frames, self.over, "policy.cost=reward")
        return -self.worth(frames.flatten(0, 2)).unflatten(0, frames.shape[:3]).mean(dim=2)


def looked_at(predicted: Tensor | None, over: Over, name: str) -> Tensor:
    """The predicted frames or codes [B, K, F, ...] that count.

    Raises:
        UsageError: the model predicts none.
    """
    if predicted is None:
        raise UsageError(f"{name} looks at what this model does not predict: choose another policy.cost")
    return predicted if over == "all" else predicted[:, :, -1:]


def chosen_frames(kind: str, over: str | None, *, reads: bool) -> tuple[Over, Literal["none", "last", "all"]]:
    """The predicted frames that count, and those that have to be pictures.

    Args:
        kind: of the cost.
        over: as asked for; None: `all` for pixels and rewards, the `last` for others.
        reads: whether a head reads rewards out of frames.

    Raises:
        UsageError: there is no such cost, or no such choice.
    """
    if kind not in get_args(Kind):
        raise unknown_name("policy.cost", str(kind), get_args(Kind))
    if over is not None and over not in get_args(Over):
        raise unknown_name("policy.over", str(over), get_args(Over))
    chosen: Over = "all" if over == "all" or (over is None and kind in ("pixels", "reward")) else "last"
    blind = kind == "tokens" or (kind == "reward" and not reads)
    return chosen, "none" if blind else chosen
