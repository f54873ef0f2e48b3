"""A head that reads rewards or nearness to success out of a frozen encoder's features.

Legend: F frames, E episodes, B batch, V values of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from embodied.core.errors import UserError, unknown_name
from embodied.core.protocols import FEATURES, REWARD, SUCCESS
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.policies.heads.networks.feedforward import feedforward

Target = Literal["reward", "success"]
WORTH = "worth"


class RewardHead(nn.Module):
    """LayerNorm and an MLP to one number, trained by squared error on standardised targets.

    Args:
        width: V.
        hidden: widths of the MLP.
    """

    def __init__(self, *, width: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.LayerNorm(width), feedforward((width, *hidden, 1)))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.std: Tensor
        self.register_buffer("std", torch.ones(()))

    def fit(self, targets: Float[Tensor, " B"]) -> None:
        """Take mean and deviation of the targets.

        Raises:
            UserError: they are all the same, so that there is nothing to learn.
        """
        std = targets.std(correction=0)
        if not float(std) > 1e-6:
            raise UserError(
                f"policy.cost=reward: all {len(targets)} frames are worth the same ({float(targets.mean()):g}), so a "
                "head learns nothing: collect with collect.expert=mixed collect.only_successes=false, or choose "
                "another policy.reward.target"
            )
        self.mean.copy_(targets.mean())
        self.std.copy_(std)

    def forward(self, features: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
        """What frames are worth, in units of the targets."""
        return self.network(features)[:, 0] * self.std + self.mean

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The squared error of standardised targets: 1 is what the mean of the training targets reaches."""
        wanted = (batch[WORTH] - self.mean) / self.std
        found = (self(batch[FEATURES]) - self.mean) / self.std
        return functional.mse_loss(found, wanted), {}


class RewardSamples:
    """Frames as training samples.

    Args:
        features: of every frame.
        worth: their targets.
    """

    def __init__(self, features: Float[Tensor, "F V"], worth: Float[Tensor, " F"]) -> None:
        self.features, self.worth = features, worth

    def __len__(self) -> int:
        return len(self.worth)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """`features` [B, V] and `worth` [B] of some frames."""
        chosen = torch.from_numpy(indices)
        return {FEATURES: self.features[chosen], WORTH: self.worth[chosen]}


def frame_worth(
    store: EpisodeStore, *, episodes: int, target: Target, discount: float
) -> tuple[Float[Tensor, " F"], Bool[Tensor, " F"]]:
    """What each frame of the first episodes of a store is worth, and whether that is known.

    `reward`: `next.reward` of the action that led to the frame; of an episode's first nothing is known. `success`:
    discount^n, n being the actions from there to the first success of the episode; 0 where there is none. A store ends
    with the frame before the action that succeeds, so the frame that shows the success is never in it.

    Raises:
        UserError: the store has no such values.
    """
    if target not in get_args(Target):
        raise unknown_name("policy.reward.target", str(target), get_args(Target))
    key = REWARD if target == "reward" else SUCCESS
    lengths = store.lengths[:episodes]
    if key not in store.keys or not lengths:
        raise UserError(f"policy.cost=reward: {store.path} holds no {key}: collect a store, or choose another cost")
    values = store.read(key, 0, sum(lengths)).reshape(sum(lengths))
    worth, known, start = np.zeros(len(values), np.float32), np.ones(len(values), np.bool_), 0
    for length in lengths:
        rows = slice(start, start + length)
        if target == "reward":
            worth[rows][1:] = values[rows][:-1]
            known[start] = False
        else:
            worth[rows] = success_to_go(values[rows].astype(np.bool_), discount)
        start += length
    return torch.from_numpy(worth), torch.from_numpy(known)


def success_to_go(success: np.ndarray, discount: float) -> np.ndarray:
    """discount^n for every frame of an episode, n actions before its first success is seen; 0 where there is none.

    Args:
        success: bool [T], whether the action of each step led to success.
        discount: in (0, 1).
    """
    found = np.zeros(len(success), np.float32)
    if success.any():
        first = int(success.argmax())
        found[: first + 1] = discount ** (first + 1 - np.arange(first + 1))
        found[first + 1 :] = 1
    return found


def explained(predicted: Float[Tensor, " F"], targets: Float[Tensor, " F"]) -> float | None:
    """R2: the share of the targets' variance that predictions explain; 0 is what their mean reaches.

    None where targets do not vary.
    """
    total = (targets - targets.mean()).square().sum()
    return float(1 - (predicted - targets).square().sum() / total) if float(total) > 0 else None
