"""BC-RNN-GMM: an LSTM with a mixture of Gaussians per step (Mandlekar et al. 2021, https://arxiv.org/abs/2108.03298).

Legend: B batch, T moments of observation, V values of a moment, A action dimensions, M modes, L layers, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import ChunkHead, Target, visible
from embodied.policies.heads.mixture import Mixture, MixtureLayer, nats_per_step
from embodied.policies.heads.randomness import given_or_drawn


class RNNCarry(NamedTuple):
    """What the LSTM remembers: `hidden`, `cell` float [B, L, D], and `age` int64 [B], steps since the last reset."""

    hidden: Tensor
    cell: Tensor
    age: Tensor


class RNNGMMHead(ChunkHead):
    """The LSTM reads moment by moment and gives a mixture for the action of each: H = T, action t belongs to moment t.

    On a robot use `initial` and `step`: one action per moment, the state forgotten every T steps, since it was never
    trained beyond. `sample` reads a window from its start and answers the actions of all its moments, the present
    one's last.

    Departure: the loss uses the learned deviations in eval mode too.

    Args:
        feature_dim, action_dim: V, A.
        history: T.
        horizon: H; must equal T if it is given.
        width: D, robomimic's 400 for states and 1000 for images.
        layers: L.
        modes: M.
        min_std: smallest deviation while training.
        low_noise_eval: samples spread by 1e-4 around the mode they picked instead of by its deviation.
    """

    bounded = True

    def __init__(
        self,
        *,
        feature_dim: int,
        action_dim: int,
        history: int = 10,
        horizon: int | None = None,
        width: int = 1000,
        layers: int = 2,
        modes: int = 5,
        min_std: float = 1e-4,
        low_noise_eval: bool = True,
    ) -> None:
        if horizon not in {None, history}:
            raise UsageError(f"rnn_gmm gives one action per moment: horizon must be history={history}, got {horizon}")
        super().__init__(feature_dim=feature_dim, action_dim=action_dim, history=history, horizon=history)
        self.low_noise_std = 1e-4 if low_noise_eval else None
        self.lstm = nn.LSTM(feature_dim, width, num_layers=layers, batch_first=True)
        self.mixture = MixtureLayer(width=width, values=action_dim, modes=modes, min_std=min_std)

    def forward(self, features: Float[Tensor, "B T V"]) -> Mixture:
        """A mixture for every moment, [B, T, ...]."""
        outputs, _ = self.lstm(features)
        return self.mixture(outputs)

    def chunk_loss(
        self, features: Float[Tensor, "B T V"], target: Target, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Negative log-likelihood in nats per real step."""
        likelihood = self(features).log_prob(target.actions, target.weight)  # (B, T), 0 where nothing is real
        return nats_per_step(likelihood, target)

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """[B, T, 1 + A]: for each step the choice of the mode, then the spread."""
        return (batch_size, self.horizon, 1 + self.action_dim)

    def chunk(
        self, features: Float[Tensor, "B T V"], noise: Tensor, action_mask: Tensor | None
    ) -> Float[Tensor, "B T A"]:
        """The actions of all moments of the window, each drawn by itself; not clipped to [-1, 1]."""
        return self(features).draw(noise, std=self.low_noise_std)

    def initial(self, batch_size: int) -> RNNCarry:
        """The carry at the start of `batch_size` episodes."""
        weight = self.mixture.logit.weight
        zeros = weight.new_zeros(batch_size, self.lstm.num_layers, self.lstm.hidden_size)
        return RNNCarry(zeros, zeros, torch.zeros(batch_size, dtype=torch.int64, device=weight.device))

    def step(
        self,
        carry: RNNCarry,
        features: Float[Tensor, "B V"],
        *,
        action_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[RNNCarry, Float[Tensor, "B 1 A"]]:
        """The next carry and the action of this moment, as a chunk of one; `noise` [B, 1 + A] as in `sample`."""
        fresh = (carry.age == self.history)[:, None, None]
        hidden, cell = (state.masked_fill(fresh, 0.0).transpose(0, 1).contiguous() for state in carry[:2])
        outputs, (hidden, cell) = self.lstm(features[:, None], (hidden, cell))
        noise = given_or_drawn(noise, (features.shape[0], 1 + self.action_dim), generator, like=features)
        action = self.mixture(outputs).draw(noise[:, None], std=self.low_noise_std)  # (B, 1, A)
        age = torch.where(fresh[:, 0, 0], 1, carry.age + 1)
        return RNNCarry(hidden.transpose(0, 1), cell.transpose(0, 1), age), visible(action, action_mask)


HEAD = RNNGMMHead
