"""Jobs in worker processes, with their results in order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from embodied.envs.worker_processes import Worker, end_workers, error_of_worker, portable_error

_AHEAD = 2  # jobs per worker that are begun before the first of them has been taken


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
    workers: list[Worker] = []
    finished = False
    try:
        for name, device in zip(names, gl_devices, strict=True):
            workers.append(Worker(_work, make_job, name=name, gl_device=device))
        yield from _in_order(workers, iter(items))
        finished = True
    finally:
        end_workers(workers, at_once=not finished)


def _in_order(workers: list[Worker], items: Iterator[Any]) -> Generator[Any, None, None]:
    results: dict[int, Any] = {}
    pipes = [worker.pipe for worker in workers]
    waiting = [0] * len(workers)  # jobs that each worker has been given and not answered
    begun = taken = 0
    exhausted = False
    while True:
        while not exhausted and begun < taken + _AHEAD * len(workers) and min(waiting) < _AHEAD:
            try:
                item = next(items)
            except StopIteration:
                exhausted = True
                break
            number = waiting.index(min(waiting))
            workers[number].send(pickle.dumps((begun, item)))
            waiting[number] += 1
            begun += 1
        if taken in results:
            yield results.pop(taken)
            taken += 1
        elif not any(waiting):
            return
        else:
            for pipe in wait([pipe for pipe, jobs in zip(pipes, waiting, strict=True) if jobs]):
                number = pipes.index(pipe)  # type: ignore[arg-type]
                job, result, error = workers[number].receive()
                if error is not None:
                    raise error_of_worker(error, workers[number].name)
                results[job] = result
                waiting[number] -= 1


def _work(pipe: Connection, make_job: Callable[[], Job]) -> None:
    """The life of a worker."""
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
