"""Episodes committed in a thread, so that nobody waits for the disk who could go on with the next one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.store.episode_writer import EpisodeWriter


class BackgroundCommits:
    """Adds episodes to a store, in order; one is committed at a time, while the frames of the next are taken.

    At the end of the `with` block all of them are in the store, or an error says why not.
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._pool:
            self._wait()

    @contextmanager
    def writer(self, **details: Any) -> Iterator[EpisodeWriter]:
        """What `EpisodeStore.writer` gives; its errors of committing are raised by the next call, or at the end."""
        with ExitStack() as stack:
            yield stack.enter_context(self._store.writer(**details))
            self._wait()
            self._pending = self._pool.submit(stack.pop_all().close)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
