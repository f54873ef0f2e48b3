"""Gymnasium's vector environment in processes that are never left behind, and never waited for in vain."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from embodied.envs.worker_processes import (
    end_processes,
    enter_worker,
    error_of_death,
    error_of_worker,
    portable_error,
)


class WorkerVectorEnv(AsyncVectorEnv[Any, Any]):
    """Gymnasium's vector environment in processes, which ends them whatever happens and says what did.

    Args:
        make: one environment.
        names: of the workers, for messages.
        gl_devices: of the workers, see `gl.spread_over_gpus`.
        autoreset: of Gymnasium.

    Raises:
        UserError: a worker was ended, or raised one; so does every method.
        RuntimeError: a worker raised something else; with its traceback; so does every method.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        *,
        names: Sequence[str],
        gl_devices: Sequence[int | None],
        autoreset: AutoresetMode,
    ) -> None:
        self._names = names
        super().__init__(
            [make] * len(names),
            shared_memory=True,
            copy=False,
            context="spawn",
            worker=partial(_work, list(gl_devices)),
            autoreset_mode=autoreset,
        )

    def reset_async(self, seed: Any = None, options: Any = None) -> None:
        with self._all_alive():
            super().reset_async(seed, options)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        with self._all_alive():
            return super().reset_wait(timeout)

    def step_async(self, actions: Any) -> None:
        with self._all_alive():
            super().step_async(actions)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        with self._all_alive():
            return super().step_wait(timeout)

    def call_async(self, name: str, /, *args: object, **kwargs: object) -> None:
        with self._all_alive():
            super().call_async(name, *args, **kwargs)

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        with self._all_alive():
            return super().call_wait(timeout)

    def set_attr(self, name: str, values: Any) -> None:
        with self._all_alive():
            super().set_attr(name, values)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the workers: after what they are at, or at once where that has no end that anybody waits for."""
        terminate = terminate or self._state is not AsyncState.DEFAULT
        for pipe in self.parent_pipes:
            if not terminate:
                with suppress(OSError):  # gone already
                    pipe.send(("close", None))
        end_processes(self.processes, at_once=terminate)
        for pipe in self.parent_pipes:
            pipe.close()
        self.error_queue.close()

    def _check_spaces(self) -> None:  # the constructor's first talk to the workers
        with self._all_alive():
            super()._check_spaces()

    def _raise_if_errors(self, successes: Any) -> None:
        failed = [slot for slot, success in enumerate(successes) if not success]
        if not failed:
            return
        errors = dict(self.error_queue.get() for _ in failed)
        self.close(terminate=True)
        slot = min(errors)
        raise error_of_worker(errors[slot], self._names[slot])

    @contextmanager
    def _all_alive(self) -> Generator[None, None, None]:
        """Whatever ends the talk with the workers ends the workers, and the first that has died is named."""
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            dead = self._first_dead()
            death = error_of_death(self.processes[dead], self._names[dead])
            self.close(terminate=True)
            raise death from error
        except KeyboardInterrupt:
            self.close(terminate=True)
            raise

    def _first_dead(self) -> int:
        """The slot that has ended, or is about to."""
        while True:
            for slot, process in enumerate(self.processes):
                process.join(0.1)
                if not process.is_alive():
                    return slot


class _PortableErrors:
    """What `_async_worker` puts its errors into: Gymnasium sends exceptions, and one that cannot be sent would hang."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, report: tuple[int, type[BaseException], BaseException, str]) -> None:
        slot, _, error, _ = report
        self._queue.put((slot, portable_error(error)))


def _work(
    gl_devices: Sequence[int | None],
    slot: int,
    make: Callable[[], gymnasium.Env[Any, Any]],
    pipe: Any,
    parent_pipe: Any,
    shared_memory: Any,
    error_queue: Any,
    autoreset_mode: AutoresetMode,
    semaphore: Any,
) -> None:
    """Gymnasium's worker, with an environment that may fail to be made."""
    enter_worker(gl_devices[slot])
    try:
        env = make()
    except Exception as error:  # whatever it is, the parent raises it
        pipe.recv()
        error_queue.put((slot, portable_error(error)))
        pipe.send((None, False))
        return
    _async_worker(
        slot,
        lambda: env,
        pipe,
        parent_pipe,
        shared_memory,
        _PortableErrors(error_queue),  # type: ignore[arg-type]
        autoreset_mode,
        semaphore,
    )
