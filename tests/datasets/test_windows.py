"""Windows by episode and time: never over an episode's end, and the same from any number of workers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.core.errors import UsageError
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.window_index import WindowIndex, offsets_in_frames, window_rows
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

FRONT, TOP = "observation.images.front", "observation.images.top"
LENGTHS = [4, 1, 6, 3]
OFFSETS = st.lists(st.integers(-9, 9), min_size=1, max_size=5)


def make_store(path, lengths=LENGTHS, *, side=4):
    """Every value tells its episode and frame: 20 * episode + frame, images of `top` 100 more."""
    keys = {FRONT: KeySpec("uint8", (side, side, 3)), TOP: KeySpec("uint8", (side, side, 3))}
    with EpisodeStore.create(path, keys={**keys, "action": KeySpec("float32", (2,))}, fps=10) as store:
        for number, length in enumerate(lengths):
            values = 20 * number + np.arange(length)
            images = np.broadcast_to(values.astype(np.uint8).reshape(-1, 1, 1, 1), (length, side, side, 3))
            action = np.stack([values, -values], axis=1).astype(np.float32)
            arrays = {FRONT: images, TOP: images + np.uint8(100), "action": action}
            store.append(arrays, task=f"task {number % 2}", seed=number, success=True)
    return EpisodeStore.open(path)


@pytest.fixture
def data(tmp_path):
    return materialize(make_store(tmp_path / "s"), keys=[FRONT, TOP, "action"], cache_root=tmp_path / "c")


def test_a_batch_holds_windows_padding_and_where_they_come_from(data):
    dataset = WindowDataset(data, windows={FRONT: [-1, 0], TOP: [0], "action": range(3)})
    assert len(dataset) == 14 and dataset.tasks == ["task 0", "task 1"]
    batch = dataset.batch(np.array([0, 3, 4, 13]))
    assert batch[FRONT].shape == (4, 2, 4, 4, 3) and batch[FRONT].dtype == np.uint8
    assert batch[FRONT][:, :, 0, 0, 0].tolist() == [[0, 0], [2, 3], [20, 20], [61, 62]]
    assert batch[TOP][:, :, 0, 0, 0].tolist() == [[100], [103], [120], [162]]
    assert batch["action"][:, :, 0].tolist() == [[0, 1, 2], [3, 3, 3], [20, 20, 20], [62, 62, 62]]
    assert batch[FRONT + "_is_pad"].tolist() == [[True, False], [False, False], [True, False], [False, False]]
    assert batch["action_is_pad"].tolist() == [[False] * 3, *[[False, True, True]] * 3]
    assert batch["episode_index"].tolist() == [0, 0, 1, 3] and batch["frame_index"].tolist() == [0, 3, 0, 2]
    assert batch["task_index"].tolist() == [0, 0, 1, 1]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    offsets=OFFSETS,
    others=OFFSETS,
    whole=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_windows_are_those_of_a_loop_over_samples(lengths, offsets, others, whole):
    expected = []
    start = 0
    for episode, length in enumerate(lengths):
        for time in range(length):
            wanted = [[time + offset for offset in some] for some in (offsets, others)]
            pads = [[not 0 <= place < length for place in places] for places in wanted]
            rows = [[start + min(max(place, 0), length - 1) for place in places] for places in wanted]
            if not (whole and any(map(any, pads))):
                expected.append((episode, rows, pads))
        start += length
    arrays = {"a": np.array(offsets), "b": np.array(others)}
    starts = np.cumsum(lengths) - lengths
    index = WindowIndex.of(starts, np.array(lengths), arrays, whole=whole)
    owners, frames = index.locate(np.arange(len(index)))
    found = [window_rows(frames, index.starts[owners], index.stops[owners], array) for array in arrays.values()]
    assert [
        (int(owner), [rows[item].tolist() for rows, _ in found], [pads[item].tolist() for _, pads in found])
        for item, owner in enumerate(owners)
    ] == expected


def test_chosen_episodes_and_whole_windows_only(data):
    dataset = WindowDataset(data, windows={"action": [-1, 0, 2]}, episodes=[3, 0, 2], whole=True)
    assert dataset.episodes.tolist() == [0, 2, 3] and len(dataset) == 1 + 3
    batch = dataset.batch(np.arange(4))
    assert not batch["action_is_pad"].any()
    assert batch["action"][:, :, 0].tolist() == [[0, 1, 3], [40, 41, 43], [41, 42, 44], [42, 43, 45]]
    assert [dataset.index_of(2, frame) for frame in (1, 3)] == [1, 3]
    for episode, frame in ((2, 0), (2, 4), (3, 1)):
        with pytest.raises(UsageError, match="no window around frame"):
            dataset.index_of(episode, frame)
    with pytest.raises(UsageError, match="episode 1 is not in this dataset"):
        dataset.index_of(1, 0)


def test_one_item_many_items_and_batches_agree(data):
    dataset = WindowDataset(data, windows={FRONT: [0, 1], "action": [0]})
    batch = dataset.batch(np.array([5, 2]))
    for items in ([dataset[5], dataset[np.int64(2)]], dataset.__getitems__([5, 2])):
        for key, array in batch.items():
            assert all(np.array_equal(item[key], row) for item, row in zip(items, array, strict=True))
    assert np.array_equal(dataset[np.array([5, 2])]["action"], batch["action"])


def test_wrong_arguments_are_refused(data):
    cases = {
        "did you mean action": {"windows": {"actoin": [0]}},
        "expected offsets in frames": {"windows": {"action": [0.5]}},
        "got \\[\\]": {"windows": {"action": []}},
        "at least one of": {"windows": {}},
        "got \\[4, 9\\]": {"windows": {"action": [0]}, "episodes": [9, 4, 0]},
        "got one twice": {"windows": {"action": [0]}, "episodes": [1, 1]},
        "no window fits": {"windows": {"action": [0, 6]}, "whole": True},
    }
    for message, arguments in cases.items():
        with pytest.raises(UsageError, match=message):
            WindowDataset(data, **arguments)
    dataset = WindowDataset(data, windows={"action": [0]})
    for index in (14, -1):
        with pytest.raises(IndexError, match="0 to 13"):
            dataset.batch(np.array([index]))


def test_offsets_in_seconds_are_whole_frames():
    assert offsets_in_frames([-0.1, 0, 0.2], fps=10) == [-1, 0, 2]
    assert offsets_in_frames([1 / 30, 0.0333], fps=30) == [1, 1]
    for wrong in (0.15, float("nan")):
        with pytest.raises((UsageError, ValueError)):
            offsets_in_frames([wrong], fps=10)


def test_a_pickled_dataset_is_small_and_reads_the_same(tmp_path):
    few = materialize(make_store(tmp_path / "few"), keys=[FRONT], cache_root=tmp_path / "c")
    many = materialize(make_store(tmp_path / "many", [2] * 24), keys=[FRONT], cache_root=tmp_path / "c")
    sizes = []
    for source in (few, many):
        dataset = WindowDataset(source, windows={FRONT: [-1, 0]}, episodes=source.episodes[::2].tolist())
        dataset.batch(np.arange(3))  # maps the files
        sizes.append(len(pickle.dumps(dataset)))
        again = pickle.loads(pickle.dumps(dataset))
        assert np.array_equal(again.batch(np.arange(3))[FRONT], dataset.batch(np.arange(3))[FRONT])
        assert again.tasks == dataset.tasks
    assert sizes[1] < sizes[0] + 100 < 4000


def test_several_files_read_like_one(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s")
    whole = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c")
    monkeypatch.setattr("embodied.datasets.loading.materialized.FILE_BYTES", 5 * 48)
    parts = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c")
    assert len(whole.rows[FRONT].paths) == 1 and len(parts.rows[FRONT].paths) == 3
    windows = {FRONT: [-2, 0, 5], "action": [0]}
    one, other = (WindowDataset(source, windows=windows).batch(np.arange(14)[::-1]) for source in (whole, parts))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_batch_may_be_written_over_an_earlier_one(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s")
    monkeypatch.setattr("embodied.datasets.loading.materialized.FILE_BYTES", 5 * 48)
    parts = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c")  # of the images several files
    dataset = WindowDataset(parts, windows={FRONT: [-2, 0, 5], "action": [0]})
    first = dataset.batch(np.arange(4))
    second = dataset.batch(np.arange(4, 8), out=first)
    fresh = dataset.batch(np.arange(4, 8))
    assert all(np.array_equal(second[key], fresh[key]) for key in fresh)
    assert all(second[key] is first[key] or np.shares_memory(second[key], first[key]) for key in (FRONT, "action"))
    other = dataset.batch(np.arange(3), out=second)  # another size gets memory of its own
    assert not np.shares_memory(other[FRONT], second[FRONT]) and np.array_equal(second[FRONT], fresh[FRONT])
