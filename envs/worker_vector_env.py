"""Gymnasium's vector environment with its slots spread over processes, which are never left behind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_shared_memory, read_from_shared_memory

from embodied.core.errors import UsageError
from embodied.envs.slot_group import Infos, SlotGroup, row_space
from embodied.envs.worker_processes import end_workers
from embodied.envs.worker_slots import WorkerSlots

Step = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class WorkerVectorEnv(VectorEnv[Any, Any, Any]):
    """A vector environment whose workers each step several slots, one after the other.

    A step takes as long as the slowest worker, and the time of a group varies less than that of a single step. Slot i
    lives in worker i modulo their number, so that the last episodes, in the first slots, still occupy all workers.
    Results do not depend on the number of workers. Observations are arrays [N, ...] that the next step overwrites.

    Args:
        make: one environment; all are alike. Actions are arrays.
        num_envs: N.
        gl_devices: one per worker, see `gl.spread_over_gpus`; none of them: the slots live in this process.
        task: of the environments, for messages.
        autoreset: of Gymnasium; see `SlotGroup`.

    Raises:
        UserError: a worker was ended, or raised one; so does every method. Any error ends all workers.
        RuntimeError: a worker raised something else; with its traceback; so does every method.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        *,
        num_envs: int,
        gl_devices: Sequence[int | None],
        task: str,
        autoreset: AutoresetMode,
    ) -> None:
        self.groups: list[SlotGroup | WorkerSlots] = []
        self.num_envs = num_envs
        self._pending = False
        with self._ending_all():
            if gl_devices:
                self._start(make, gl_devices, task, autoreset)
            else:
                group = SlotGroup(range(num_envs), autoreset)
                self.groups.append(group)
                group.make(make)
                space, _ = self._allocate(group.envs[0], autoreset)
                group.share(space, self._rows)

    def _start(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        gl_devices: Sequence[int | None],
        task: str,
        autoreset: AutoresetMode,
    ) -> None:
        env = make()  # tells the spaces, which have to be known before a process that shares memory can start
        try:
            space, memory = self._allocate(env, autoreset)
        finally:
            env.close()
        for worker, device in enumerate(gl_devices):
            slots = range(worker, self.num_envs, len(gl_devices))
            setting = (make, space, memory, self.num_envs, autoreset)
            self.groups.append(WorkerSlots(worker, slots, task, device, *setting))
        for group in self.groups:
            group.answer()

    def _allocate(self, env: gymnasium.Env[Any, Any], autoreset: AutoresetMode) -> tuple[gymnasium.Space[Any], Any]:
        """Take over the spaces of one environment; returns the space of a row, and the memory of all."""
        self.metadata = {**env.metadata, "autoreset_mode": autoreset}
        self.render_mode = env.render_mode
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, self.num_envs)
        self.action_space = batch_space(env.action_space, self.num_envs)
        space = row_space(env.observation_space, env.action_space)
        memory = create_shared_memory(space, n=self.num_envs, ctx=multiprocessing.get_context("spawn"))  # type: ignore[arg-type]
        rows: Any = read_from_shared_memory(space, memory, n=self.num_envs)
        rows["look"][:] = True
        self._rows = rows
        return space, memory

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all slots, or those of `options["reset_mask"]`, bool [N].

        Args:
            seed: of every slot; a single one is that of the first, and the others get the numbers after it.
            options: all but the mask goes to the environments.
        """
        self._check_idle()
        seeds = _seeds_of_slots(seed, self.num_envs)
        options = dict(options or {})
        mask = _checked_mask(options.pop("reset_mask", None), self.num_envs)
        with self._ending_all():
            asked = []
            for group in self.groups:
                if chosen := {slot: seeds[slot] for slot in group.slots if mask[slot]}:
                    group.ask("reset", chosen, options)
                    asked.append(group)
            return self._rows["observation"], self._infos([group.answer() for group in asked])

    def step(self, actions: Any) -> Step:
        """Step all slots; actions [N, ...]."""
        self.step_async(actions)
        return self.step_wait()

    def look(self, slots: np.ndarray) -> None:
        """Say in which slots, bool [N], steps from now on have to show new frames, see `TaskEnv.looking`."""
        self._check_idle()
        self._rows["look"][:, 0] = slots

    def step_async(self, actions: Any) -> None:
        """Begin a step; `step_wait` has to follow."""
        self._check_idle()
        rows, wanted = self._rows["action"], np.asarray(actions)
        if wanted.shape != rows.shape:
            raise UsageError(f"actions: expected shape {list(rows.shape)}, got {list(wanted.shape)}")
        np.copyto(rows, wanted, casting="same_kind")
        with self._ending_all():
            self._pending = True
            for group in self.groups:
                group.ask("step")

    def step_wait(self) -> Step:
        """What the step begun by `step_async` gave."""
        if not self._pending:
            raise NoAsyncCallError("step_wait without a step_async before it", "step")
        with self._ending_all():
            infos = self._infos([group.answer() for group in self.groups])
        self._pending = False
        over = self._rows["over"].astype(np.bool_)
        return self._rows["observation"], self._rows["reward"].copy(), over[:, 0], over[:, 1], infos

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What the environments' method of that name returns, or their attributes, by slot."""
        return tuple(result for _, result in sorted(self._all("call", name, args, kwargs).items()))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The environments' attributes of that name."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of the environments: to one value, or to those of a list or tuple, one per slot."""
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"set_attr({name!r}): expected {self.num_envs} values, got {len(values)}")
        self._all("set_attr", name, values)

    def render(self) -> tuple[Any, ...]:
        """The environments' frames."""
        return self.call("render")

    def close_extras(self, *, terminate: bool = False) -> None:
        """End the workers: after what they are at, or at once where that has no end that anybody waits for."""
        workers = [group.worker for group in self.groups if isinstance(group, WorkerSlots)]
        end_workers(workers, at_once=terminate or self._pending)
        for group in self.groups:
            if isinstance(group, SlotGroup):
                group.close()

    def __del__(self) -> None:
        if hasattr(self, "_pending"):
            self.close(terminate=True)

    def _all(self, command: str, *arguments: Any) -> dict[int, Any]:
        """Have something done that is rare."""
        self._check_idle()
        with self._ending_all():
            for group in self.groups:
                group.ask(command, *arguments)
            return {slot: result for group in self.groups for slot, result in (group.answer() or {}).items()}

    def _infos(self, answers: Sequence[Infos]) -> dict[str, Any]:
        """The infos of all slots, in Gymnasium's way."""
        by_slot = {slot: info for answer in answers for slot, info in answer.items()}
        infos: dict[str, Any] = {}
        for slot in sorted(by_slot):
            infos = self._add_info(infos, by_slot[slot], slot)
        return infos

    def _check_idle(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the vector environment has been closed")
        if self._pending:
            raise AlreadyPendingCallError("step_wait has to follow step_async before anything else", "step")

    @contextmanager
    def _ending_all(self) -> Generator[None, None, None]:
        """Whatever ends the talk with the workers, Ctrl-C included, ends the workers."""
        try:
            yield
        except BaseException:
            self.close(terminate=True)
            raise


def _seeds_of_slots(seed: int | Sequence[int | None] | None, count: int) -> Sequence[int | None]:
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        return [int(seed) + slot for slot in range(count)]
    if len(seed) != count:
        raise ValueError(f"seed: expected {count} seeds, one per slot, got {len(seed)}")
    return seed


def _checked_mask(mask: Any, count: int) -> np.ndarray:
    if mask is None:
        return np.ones(count, np.bool_)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (count,) or not mask.any():
        raise ValueError(f'options["reset_mask"]: expected an array of {count} bools, one of them True, got {mask!r}')
    return mask
