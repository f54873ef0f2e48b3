"""What a planning policy remembers of an episode, a row each, zero at its start but for what it is told.

    started  bool [B]           whether the episode has had a step
    step     int64 [B]          actions so far
    key      int64 [B]          what its noise is drawn from
    seed     int64 [B]          of the simulator, where the model is the simulator
    goal     int64 [B]          which goal it has
    frames   uint8 [B, T-1, S, S, 3]  before the present one, oldest first
    acted    [B, T-1, A]        the actions between them and the present
    past     [B, L, A]          all actions, where the model is the simulator
    mean     [B, H, A]          where the next search starts
    queue, left                 `chunk_execution.ChunkQueue`

Legend: B environments, R of them that plan now, T frames that the model reads, H actions of a plan, A action,
L actions of an episode at most, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.models.sequence.world_model import Context, WorldModel
from embodied.policies.chunk_execution import initial_queue

Carry = dict[str, Tensor]
LONG = 1 << 40  # actions


def initial_memory(
    batch_size: int,
    *,
    model: WorldModel,
    mean: Float[Tensor, "H A"],
    image_size: int,
    episode_steps: int,
    seeds: Sequence[int] | None,
) -> Carry:
    """The carry at the start of episodes.

    Args:
        batch_size: B.
        model: which decides what has to be remembered.
        mean: where the first search starts.
        image_size: S.
        episode_steps: L.
        seeds: of the simulator, for a privileged model.

    Raises:
        UsageError: a privileged model is told no seeds.
    """
    device, past = mean.device, model.history - 1
    numbers = torch.zeros(batch_size, dtype=torch.int64, device=device)
    carry: Carry = {
        "started": torch.zeros(batch_size, dtype=torch.bool, device=device),
        **{name: numbers.clone() for name in ("step", "key", "goal")},
        "frames": torch.zeros(batch_size, past, image_size, image_size, 3, dtype=torch.uint8, device=device),
        "acted": mean.new_zeros(batch_size, past, mean.shape[1]),
        "mean": mean.expand(batch_size, *mean.shape).clone(),
    }
    if model.privileged:
        if seeds is None or len(seeds) != batch_size:
            raise UsageError(
                "policy.model=simulator is told the seed of every episode, as embodied train and evaluate do: it plans "
                "in simulation, not on a robot"
            )
        carry["seed"] = torch.tensor(list(seeds), dtype=torch.int64, device=device)
        carry["past"] = mean.new_zeros(batch_size, episode_steps, mean.shape[1])
    queue = initial_queue(batch_size, mean.shape[0], mean.shape[1], like=mean)
    return carry | {"queue": queue.actions, "left": queue.left}


def context_of(carry: Carry, frames: UInt8[Tensor, "B S S 3"], rows: Int[Tensor, " R"]) -> Context:
    """What the model is told of some environments, at their present frames."""
    return Context(
        frames=torch.cat([carry["frames"][rows], frames[rows, None]], dim=1),
        actions=carry["acted"][rows],
        steps=carry["step"][rows],
        keys=carry["key"][rows],
        seeds=carry["seed"][rows] if "seed" in carry else None,
        past=carry["past"][rows] if "past" in carry else None,
    )


def remember(carry: Carry, frames: UInt8[Tensor, "B S S 3"], action: Float[Tensor, "B A"]) -> Carry:
    """The carry after an action was taken at these frames."""
    found = {**carry, "step": carry["step"] + 1}
    if carry["frames"].shape[1]:
        found["frames"] = torch.cat([carry["frames"][:, 1:], frames[:, None]], dim=1)
        found["acted"] = torch.cat([carry["acted"][:, 1:], action[:, None]], dim=1)
    if "past" in carry:
        length = carry["past"].shape[1]
        place = carry["step"].clamp(max=length - 1)  # of a slot at rest, whose actions go nowhere
        found["past"] = carry["past"].scatter(1, place[:, None, None].expand(-1, 1, action.shape[1]), action[:, None])
    return found


def at_rest(carry: Carry, resting: Bool[Tensor, " B"]) -> Carry:
    """The carry with nothing to plan for episodes that are over."""
    return {**carry, "left": carry["left"].masked_fill(resting, LONG)}


def first_frames(carry: Carry, frames: UInt8[Tensor, "B S S 3"]) -> Carry:
    """The carry with the first frame of an episode in place of those before it, where one begins."""
    if not carry["frames"].shape[1]:
        return carry
    fresh = ~carry["started"]
    held = torch.where(fresh[:, None, None, None, None], frames[:, None], carry["frames"])
    return {**carry, "frames": held}
