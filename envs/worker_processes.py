"""Worker processes that end with the one that started them, and say what ended them if they did not get that far."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.envs.gl import EGL_DEVICE

_PATIENCE = 5.0  # seconds that a worker has to end by itself


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def enter_worker(gl_device: int | None) -> None:
    """Make a worker of this process: it goes when its parent is gone, and leaves Ctrl-C to it.

    Args:
        gl_device: see `gl.spread_over_gpus`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # that this process began with, see below
    die_with_parent()
    if gl_device is not None:
        os.environ[EGL_DEVICE] = str(gl_device)


def die_with_parent() -> None:
    """End this process when the one that started it is gone, SIGKILL included."""
    parent = parent_process()
    if parent is not None:

        def wait_for_its_end() -> None:
            parent.join()
            os._exit(1)

        Thread(target=wait_for_its_end, daemon=True).start()


def portable_error(error: BaseException) -> tuple[str, str]:
    """What can be sent to another process of any exception: `usage`, `user` or `bug`, and a message.

    A bug's message is its traceback.
    """
    if isinstance(error, UsageError):
        return "usage", str(error)
    if isinstance(error, UserError):
        return "user", str(error)
    return "bug", "".join(traceback.format_exception(error))


def error_of_worker(portable: tuple[str, str], name: str) -> Exception:
    """The exception to raise for what `portable_error` gave in the worker of that name."""
    kind, message = portable
    if kind == "bug":
        return RuntimeError(f"{name} failed:\n{message}")
    return UsageError(message) if kind == "usage" else UserError(message)


def error_of_death(process: BaseProcess, name: str) -> UserError:
    """What to tell of a process that was gone before it answered.

    Args:
        process: that ended, or is about to.
        name: of the worker: its number and its task.
    """
    process.join(_PATIENCE)
    code = process.exitcode
    if code is None or code >= 0:
        return UserError(f"{name} ended by itself with exit code {code}: see its output above, or embodied doctor")
    name_of_signal = signal.Signals(-code).name
    causes = {
        "SIGKILL": "most often memory ran out: use fewer at a time (workers, num_envs)",
        "SIGSEGV": "most often the GL library broke: see embodied doctor",
    }
    return UserError(f"{name} was ended by {name_of_signal}: {causes.get(name_of_signal, 'see embodied doctor')}")


def end_processes(processes: Sequence[BaseProcess], *, at_once: bool) -> None:
    """Wait for processes that were told to end; at once, or after a while, end them.

    Args:
        processes: started.
        at_once: do not wait for what they are at.
    """
    for process in processes:
        if not at_once:
            process.join(_PATIENCE)
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


class Worker:
    """A process that was started to work, and the pipe to it.

    Args:
        target: its life; called with the other end of the pipe and `arguments`, which can be sent to another process.
        name: its number and its task, for messages.
        gl_device: see `gl.spread_over_gpus`.
        children: whether it may start processes of its own. If so it must be ended by `end_workers`.
    """

    def __init__(
        self,
        target: Callable[..., None],
        *arguments: Any,
        name: str,
        gl_device: int | None,
        children: bool = False,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_live, args=(target, gl_device, theirs, *arguments), daemon=not children
        )
        with _ctrl_c_held_back():
            self.process.start()
        theirs.close()  # so that ours reports the end of the process

    def send(self, message: bytes) -> None:
        """Send what the worker's `pipe.recv()` unpickles.

        Raises:
            UserError: the worker was ended.
        """
        try:
            self.pipe.send_bytes(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise error_of_death(self.process, self.name) from error

    def receive(self) -> Any:
        """Wait for what the worker sends.

        Raises:
            UserError: the worker was ended.
        """
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise error_of_death(self.process, self.name) from error


def end_workers(workers: Sequence[Worker], *, at_once: bool) -> None:
    """End workers that take the end of their pipe for a sign; see `end_processes`."""
    for worker in workers:
        worker.pipe.close()
    end_processes([worker.process for worker in workers], at_once=at_once)


def _live(target: Callable[..., None], gl_device: int | None, pipe: Connection, *arguments: Any) -> None:
    enter_worker(gl_device)
    target(pipe, *arguments)


@contextmanager
def _ctrl_c_held_back() -> Generator[None, None, None]:
    """A process started in here does not see Ctrl-C: until it can say that it leaves it to us, it would die noisily."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # whose start would let the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
