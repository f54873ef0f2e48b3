"""Collecting: the same store whatever fails or is interrupted."""

from dataclasses import dataclass, field

import pytest

from embodied.core.errors import UserError
from embodied.core.reporting import SilentReporter
from embodied.training.collect import collect


@dataclass
class FakeEpisode:
    seed: int
    success: bool
    arrays: dict = field(default_factory=dict)
    task: str = "do it"


class FakeStore:
    def __init__(self):
        self.episodes = []

    def append(self, arrays, *, task, seed, success):
        self.episodes.append(FakeEpisode(seed, success, arrays, task))


def collector(seeds):
    for seed in seeds:
        yield FakeEpisode(seed, success=seed % 3 != 0)


def run(store, episodes, only_successes=True):
    collect(
        store,
        collector,
        episodes=episodes,
        first_seed=0,
        only_successes=only_successes,
        reporter=SilentReporter(),
        max_failures=5,
    )
    return [episode.seed for episode in store.episodes]


def test_failures_are_left_out_and_their_seeds_skipped():
    assert run(FakeStore(), 4) == [1, 2, 4, 5]


def test_failures_are_kept_when_asked():
    assert run(FakeStore(), 4, only_successes=False) == [0, 1, 2, 3]


def test_goes_on_after_an_interruption():
    store = FakeStore()
    run(store, 2)
    assert run(store, 4) == [1, 2, 4, 5]
    assert run(store, 3) == [1, 2, 4, 5]


def test_gives_up_on_a_hopeless_demonstrator():
    with pytest.raises(UserError, match="failed 5 times in a row"):
        collect(
            FakeStore(),
            lambda seeds: (FakeEpisode(seed, success=False) for seed in seeds),
            episodes=1,
            first_seed=0,
            only_successes=True,
            reporter=SilentReporter(),
            max_failures=5,
        )
