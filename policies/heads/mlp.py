"""Regression of a chunk by a multilayer perceptron.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import unknown_name
from embodied.policies.heads.chunks import ChunkHead, Sizes, Target, weighted_mean
from embodied.policies.heads.networks.feedforward import feedforward

Error = Literal["mse", "l1", "huber"]


class BatchNormMLP(nn.Module):
    """The policy network of VC-1 / CortexBench: BatchNorm on the whole input, then an MLP.

    Source: Majumdar et al. 2023 (arXiv 2303.18240), facebookresearch/eai-vc with aravindr93/mjrl `fc_network.py`:
    BatchNorm1d -> Linear 256 -> 256 -> 256 -> action, ReLU, last layer's weights times 1e-2.
    """

    def __init__(self, input_dim: int, action_dim: int, *, hidden: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(input_dim)]
        width = input_dim
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        last = nn.Linear(width, action_dim)
        with torch.no_grad():
            last.weight.mul_(1e-2)
        self.network = nn.Sequential(*layers, last)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B A"]:
        return self.network(inputs)


class MLPHead(ChunkHead):
    """One forward pass gives the whole chunk. It answers the mean (mse) or median (l1) where demonstrations disagree.

    Sources: robomimic (Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298), `BC`, for the defaults;
    VC-1 (https://arxiv.org/abs/2303.18240) by `vc1`; HPT (Wang et al. 2024, https://arxiv.org/abs/2409.20537),
    `MLP` head, by `hpt`.

    Args:
        feature_dim: V.
        history: T.
        horizon: H.
        action_dim: A.
        hidden: widths of the hidden layers, ReLU between.
        error: what is averaged over real steps and dimensions.
        beta: of `huber`, in normalised units: error^2 / (2 beta) below it, |error| - beta / 2 above (torch's smooth
            L1, one over beta times its Huber loss).
        batch_norm: VC-1's network, see `BatchNormMLP`.
        tanh: actions are squashed into [-1, 1].
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 1,
        horizon: int = 1,
        hidden: Sequence[int] = (1024, 1024),
        error: Error = "mse",
        beta: float = 0.05,
        batch_norm: bool = False,
        tanh: bool = False,
    ) -> None:
        if error not in get_args(Error):
            raise unknown_name("error", error, get_args(Error))
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=horizon)
        self.error, self.beta, self.bounded = error, beta, tanh
        inputs, outputs = history * feature_dim, horizon * action_dim
        self.network: nn.Module = (
            BatchNormMLP(inputs, outputs, hidden=hidden) if batch_norm else feedforward((inputs, *hidden, outputs))
        )

    @classmethod
    def vc1(cls, *, history: int = 3, horizon: int = 1, **sizes: Unpack[Sizes]) -> MLPHead:
        """CortexBench's head: BatchNorm, 256 x 3, mean squared error."""
        return cls(**sizes, history=history, horizon=horizon, hidden=(256, 256, 256), batch_norm=True)

    @classmethod
    def hpt(cls, *, history: int = 1, horizon: int = 8, **sizes: Unpack[Sizes]) -> MLPHead:
        """HPT's: 256, 128, tanh at the end, smooth L1 with beta 0.05. Departure: ReLU, there SiLU and layer norms."""
        return cls(**sizes, history=history, horizon=horizon, hidden=(256, 128), error="huber", tanh=True)

    def forward(self, features: Float[Tensor, "B T V"]) -> Float[Tensor, "B H A"]:
        chunk = self.network(features.flatten(1)).unflatten(1, (self.horizon, self.action_dim))  # (B, H, A)
        return chunk.tanh() if self.bounded else chunk

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Error averaged over what is real. Nothing is drawn."""
        actions, weight = target.actions, target.weight
        predicted = self(features)
        if self.error == "mse":
            error = F.mse_loss(predicted, actions, reduction="none")
        elif self.error == "l1":
            error = F.l1_loss(predicted, actions, reduction="none")
        else:
            error = F.smooth_l1_loss(predicted, actions, reduction="none", beta=self.beta)
        distance = weighted_mean((predicted.detach() - actions).abs(), weight)
        return weighted_mean(error, weight), {"action_error": distance}

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B H A"]:
        """The predicted chunk."""
        return self(features)


HEAD = MLPHead
