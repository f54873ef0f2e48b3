"""A stream gives every window once per epoch, as a dataset in memory would, from any step on."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.core.errors import UsageError
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.stream_blocks import StreamBlocks, block_frames
from embodied.datasets.loading.streaming import StreamingWindows
from embodied.datasets.loading.window_index import WindowIndex
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

FRONT = "observation.images.front"
WINDOWS = {FRONT: [-1, 0], "action": range(-2, 5)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "s"
    rng = np.random.default_rng(0)
    keys = {FRONT: KeySpec("uint8", (24, 32, 3)), "action": KeySpec("float32", (2,))}
    with EpisodeStore.create(path, keys=keys, fps=10) as new:
        for number, length in enumerate((70, 1, 150, 33, 8, 90, 61)):
            images = rng.integers(0, 256, (length, 24, 32, 3), dtype=np.uint8)
            action = rng.normal(size=(length, 2)).astype(np.float32)
            new.append({FRONT: images, "action": action}, task=f"task {number % 3}", seed=0, success=True)
    return EpisodeStore.open(path)


def open_stream(store, **changes):
    return StreamingWindows(store, **{"windows": WINDOWS, "batch_size": 10, "buffer_frames": 160, "seed": 0, **changes})


def places(batches):
    return [
        pair
        for batch in batches
        for pair in zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
    ]


def test_batches_are_those_of_a_dataset_in_memory(store, tmp_path):
    dataset = WindowDataset(materialize(store, keys=list(WINDOWS), cache_root=tmp_path / "c"), windows=WINDOWS)
    stream = open_stream(store)
    assert len(stream) == len(dataset) == 413 and stream.tasks == dataset.tasks and stream.blocks_per_round > 1.5
    for batch in islice(stream.batches(), 50):
        wanted = dataset.batch(np.array([dataset.index_of(*place) for place in places([batch])]))
        assert batch.keys() == wanted.keys()
        assert all(np.array_equal(batch[key], wanted[key]) and batch[key].dtype == wanted[key].dtype for key in wanted)


def test_every_window_comes_once_per_epoch_and_epochs_differ(store):
    seen = places(islice(open_stream(store).batches(), 83))
    everything = sorted((number, frame) for number, length in enumerate(store.lengths) for frame in range(length))
    assert sorted(seen[:413]) == sorted(seen[413:826]) == everything
    assert seen[:413] != seen[413:826]


def test_a_stream_is_a_function_of_its_seed_and_resumes_at_any_step(store):
    expected = list(islice(open_stream(store).batches(), 60))
    for start in (0, 7, 41, 55):
        for batch, other in zip(open_stream(store).batches(start=start), expected[start:], strict=False):
            assert all(np.array_equal(batch[key], other[key]) for key in other)
    assert places(islice(open_stream(store, seed=1).batches(), 5)) != places(expected[:5])


def test_chosen_episodes_whole_windows_and_sizes(store):
    stream = open_stream(store, episodes=[5, 0, 1], whole=True, image_size=(12, 10))
    batches = list(islice(stream.batches(), 20))
    assert len(stream) == (70 - 6) + (90 - 6) and batches[0][FRONT].shape == (10, 2, 12, 10, 3)
    wanted = [(number, frame) for number, length in ((0, 70), (5, 90)) for frame in range(2, length - 4)]
    assert sorted(places(batches)[:148]) == wanted
    assert not any(batch["action_is_pad"].any() for batch in batches)


def test_ranks_share_an_epoch(store):
    ranks = [open_stream(store, batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    # Blocks differ in size: a rank's first epoch ends where its share of them does.
    shares = [places(islice(rank.batches(), 413)) for rank in ranks]
    sizes = [sum(int(rank._blocks.counts[part.blocks].sum()) for part in first_epoch(rank)) for rank in ranks]
    seen = [place for share, size in zip(shares, sizes, strict=True) for place in share[:size]]
    assert sum(sizes) == 413 and len(set(seen)) == 413


def first_epoch(stream):
    for part in stream._rounds(0):
        if part.epoch > 0:
            return
        yield part


def test_wrong_arguments_are_refused(store):
    cases = {
        "did you mean action": {"windows": {"acton": [0]}},
        "batch_size": {"batch_size": 0},
        "rank": {"rank": 1},
        "buffer_frames must be at least": {"windows": {"action": range(100)}, "buffer_frames": 40},
        "ranks share": {"world_size": 999},
        "no window fits": {"windows": {"action": [0, 500]}, "whole": True},
    }
    for message, arguments in cases.items():
        with pytest.raises(UsageError, match=message):
            open_stream(store, **arguments)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    offsets=st.lists(st.integers(-6, 6), min_size=1, max_size=3),
    size=st.sampled_from([1, 2, 8, 32]),
    room=st.integers(1, 200),
)
@settings(max_examples=150, deadline=None)
def test_blocks_hold_every_window_once_with_the_frames_it_reaches(lengths, offsets, size, room):
    arrays = {"k": np.array(offsets)}
    starts = np.cumsum(lengths) - lengths
    index = WindowIndex.of(starts, np.array(lengths), arrays, whole=False)
    blocks = StreamBlocks.of(index, arrays, size)
    seen = []
    for group in blocks.packed(np.arange(len(blocks))[::-1], room):
        assert len(group) == 1 or blocks.costs[group].sum() <= room
        frames, owners, places = blocks.windows(group)
        for frame, owner, place in zip(frames, owners, places, strict=True):
            assert starts[owner] <= frame < starts[owner] + lengths[owner]
            rows = np.clip(frame + arrays["k"], starts[owner], starts[owner] + lengths[owner] - 1)
            block = group[place]
            assert blocks.lows["k"][block] <= rows.min() and rows.max() < blocks.highs["k"][block]
        seen += frames.tolist()
    assert sorted(seen) == list(range(sum(lengths)))


def test_the_documented_shuffle_quality_holds():
    """Variance of a batch's mean place in the store over that of uniform draws; see the module's table: 2.0."""
    lengths = np.full(1000, 200)
    windows = {"k": np.arange(-7, 1)}
    index = WindowIndex.of(np.cumsum(lengths) - lengths, lengths, windows, whole=False)
    size = block_frames({"k": KeySpec("uint8", (96, 96, 3))}, windows, 16384)
    blocks, rng = StreamBlocks.of(index, windows, size), np.random.default_rng(0)
    ratios = []
    for _ in range(4):
        rounds = blocks.packed(rng.permutation(len(blocks)), 16384 // 2)
        order = np.concatenate([rng.permutation(blocks.windows(part)[0]) for part in rounds])
        means = order.reshape(-1, 64).mean(axis=1)
        ratios.append(means.var() / (len(order) ** 2 / 12 / 64))
    assert 1.5 < np.mean(ratios) < 2.5


def test_memory_follows_the_buffer_and_not_the_store(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), dtype=np.uint8)  # 1.2 MB
    with EpisodeStore.create(tmp_path / "s", keys={FRONT: KeySpec("uint8", (64, 64, 3))}, fps=10) as new:
        for _ in range(24):
            new.append({FRONT: images}, task="", seed=0, success=True)
    peaks = []
    for episodes in (range(3), range(3), None):  # the first one warms up
        stream = open_stream(EpisodeStore.open(tmp_path / "s"), windows={FRONT: [0]}, episodes=episodes)
        tracemalloc.start()
        for _ in islice(stream.batches(), 250):  # more than all frames
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 21 * images.nbytes / 4
