"""The forward and reverse process of diffusion, as `diffusers` defines it for Diffusion Policy.

Sources: DDPM (Ho et al. 2020, https://arxiv.org/abs/2006.11239), DDIM (Song et al. 2021,
https://arxiv.org/abs/2010.02502), the cosine schedule (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672).

Legend: t in 0..K-1, the number of a noise level; alpha_bar_t, the share of the signal's variance left at it.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name

Prediction = Literal["epsilon", "sample"]


class NoiseSchedule(nn.Module):
    """`squaredcos_cap_v2`: alpha_bar(s) = cos^2((s + 0.008) / 1.008 * pi / 2), betas capped at 0.999.

    Args:
        levels: K.
        prediction: what the network is trained to give, the noise or the clean actions.
        clip: the clean actions that a step infers are clipped to [-clip, clip]; None for no clipping.
    """

    def __init__(self, *, levels: int = 100, prediction: Prediction = "epsilon", clip: float | None = 1.0) -> None:
        super().__init__()
        if prediction not in get_args(Prediction):
            raise unknown_name("prediction", prediction, get_args(Prediction))
        self.levels, self.prediction, self.clip = levels, prediction, clip
        betas = [min(1 - _signal((t + 1) / levels) / _signal(t / levels), 0.999) for t in range(levels)]
        self.alpha_bars: Tensor
        self.register_buffer("alpha_bars", (1 - torch.tensor(betas)).cumprod(dim=0), persistent=False)

    def add_noise(
        self, actions: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B H A"]:
        """DDPM Eq. (4): x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps."""
        alpha_bar = self.alpha_bars[t][:, None, None]
        return alpha_bar.sqrt() * actions + (1 - alpha_bar).sqrt() * noise

    def levels_down(self, steps: int) -> list[tuple[int, int]]:
        """The levels (t, the one after it) of a reverse process with that many steps, -1 = clean.

        Evenly spaced from 0 up ("leading"): of 100 levels 10 steps use 90, 80, ..., 0.

        Raises:
            UsageError: steps is not in 1..K.
        """
        if not 1 <= steps <= self.levels:
            raise UsageError(f"sample_steps must be in 1..{self.levels} (the levels trained), got {steps}")
        stride = self.levels // steps
        levels = [number * stride for number in reversed(range(steps))]
        return list(zip(levels, [*levels[1:], -1], strict=True))

    def ddpm_step(self, output: Tensor, x: Tensor, noise: Tensor, *, t: int, after: int) -> Float[Tensor, "B H A"]:
        """DDPM Eq. (6), (7): from level t to level `after`, with the smaller of the paper's two variances.

        Args:
            output: of the network at level t.
            x: noisy actions at level t.
            noise: standard normal; the step to clean actions adds none of it.
        """
        alpha_bar, before = self._alpha_bar(t), self._alpha_bar(after)
        alpha = alpha_bar / before  # of the jump, which may span several levels
        clean, _ = self._clean_and_noise(output, x, alpha_bar)
        mean = (before.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - before) * x) / (1 - alpha_bar)
        if after < 0:
            return mean
        variance = (1 - before) / (1 - alpha_bar) * (1 - alpha)
        return mean + variance.clamp(min=1e-20).sqrt() * noise

    def ddim_step(self, output: Tensor, x: Tensor, *, t: int, after: int) -> Float[Tensor, "B H A"]:
        """DDIM Eq. (12) with eta = 0. The noise is the one that was predicted, not the one clipping implies."""
        clean, noise = self._clean_and_noise(output, x, self._alpha_bar(t))
        before = self._alpha_bar(after)
        return before.sqrt() * clean + (1 - before).sqrt() * noise

    def _alpha_bar(self, t: int) -> Tensor:
        return self.alpha_bars[t] if t >= 0 else torch.ones_like(self.alpha_bars[0])

    def _clean_and_noise(self, output: Tensor, x: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """x_0, clipped, and eps, as the network's output implies them."""
        if self.prediction == "epsilon":
            clean, noise = (x - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt(), output
        else:
            clean, noise = output, (x - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()
        return (clean if self.clip is None else clean.clamp(-self.clip, self.clip)), noise


def _signal(s: float) -> float:
    return math.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
