"""Worker processes that end with the one that started them, and say what ended them if they did not get that far."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, Protocol

from embodied.core.errors import UsageError, UserError
from embodied.envs.gl import EGL_DEVICE

_PATIENCE = 5.0  # seconds that a worker has to end by itself
_AHEAD = 2  # jobs per worker that are begun before the first of them has been taken


def enter_worker(gl_device: int | None) -> None:
    """Make a worker of this process: it goes when its parent is gone, and leaves Ctrl-C to it.

    Args:
        gl_device: see `gl.spread_over_gpus`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


class Job(Protocol):
    """What a worker does: made once in its process, called many times there."""

    def __call__(self, item: Any, /) -> Any: ...

    def close(self) -> None: ...


def map_in_workers(
    make_job: Callable[[], Job], items: Iterable[Any], *, names: Sequence[str], gl_devices: Sequence[int | None]
) -> Generator[Any, None, None]:
    """The job's result for every item, in their order whatever worker is first.

    Args:
        make_job: can be sent to another process, as can items and results.
        items: may be endless; at most two per worker are worked on ahead of what has been taken.
        names: of the workers, for messages.
        gl_devices: of the workers.

    Raises:
        UserError: a worker was ended, or raised one.
        RuntimeError: a worker raised something else; with the traceback.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    finished = False
    try:
        for device in gl_devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make_job, device), daemon=True)
            process.start()
            theirs.close()  # so that ours reports the end of the process
            pipes.append(ours)
            processes.append(process)
        yield from _in_order(pipes, processes, names, iter(items))
        finished = True
    finally:
        for pipe in pipes:
            pipe.close()
        end_processes(processes, at_once=not finished)


def _in_order(
    pipes: list[Connection], processes: list[BaseProcess], names: Sequence[str], items: Iterator[Any]
) -> Generator[Any, None, None]:
    results: dict[int, Any] = {}
    waiting = [0] * len(pipes)  # jobs that each worker has been given and not answered
    begun = taken = 0
    exhausted = False
    while True:
        while not exhausted and begun < taken + _AHEAD * len(pipes) and min(waiting) < _AHEAD:
            try:
                item = next(items)
            except StopIteration:
                exhausted = True
                break
            worker = waiting.index(min(waiting))
            _send(pipes[worker], (begun, item), processes[worker], names[worker])
            waiting[worker] += 1
            begun += 1
        if taken in results:
            yield results.pop(taken)
            taken += 1
        elif not any(waiting):
            return
        else:
            for pipe in wait([pipe for pipe, jobs in zip(pipes, waiting, strict=True) if jobs]):
                worker = pipes.index(pipe)  # type: ignore[arg-type]
                number, result = _receive(pipe, processes[worker], names[worker])
                results[number] = result
                waiting[worker] -= 1


def _send(pipe: Connection, message: Any, process: BaseProcess, name: str) -> None:
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise error_of_death(process, name) from error


def _receive(pipe: Any, process: BaseProcess, name: str) -> tuple[int, Any]:
    try:
        number, result, error = pipe.recv()
    except (EOFError, ConnectionResetError) as broken:
        raise error_of_death(process, name) from broken
    if error is not None:
        raise error_of_worker(error, name)
    return number, result


def _work(pipe: Connection, make_job: Callable[[], Job], gl_device: int | None) -> None:
    """The life of a worker."""
    enter_worker(gl_device)
    job: Job | None = None
    with ThreadPoolExecutor(1) as sender:  # so that the next job need not wait until the parent takes this result
        try:
            while True:
                number, item = pipe.recv()
                try:
                    job = make_job() if job is None else job
                    sender.submit(_answer, pipe, number, job(item))
                except Exception as error:  # whatever it is, the parent raises it
                    sender.submit(_answer, pipe, number, None, portable_error(error))
        except (EOFError, ConnectionResetError):  # the parent wants no more
            pass
        finally:
            if job is not None:
                job.close()


def _answer(pipe: Connection, number: int, result: Any, error: tuple[str, str] | None = None) -> None:
    try:
        pipe.send((number, result, error))
    except (BrokenPipeError, ConnectionResetError):  # the parent wants no more
        pass
    except Exception as unsendable:  # the result cannot be pickled, and the parent waits for an answer
        pipe.send((number, None, portable_error(unsendable)))
