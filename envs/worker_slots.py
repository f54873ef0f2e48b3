"""A group of slots in a worker process, and what is left of it in the process that asks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
from gymnasium.spaces import Dict as DictSpace
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import read_from_shared_memory

from embodied.envs.slot_group import SlotGroup
from embodied.envs.worker_processes import Worker, error_of_worker, portable_error


class WorkerSlots:
    """What asks a `SlotGroup` that lives in a process of its own. The first answer comes unasked: it has been made.

    Args:
        number: of the worker, for messages.
        slots: see `SlotGroup`.
        task: of all environments, for messages.
        gl_device: see `gl.spread_over_gpus`.
        setting: what `_serve` takes beside.
    """

    def __init__(self, number: int, slots: Sequence[int], task: str, gl_device: int | None, *setting: Any) -> None:
        self.slots, self._task = slots, task
        several = f"worker {number}, environments {', '.join(map(str, slots))} ({task})"
        name = several if len(slots) > 1 else self._name_of(slots[0])
        self.worker = Worker(_serve, slots, *setting, name=name, gl_device=gl_device)

    def ask(self, command: str, *arguments: Any) -> None:
        """Have a method of the group called; `answer` waits for what it returned.

        Raises:
            UserError: the worker was ended.
        """
        self.worker.send(pickle.dumps((command, arguments), pickle.HIGHEST_PROTOCOL))

    def answer(self) -> Any:
        """Of what was asked last.

        Raises:
            UserError: the worker was ended, or raised one.
            RuntimeError: the worker raised something else; with its traceback.
        """
        failure, result = self.worker.receive()
        if failure is not None:
            slot, error = failure
            raise error_of_worker(error, self._name_of(slot))
        return result

    def _name_of(self, slot: int) -> str:
        return f"environment {slot} ({self._task})"


def _serve(
    pipe: Connection,
    slots: Sequence[int],
    make: Callable[[], gymnasium.Env[Any, Any]],
    space: DictSpace,
    memory: Any,
    num_envs: int,
    autoreset: AutoresetMode,
) -> None:
    """The life of a worker; `space` is that of a row, `memory` holds `num_envs` of them."""
    group = SlotGroup(slots, autoreset)

    def begin() -> None:
        group.make(make)
        group.share(space, read_from_shared_memory(space, memory, n=num_envs))  # type: ignore[arg-type]

    try:
        pipe.send_bytes(_answer(group, begin))
        while True:
            command, arguments = pipe.recv()
            pipe.send_bytes(_answer(group, getattr(group, command), *arguments))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody asks any more
        pass
    finally:
        group.close()


def _answer(group: SlotGroup, method: Callable[..., Any], *arguments: Any) -> bytes:
    try:
        return pickle.dumps((None, method(*arguments)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever it is, the process that asked raises it
        return pickle.dumps(((group.at, portable_error(error)), None))
