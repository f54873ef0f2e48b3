"""Collecting episodes into a store, continuing where a crash left off."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import Protocol

import numpy as np

from embodied.core.errors import UserError
from embodied.core.protocols import Reporter


class CollectedEpisode(Protocol):
    """What a collector yields (`envs.rollout.Episode`)."""

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...

    @property
    def task(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def success(self) -> bool: ...


class StoredEpisode(Protocol):
    """An entry of a store's index."""

    @property
    def seed(self) -> int | None: ...


class AppendableStore(Protocol):
    """What `collect` asks of a store (`datasets.store.episode_store.EpisodeStore`)."""

    @property
    def episodes(self) -> Sequence[StoredEpisode]: ...

    def append(self, arrays: dict[str, np.ndarray], *, task: str, seed: int, success: bool) -> int: ...


class Collector(Protocol):
    """Yields one episode per seed, in the order of the seeds."""

    def __call__(self, seeds: Iterable[int], /) -> Generator[CollectedEpisode, None, None]: ...


def collect(
    store: AppendableStore,
    collector: Collector,
    *,
    episodes: int,
    first_seed: int,
    only_successes: bool,
    reporter: Reporter,
    max_failures: int = 100,
) -> None:
    """Append episodes until the store holds `episodes`.

    Seeds are tried upwards; a failed demonstration is left out when `only_successes`. What ends up in the store depends
    on the arguments alone, not on workers or interruptions.

    Args:
        store: may hold the first of these episodes already; collecting goes on at the seed after the last one.
        collector: runs the simulator.
        episodes: how many the store shall hold.
        first_seed: of the first episode.
        only_successes: leave failures out.
        reporter: shows progress.
        max_failures: in a row, after which to give up.

    Raises:
        UserError: the behaviour failed `max_failures` times in a row.
    """
    done = len(store.episodes)
    if done >= episodes:
        return
    last = next((episode.seed for episode in reversed(store.episodes) if episode.seed is not None), None)
    start = first_seed if last is None else last + 1
    with closing(collector(count(start))) as stream:  # which may hold simulator processes
        wanted = _successes(stream, only_successes=only_successes, max_failures=max_failures)
        numbered = zip(range(done, episodes), wanted, strict=False)
        for _, episode in reporter.track(numbered, total=episodes, description="collect", done=done):
            store.append(episode.arrays, task=episode.task, seed=episode.seed, success=episode.success)


def _successes(
    stream: Iterator[CollectedEpisode], *, only_successes: bool, max_failures: int
) -> Iterator[CollectedEpisode]:
    failures = 0
    for episode in stream:
        if episode.success or not only_successes:
            failures = 0
            yield episode
        else:
            failures += 1
            if failures >= max_failures:
                raise UserError(
                    f"the demonstrator failed {failures} times in a row on {episode.task!r}: try collect.noise=0 or a "
                    "longer env.horizon, or keep failures with collect.only_successes=false"
                )
