"""What a behaviour-cloning policy does at a step: look, plan where a plan is due, execute.

A carry is a dict of tensors with a row per episode, and zero at its start but for the instruction:

    started     bool [B]            whether the episode has had a step
    step, key   int64 [B]           which step it is; what its noise is drawn from
    features    [B, T-1, ...]       the moments before the present one, oldest first
    states      [B, T-1, P]; with a sequence encoder memories, see `necks.sequence.recall`
    acted       [B, A]              the last action, with a sequence encoder
    instruction [B, E]              its embedding, of a policy that follows instructions
    queue, left                     `chunk_execution.ChunkQueue`
    total, weight, number           `temporal_ensemble.EnsembleCarry`, with temporal ensembling
    hidden, cell, age               `rnn_gmm.RNNCarry`, of a recurrent head

Legend: B environments, R of them that plan now, T moments of history, P proprioception,
E width of an instruction, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import INSTRUCTION, STATE
from embodied.policies.chunk_execution import ChunkQueue, advance, episode_noise, initial_queue, refill
from embodied.policies.heads.rnn_gmm import RNNCarry, RNNGMMHead
from embodied.policies.heads.temporal_ensemble import EnsembleCarry, ensemble, initial_ensemble
from embodied.policies.necks.sequence import recall

if TYPE_CHECKING:
    from embodied.encoders.text.instructions import Instructions
    from embodied.policies.bc import BCPolicy

Carry = dict[str, Tensor]


def initial_plans(policy: BCPolicy, batch_size: int, instructions: Sequence[str] | None = None) -> Carry:
    """The carry at the start of `batch_size` episodes, see `BCPolicy.initial`."""
    made, like = policy.assembly, policy.normalizer.offset
    past = 0 if made.recurrent else made.history - 1
    carry = {
        "started": torch.zeros(batch_size, dtype=torch.bool, device=like.device),
        "step": torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        "key": torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        "features": like.new_zeros(batch_size, past, *policy.feature_shape),
        "states": like.new_zeros(batch_size, past, policy.state_width),
    }
    if policy.recalls:
        carry["acted"] = like.new_zeros(batch_size, policy.action_dim)
    if policy.instructions is not None:
        carry[INSTRUCTION] = _instructed(policy.instructions, batch_size, instructions).to(like.device)
    if made.recurrent:
        return carry | _head(policy).initial(batch_size)._asdict()
    if made.ensemble is not None:
        return carry | initial_ensemble(batch_size, made.chunk, policy.action_dim, like=like)._asdict()
    queue = initial_queue(batch_size, made.chunk, policy.action_dim, like=like)
    return carry | {"queue": queue.actions, "left": queue.left}


def _instructed(embed: Instructions, batch_size: int, instructions: Sequence[str] | None) -> Tensor:
    """Embeddings [B, E]."""
    if instructions is None or len(instructions) != batch_size:
        given = "none" if instructions is None else len(instructions)
        raise UsageError(
            f"this policy follows instructions: initial({batch_size}, instructions=[...]) needs {batch_size}, "
            f"got {given}"
        )
    return embed(instructions)


def act_on(policy: BCPolicy, carry: Carry, observation: Mapping[str, Tensor]) -> tuple[Carry, Tensor]:
    """The next carry and what is planned from this step on, see `BCPolicy.act`."""
    made = policy.assembly
    carry = _begin(policy, carry, observation)
    every = torch.arange(len(carry["started"]), device=carry["started"].device)
    due = every
    if not made.recurrent and made.ensemble is None:
        due = (carry["left"] == 0).nonzero().flatten()
    seen = looks(policy, carry).nonzero().flatten()
    features = states = None
    if len(seen):
        features, states, carry = _look(policy, carry, observation, seen)
    if made.recurrent:
        carry, plan = _remember(policy, carry, features, states)
    elif made.ensemble is not None:
        chunk = _plan(policy, carry, features, states, every)
        average = EnsembleCarry(carry["total"], carry["weight"], carry["number"])
        frame = policy.action_frame
        average, action = ensemble(average, chunk, decay=made.ensemble, angles=None if frame is None else frame.turning)
        carry, plan = carry | average._asdict(), action[:, None]
    else:
        queue = ChunkQueue(carry["queue"], carry["left"])
        if len(due):
            chosen = torch.isin(seen, due)
            assert features is not None and states is not None
            chunk = _plan(policy, carry, features[chosen], states[chosen], due)
            queue = refill(queue, due, chunk, execute=made.execute)
        queue, plan = advance(queue)
        carry = carry | {"queue": queue.actions, "left": queue.left}
    if policy.recalls:
        carry = carry | {"acted": policy.executed(plan[:, 0])}
    return carry | {"started": torch.ones_like(carry["started"]), "step": carry["step"] + 1}, plan


def looks(policy: BCPolicy, carry: Carry) -> Tensor:
    """Whether the next `act` looks, bool [B]: not at moments that no plan's window will show."""
    made = policy.assembly
    if made.recurrent or made.ensemble is not None:
        return torch.ones_like(carry["started"])
    return carry["left"] < made.history


def _begin(policy: BCPolicy, carry: Carry, observation: Mapping[str, Tensor]) -> Carry:
    """Episodes that have had no step get their key, where noise is drawn."""
    if _noise_shape(policy) is None or bool(carry["started"].all()):
        return carry
    fresh = (~carry["started"]).nonzero().flatten()
    keys = policy.noise_keys({name: tensor[fresh] for name, tensor in observation.items()})
    return carry | {"key": carry["key"].index_copy(0, fresh, keys.to(fresh.device))}


def _look(
    policy: BCPolicy, carry: Carry, observation: Mapping[str, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor, Carry]:
    """Windows of features [R, T, ...] and states [R, T, P] of some rows, and the carry after."""
    whole = len(rows) == len(carry["started"])
    shown = observation if whole else {name: tensor[rows] for name, tensor in observation.items()}
    features = policy.see(shown)[:, None]  # (R, 1, ...)
    state = shown[STATE] if policy.proprioception_dim else features.new_zeros(len(features), 0)
    if policy.recalls:
        state = recall(state, carry["acted"][rows], carry["step"][rows])
    state = state[:, None]  # (R, 1, P)
    if not carry["features"].shape[1]:
        return features, state, carry
    windows = {}
    for name, present in (("features", features), ("states", state)):
        started = carry["started"][rows].view(-1, *[1] * (present.ndim - 1))
        past = carry[name][rows]
        windows[name] = torch.cat([torch.where(started, past, present.expand_as(past)), present], dim=1)  # (R, T, ...)
    later = {name: carry[name].index_copy(0, rows, window[:, 1:]) for name, window in windows.items()}
    return windows["features"], windows["states"], carry | later


def _plan(policy: BCPolicy, carry: Carry, features: Tensor | None, states: Tensor | None, rows: Tensor) -> Tensor:
    """Chunks [R, H, A] in the environment's units."""
    assert features is not None
    instruction = carry[INSTRUCTION][rows] if INSTRUCTION in carry else None
    return policy.predict(features, states, instruction=instruction, noise=_noise(policy, carry, rows, like=features))


def _remember(policy: BCPolicy, carry: Carry, features: Tensor | None, states: Tensor | None) -> tuple[Carry, Tensor]:
    """One moment of a recurrent head."""
    assert features is not None and states is not None
    rows = torch.arange(len(features), device=features.device)
    memory = RNNCarry(carry["hidden"], carry["cell"], carry["age"])
    memory, action = _head(policy).step(
        memory,
        policy.acting.fuse(features, policy.seen_state(features, states), carry.get(INSTRUCTION))[:, 0],
        action_mask=policy.action_mask,
        noise=_noise(policy, carry, rows, like=features),
    )
    return carry | memory._asdict(), policy.restored(action, states)


def _noise_shape(policy: BCPolicy) -> tuple[int, ...] | None:
    shape = policy.acting.action_head.noise_shape(1)
    if shape is None:
        return None
    return shape[2:] if policy.assembly.recurrent else shape[1:]  # a recurrent head draws for one moment at a time


def _noise(policy: BCPolicy, carry: Carry, rows: Tensor, *, like: Tensor) -> Tensor | None:
    shape = _noise_shape(policy)
    return None if shape is None else episode_noise(carry["key"][rows], carry["step"][rows], shape, like=like)


def _head(policy: BCPolicy) -> RNNGMMHead:
    head = policy.acting.head
    assert isinstance(head, RNNGMMHead), type(head)
    return head
