"""Episodes are committed in order beside the writing of the next, and no error of either is lost."""

import threading

import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.datasets.background_commits import BackgroundCommits
from embodied.datasets.store import episode_writer
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

SPEC = KeySpec("uint8", (16, 24, 3), "jpeg")


def frames(number, length=6):
    return np.random.default_rng(number).integers(0, 256, (length, *SPEC.shape), dtype=np.uint8)


@pytest.fixture
def store(tmp_path):
    with EpisodeStore.create(tmp_path / "store", keys={"camera": SPEC}, fps=10) as store:
        yield store


def add(commits, number):
    with commits.writer(task=str(number)) as writer:
        writer.write({"camera": frames(number)})


def test_all_episodes_are_there_at_the_end(store):
    with BackgroundCommits(store) as commits:
        for number in range(5):
            add(commits, number)
    assert [info.task for info in store.episodes] == ["0", "1", "2", "3", "4"]
    assert not list(store.validate())


def test_the_next_episode_is_written_while_one_is_committed(store, monkeypatch):
    written, commit = threading.Event(), store._commit

    def late(episode):
        assert episode.task == "1" or written.wait(30), "nothing was written meanwhile"
        return commit(episode)

    monkeypatch.setattr(store, "_commit", late)
    with BackgroundCommits(store) as commits:
        add(commits, 0)
        with commits.writer(task="1") as writer:
            writer.write({"camera": frames(1)})
            written.set()
    assert [info.task for info in store.episodes] == ["0", "1"]


def test_a_commit_that_fails_ends_it(store, monkeypatch):
    commit = store._commit

    def fail(episode):
        if episode.task == "1":
            raise UserError("the disk is full")
        return commit(episode)

    monkeypatch.setattr(store, "_commit", fail)
    with pytest.raises(UserError, match="the disk is full"), BackgroundCommits(store) as commits:
        for number in range(4):
            add(commits, number)
    assert [info.task for info in store.episodes] == ["0"]


def test_an_error_of_writing_leaves_the_earlier_episodes_and_hides_no_other(store, monkeypatch):
    with pytest.raises(UsageError, match="missing"), BackgroundCommits(store) as commits:
        add(commits, 0)
        with commits.writer(task="1") as writer:
            writer.write({})
    assert [info.task for info in store.episodes] == ["0"]

    def fail(episode):
        raise UserError("the disk is full")

    monkeypatch.setattr(store, "_commit", fail)
    with pytest.raises(UserError, match="the disk is full") as caught, BackgroundCommits(store) as commits:
        add(commits, 2)
        raise KeyError("of the source")
    assert isinstance(caught.value.__context__, KeyError)


def test_pictures_wait_in_memory_up_to_a_limit_then_in_a_file(store, monkeypatch, tmp_path):
    whole = np.concatenate([frames(number) for number in range(9)])
    stores = {1 << 30: store}
    for limit in (0, 5000):
        stores[limit] = EpisodeStore.create(tmp_path / str(limit), keys={"camera": SPEC}, fps=10)
    for limit, each in stores.items():
        monkeypatch.setattr(episode_writer, "_HELD_BYTES", limit)
        with each.writer(task="") as writer:
            for start in range(0, len(whole), 6):
                writer.write({"camera": whole[start : start + 6]})
            assert bool(list(tmp_path.glob(".*.staging/*/0"))) == (each is not store)
    assert len({each.fingerprint() for each in stores.values()}) == 1
    for each in stores.values():
        assert not list(each.validate()) and np.array_equal(each.read("camera", 0, 54), store.read("camera", 0, 54))
