"""Results computed by threads ahead of whoever takes them, in order, and never many at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Generator[Result, None, None]:
    """`function` of each item, in the order of the items.

    Decoding and decompressing let go of Python's lock, so threads are enough. At most `threads + 1` results exist
    beside the one that was taken, which bounds memory. Closing the iterator waits for what is under way.

    Args:
        function: called in the threads; what it raises is raised where its result is taken.
        items: consumed as results are taken.
        threads: at least 1.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def run_ahead(items: Generator[Item, None, None], *, most: int) -> Generator[Item, None, None]:
    """The items of a generator that runs in a thread of its own, and in no other from its first line to its last.

    Closing the iterator waits for the item that is under way, then closes the generator.

    Args:
        items: what it raises is raised where the item would be taken.
        most: items beside the one that was taken, the one that is being made among them; at least 1.
    """
    end = object()

    def advance() -> Any:
        return next(items, end)

    with ThreadPoolExecutor(1, thread_name_prefix="run-ahead") as pool:
        pending = deque(pool.submit(advance) for _ in range(most))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(advance))
                yield item
        finally:
            for future in pending:
                future.cancel()
            pool.submit(items.close).result()


def cpu_threads() -> int:
    """Threads for work that keeps a processor busy: as many as this process may use, up to 8."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
