"""Closed-loop evaluation: several environments side by side, one batched policy call per step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from embodied.core.protocols import Carry, Policy, Reporter


class SlotEnvironment(Protocol):
    """Several environments stepped together (`envs.vector` makes one)."""

    num_envs: int
    single_action_space: Any

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]: ...


class ResetSlots(Protocol):
    """Resets the slots that have a seed and returns the observations of all."""

    def __call__(self, environment: Any, seeds: Sequence[int | None], /) -> dict[str, np.ndarray]: ...


class InstructedPolicy(Policy, Protocol):
    """A policy that is told what to do."""

    def initial(self, batch_size: int, *, instructions: Sequence[str] | None = None) -> Carry:
        """The carry at the start of `batch_size` episodes with these instructions."""
        ...


class ReadInstructions(Protocol):
    """What is to be done in each slot, asked whenever episodes have started."""

    def __call__(self, environment: Any, /) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One evaluation episode.

    `success`: at its end, by the suite's rule; `success_once`: at any step. `score`: the suite's measure, in [0, 1].
    `frames` uint8 [T, H, W, 3] only where recording was asked for.
    """

    seed: int
    success: bool
    steps: int
    total_reward: float
    score: float
    success_once: bool
    frames: np.ndarray | None = field(default=None, repr=False, compare=False)

    def record(self) -> dict[str, Any]:
        """JSON-able, without the frames."""
        fields = asdict(self)
        del fields["frames"]
        return fields


@dataclass
class _Slot:
    seed: int
    order: int
    steps: int = 0
    total_reward: float = 0.0
    frames: list[np.ndarray] = field(default_factory=list)


class _Recorder:
    """Keeps the frames of the first success and the first failure, no more: memory stays small."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self._kept: set[bool] = set()

    def keep(self, slot: _Slot, *, success: bool) -> np.ndarray | None:
        if not slot.frames or success in self._kept:
            return None
        self._kept.add(success)
        return np.stack(slot.frames)


def evaluate(
    policy: Policy,
    environment: SlotEnvironment,
    reset_slots: ResetSlots,
    seeds: Sequence[int],
    *,
    device: torch.device,
    reporter: Reporter,
    description: str = "evaluate",
    record_key: str | None = None,
    read_instructions: ReadInstructions | None = None,
) -> list[Outcome]:
    """Run one episode per seed and return the outcomes in the order of `seeds`.

    A slot whose episode ends takes the next seed at once, so no environment waits for another one's failure. The
    order of the batched calls is a function of the seeds alone: the same call gives the same outcomes.

    Args:
        policy: in eval mode, on `device`.
        environment: as many slots as episodes that should run side by side.
        reset_slots: see `ResetSlots`.
        seeds: one per episode.
        device: where observations are put.
        reporter: shows progress.
        description: name of the progress bar.
        record_key: the observation to keep as frames for the first success and the first failure.
        read_instructions: for an `InstructedPolicy`.
    """
    recorder = _Recorder(record_key)
    stream = _episodes(policy, environment, reset_slots, seeds, device, recorder, read_instructions)
    finished = dict(reporter.track(stream, total=len(seeds), description=description))
    return [finished[order] for order in range(len(seeds))]


def _episodes(
    policy: Policy,
    environment: SlotEnvironment,
    reset_slots: ResetSlots,
    seeds: Sequence[int],
    device: torch.device,
    recorder: _Recorder,
    read_instructions: ReadInstructions | None,
) -> Iterable[tuple[int, Outcome]]:
    queue = list(enumerate(seeds))[::-1]
    count = environment.num_envs
    slots: list[_Slot | None] = [None] * count
    carry: Carry = None  # until the first episodes have started
    space = environment.single_action_space
    observation: dict[str, np.ndarray] = {}
    while True:
        starting: list[int | None] = [None] * count
        for index in range(count):
            if slots[index] is None and queue:
                order, seed = queue.pop()
                slots[index], starting[index] = _Slot(seed=seed, order=order), seed
        if any(seed is not None for seed in starting):
            observation = reset_slots(environment, starting)
            fresh = _begin(policy, count, environment, read_instructions)
            carry = fresh if carry is None else _restart(carry, fresh, [seed is not None for seed in starting])
        if all(slot is None for slot in slots):
            return
        _record(slots, observation, recorder.key)
        carry, chunk = policy.act(carry, to_tensors(observation, device))
        actions = np.clip(chunk[:, 0].cpu().numpy().astype(np.float32), space.low, space.high)
        observation, rewards, terminated, truncated, infos = environment.step(actions)
        for index, slot in enumerate(slots):
            if slot is None:
                continue
            slot.steps += 1
            slot.total_reward += float(rewards[index])
            if terminated[index] or truncated[index]:
                slots[index] = None
                success = bool(infos["success"][index])
                yield (
                    slot.order,
                    Outcome(
                        seed=slot.seed,
                        success=success,
                        steps=slot.steps,
                        total_reward=slot.total_reward,
                        score=float(infos["score"][index]),
                        success_once=bool(infos["success_once"][index]),
                        frames=recorder.keep(slot, success=success),
                    ),
                )


def _begin(policy: Policy, count: int, environment: SlotEnvironment, read: ReadInstructions | None) -> Carry:
    """The carry of episodes that start, a row per slot."""
    if read is None:
        return policy.initial(count)
    return cast(InstructedPolicy, policy).initial(count, instructions=read(environment))


def _record(slots: Sequence[_Slot | None], observation: Mapping[str, np.ndarray], key: str | None) -> None:
    if key is None:
        return
    for index, slot in enumerate(slots):
        if slot is not None:
            frame = observation[key][index]
            slot.frames.append((frame if frame.ndim == 3 else frame[-1]).copy())  # of a history the present one


def _restart(carry: dict[str, Tensor], fresh: dict[str, Tensor], restarted: Sequence[bool]) -> dict[str, Tensor]:
    """The carry with the rows of restarted episodes set back."""
    rows = {name: torch.tensor(restarted, device=tensor.device) for name, tensor in carry.items()}
    return {
        name: torch.where(rows[name].view(-1, *[1] * (tensor.ndim - 1)), fresh[name], tensor)
        for name, tensor in carry.items()
    }


def to_tensors(observation: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """A batch of observations as tensors on `device`; dtypes stay (images uint8)."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in observation.items()}
