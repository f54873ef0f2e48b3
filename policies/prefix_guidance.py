"""Chunks that go on where the last one is: real-time chunking (Black, Galliker, Levine 2025, arXiv 2506.07339).

While a policy plans, the robot goes on with the plan before. What it will have executed by then is frozen in the new
chunk, and the rest of the old plan guides it, less and less towards its end, so that two chunks do not contradict each
other where one takes over. Works on trained flow and diffusion heads as they are.

Legend: B batch, T moments, V values of a moment, H chunk, A action; d frozen steps, n known steps of the old plan.
Where the paper has time 0 for noise and 1 for actions, `tau` runs from 1 to 0 here, as in `heads.flow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.policies.heads.chunks import visible
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.flow import FlowHead

LARGEST_WEIGHT = 5.0  # beta of the paper: more makes few-step samplers unstable


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The plan that is being executed.

    Attributes:
        actions: normalised, [B, H, A], from the present step on; what is behind `known` does not matter.
        frozen: d, steps that will have been executed before the new chunk is there.
        known: n >= d, steps of the old plan.
    """

    actions: Tensor
    frozen: int
    known: int

    def __post_init__(self) -> None:
        if not 0 <= self.frozen <= self.known <= self.actions.shape[1]:
            horizon = self.actions.shape[1]
            raise UsageError(f"expected 0 <= frozen <= known <= {horizon}, got {self.frozen} and {self.known}")


def soft_mask(horizon: int, *, frozen: int, known: int) -> Float[Tensor, " H"]:
    """Eq. (5): 1 where frozen, then falling exponentially to the end of the old plan, 0 behind it."""
    steps = torch.arange(horizon, dtype=torch.float32)
    share = (known - steps) / (known - frozen + 1)
    falling = share * torch.expm1(share) / (torch.e - 1)
    weights = torch.where(steps < frozen, torch.ones(()), falling)
    return torch.where(steps < known, weights, torch.zeros(()))


def can_guide(head: object) -> bool:
    """Whether `guided_chunk` can sample from a head."""
    return isinstance(head, FlowHead | DiffusionHead)


def guided_chunk(
    head: FlowHead | DiffusionHead,
    features: Float[Tensor, "B T V"],
    noise: Tensor,
    prefix: Prefix,
    *,
    action_mask: Tensor | None = None,
    largest: float = LARGEST_WEIGHT,
) -> Float[Tensor, "B H A"]:
    """A sample of the head, normalised, that goes on from `prefix`; its frozen steps are those of the prefix, exactly.

    A departure from the paper: there they are only guided with weight 1, here they are set at the end as well, since
    what was executed is known.

    Args:
        noise: of the head's `noise_shape`.
    """
    # Guidance needs gradients: inference mode is left, and what was made in it is copied.
    with torch.inference_mode(False), torch.enable_grad():
        weights = soft_mask(head.horizon, frozen=prefix.frozen, known=prefix.known).to(features)[None, :, None]
        seen, start, wanted = (tensor.detach().clone() for tensor in (features, noise, prefix.actions.to(features)))
        if isinstance(head, FlowHead):
            chunk = _flow(head, seen, start, wanted, weights, action_mask, largest)
        else:
            chunk = _diffusion(head, seen, start, wanted, weights, action_mask, largest)
        chunk = torch.cat([wanted[:, : prefix.frozen], chunk.detach()[:, prefix.frozen :]], dim=1)
    return visible(chunk, action_mask)


def _pull(
    clean: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, wanted: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The network's output at x [B, H, A], and the gradient (wanted - clean) diag(W) d clean / d x of Eq. (2)."""
    x = x.detach().requires_grad_()
    estimate, output = clean(x)
    error = ((wanted - estimate) * weights).detach()
    (gradient,) = torch.autograd.grad(estimate, x, error)
    return output.detach(), gradient


def _flow(
    head: FlowHead,
    features: Tensor,
    noise: Tensor,
    wanted: Tensor,
    weights: Tensor,
    action_mask: Tensor | None,
    largest: float,
) -> Tensor:
    """Algorithm 1: Euler steps of the guided velocity."""
    x = visible(noise, action_mask)
    for step in range(head.sample_steps):
        place = 1 - step / head.sample_steps  # tau
        tau = torch.full((x.shape[0],), place, device=x.device, dtype=x.dtype)

        def clean(x: Tensor, tau: Tensor = tau, place: float = place) -> tuple[Tensor, Tensor]:
            velocity = head.network(x, tau, features)
            return x - place * velocity, velocity  # Eq. (3)

        velocity, gradient = _pull(clean, x, wanted, weights)
        done = 1 - place  # the paper's tau
        radius = place**2 / (done**2 + place**2)  # Eq. (4)
        weight = largest if done == 0 else min(largest, place / (done * radius))
        x = visible(x.detach() - (velocity - weight * gradient) / head.sample_steps, action_mask)
    return x


def _diffusion(
    head: DiffusionHead,
    features: Tensor,
    noise: Tensor,
    wanted: Tensor,
    weights: Tensor,
    action_mask: Tensor | None,
    largest: float,
) -> Tensor:
    """The same guidance in the steps of DDPM or DDIM, as Song et al. 2023 have it ("Pseudoinverse-guided diffusion
    models for inverse problems", ICLR, Algorithm 1): sqrt(alpha_bar) times the gradient is added to each step.
    """
    schedule, x = head.schedule, visible(noise[:, 0], action_mask)
    for number, (t, after) in enumerate(schedule.levels_down(head.sample_steps), start=1):
        level = torch.full((x.shape[0],), t, device=x.device)
        signal = schedule.alpha_bars[t]

        def clean(x: Tensor, level: Tensor = level, signal: Tensor = signal) -> tuple[Tensor, Tensor]:
            output = head.network(x, level, features)
            if schedule.prediction == "sample":
                return output, output
            return (x - (1 - signal).sqrt() * output) / signal.sqrt(), output

        output, gradient = _pull(clean, x, wanted, weights)
        if head.sampler == "ddim":
            following = schedule.ddim_step(output, x.detach(), t=t, after=after)
        else:
            fresh = noise[:, number] if after >= 0 else torch.zeros_like(x)
            following = schedule.ddpm_step(output, x.detach(), fresh, t=t, after=after)
        x = visible(following + signal.sqrt().clamp(max=largest) * gradient, action_mask)
    return x
