"""Closed-loop episodes in lanes: several environments stepped together, some of them for each of one or more policies.

A lane is one policy with episodes of its own in slots of its own; what it does is a function of its seeds alone,
whoever has the other slots. A slot whose episode ends takes the lane's next seed at once, so no environment waits for
another one's failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from embodied.core.protocols import Carry, Policy


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


class SparingPolicy(Policy, Protocol):
    """A policy that does not look at every step."""

    def looks(self, carry: Carry) -> Tensor:
        """Whether the next `act` with this carry looks at what cameras show, bool [B]."""
        ...


class SeededPolicy(Policy, Protocol):
    """A policy that is told the seeds of the environments, as one that plans with the simulator is."""

    told_seeds: bool

    def initial(self, batch_size: int, *, seeds: Sequence[int] | None = None) -> Carry:
        """The carry at the start of `batch_size` episodes with these seeds."""
        ...


class PlanningPolicy(Policy, Protocol):
    """A policy to which every step is dear."""

    def rest(self, carry: Carry, resting: Tensor) -> Carry:
        """The carry with nothing more to do for episodes, bool [B], that are over."""
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


Enough = Callable[[Sequence[Outcome]], bool]


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A policy's episodes.

    Args:
        policy: in eval mode, on the device of the evaluation.
        seeds: one per episode.
        slots: episodes side by side, at least one.
        record_key: the observation to keep as frames for the first success and the first failure.
        read_instructions: for an `InstructedPolicy`.
        enough: asked of the outcomes in the order of `seeds`, whenever there is one more without a gap; once it says
            yes, the lane ends with these, and later seeds count nowhere, whether their episodes have ended or not.
    """

    policy: Policy
    seeds: Sequence[int]
    slots: int
    record_key: str | None = None
    read_instructions: ReadInstructions | None = None
    enough: Enough | None = None


@dataclass(frozen=True)
class Turn:
    """A step of a lane: what its policy remembers and observes, a row per slot."""

    policy: Policy
    carry: Carry
    observation: Mapping[str, Tensor]


ActTogether = Callable[[Sequence[Turn]], Sequence[tuple[Carry, Tensor]]]


def act_alone(turns: Sequence[Turn]) -> list[tuple[Carry, Tensor]]:
    """Each policy for itself: the carries and chunks [B, H, A] of all turns."""
    return [turn.policy.act(turn.carry, turn.observation) for turn in turns]


@dataclass
class _Slot:
    seed: int
    order: int
    steps: int = 0
    tasks_begun: int = 1
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


class LaneRun:
    """A lane on its way; `outcomes` are those that count, in the order of the seeds.

    Args:
        lane: to run.
        first: the first of its slots in the environment.
    """

    def __init__(self, lane: Lane, first: int) -> None:
        self.lane = lane
        self.rows = slice(first, first + lane.slots)
        self.outcomes: list[Outcome] = []
        self._queue = list(enumerate(lane.seeds))[::-1]
        self._slots: list[_Slot | None] = [None] * lane.slots
        self._carry: Carry = None  # until the first episodes have started
        self._recorder = _Recorder(lane.record_key)
        self._ahead: dict[int, Outcome] = {}  # ended before one with an earlier seed

    @property
    def active(self) -> bool:
        return any(slot is not None for slot in self._slots)

    def start(self) -> list[int | None]:
        """Give free slots the next seeds; returns the seed of each slot that starts."""
        starting: list[int | None] = [None] * len(self._slots)
        for index, slot in enumerate(self._slots):
            if slot is None and self._queue:
                order, seed = self._queue.pop()
                self._slots[index], starting[index] = _Slot(seed=seed, order=order), seed
        return starting

    def begin(self, environment: SlotEnvironment, starting: Sequence[int | None]) -> None:
        """Set the policy's memory of the starting slots back, after they have been reset."""
        if all(seed is None for seed in starting):
            return
        fresh = self._fresh(environment, starting)
        self._carry = (
            fresh if self._carry is None else _restart(self._carry, fresh, [seed is not None for seed in starting])
        )

    def _fresh(self, environment: SlotEnvironment, starting: Sequence[int | None]) -> Carry:
        """The carry of episodes that start, in all slots."""
        if (read := self.lane.read_instructions) is not None:
            told = read(environment)[self.rows]
            return cast(InstructedPolicy, self.lane.policy).initial(self.lane.slots, instructions=told)
        if getattr(self.lane.policy, "told_seeds", False):
            seeds = [seed or 0 for seed in starting]
            return cast(SeededPolicy, self.lane.policy).initial(self.lane.slots, seeds=seeds)
        return self.lane.policy.initial(self.lane.slots)

    def turn(self, observation: Mapping[str, np.ndarray], device: torch.device) -> Turn:
        """What the policy acts on now."""
        mine = {name: rows[self.rows] for name, rows in observation.items()}
        if (key := self._recorder.key) is not None:
            for slot, frame in zip(self._slots, mine[key], strict=True):
                if slot is not None:
                    slot.frames.append((frame if frame.ndim == 3 else frame[-1]).copy())  # of a history the present one
        if hasattr(self.lane.policy, "rest"):
            resting = torch.tensor([slot is None for slot in self._slots], device=device)
            self._carry = cast(PlanningPolicy, self.lane.policy).rest(self._carry, resting)
        return Turn(self.lane.policy, self._carry, to_tensors(mine, device))

    def acted(self, carry: Carry) -> None:
        self._carry = carry

    def looks(self) -> np.ndarray:
        """Which slots, bool, have to show what cameras see after this step."""
        there = np.array([slot is not None for slot in self._slots])
        if self._recorder.key is not None or not hasattr(self.lane.policy, "looks"):
            return there
        looks = cast(SparingPolicy, self.lane.policy).looks(self._carry)
        return there & looks.cpu().numpy()

    def take(self, rewards: np.ndarray, ended: np.ndarray, infos: Mapping[str, np.ndarray]) -> Iterator[Outcome]:
        """Count a step of all slots; gives the episodes that it ended."""
        for index, slot in enumerate(self._slots):
            if slot is None:
                continue
            row = self.rows.start + index
            slot.steps += 1
            slot.total_reward += float(rewards[row])
            if not ended[row]:
                continue
            self._slots[index] = None
            success = bool(infos["success"][row])
            outcome = Outcome(
                seed=slot.seed,
                success=success,
                steps=slot.steps,
                total_reward=slot.total_reward,
                score=float(infos["score"][row]),
                success_once=bool(infos["success_once"][row]),
                frames=self._recorder.keep(slot, success=success),
            )
            self._ahead[slot.order] = outcome
            yield outcome
        self._count()

    def tell_anew(self, environment: SlotEnvironment, infos: Mapping[str, np.ndarray]) -> None:
        """Set the policy's memory back where another task has begun in the middle of an episode, with its instruction.

        What a policy had planned was for what is done; CALVIN's evaluation starts it afresh for every instruction, too.
        """
        begun = infos.get("tasks_begun")
        changed = [False] * len(self._slots)
        for index, slot in enumerate(self._slots):
            if slot is not None and begun is not None and begun[self.rows.start + index] > slot.tasks_begun:
                slot.tasks_begun, changed[index] = int(begun[self.rows.start + index]), True
        if any(changed):
            self._carry = _restart(self._carry, self._fresh(environment, [None] * len(self._slots)), changed)

    def _count(self) -> None:
        """Move the outcomes over that have no gap before them, until there are enough."""
        while len(self.outcomes) in self._ahead:
            self.outcomes.append(self._ahead.pop(len(self.outcomes)))
            if self.lane.enough is not None and self.lane.enough(self.outcomes):
                self._queue.clear()
                self._ahead.clear()
                self._slots = [None] * len(self._slots)


def run_lanes(
    runs: Sequence[LaneRun],
    environment: SlotEnvironment,
    reset_slots: ResetSlots,
    *,
    device: torch.device,
    act: ActTogether = act_alone,
) -> Iterator[Outcome]:
    """Run lanes to their end; gives every episode as it ends.

    Args:
        runs: whose slots follow each other and are all of the environment's.
        environment: at rest in slots whose episode is over. One with a method `look`, as `WorkerVectorEnv` has, is told
            in which slots nobody will look.
        reset_slots: see `ResetSlots`.
        device: where observations are put.
        act: for all lanes that have episodes going on.
    """
    space = environment.single_action_space
    observation: dict[str, np.ndarray] = {}
    while True:
        starting = [run.start() for run in runs]
        seeds = [seed for lane in starting for seed in lane]
        if any(seed is not None for seed in seeds):
            observation = reset_slots(environment, seeds)
            for run, lane in zip(runs, starting, strict=True):
                run.begin(environment, lane)
        active = [run for run in runs if run.active]
        if not active:
            return
        actions = np.zeros((environment.num_envs, *space.shape), np.float32)
        looks = np.zeros(environment.num_envs, np.bool_)
        turns = [run.turn(observation, device) for run in active]
        for run, (carry, chunk) in zip(active, act(turns), strict=True):
            run.acted(carry)
            actions[run.rows] = np.clip(chunk[:, 0].cpu().numpy().astype(np.float32), space.low, space.high)
            looks[run.rows] = run.looks()
        if hasattr(environment, "look"):
            environment.look(looks)
        observation, rewards, terminated, truncated, infos = environment.step(actions)
        for run in active:
            yield from run.take(rewards, np.logical_or(terminated, truncated), infos)
            run.tell_anew(environment, infos)


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
