"""Any window of any store is what NumPy slices from all its frames."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

SPECS = {
    "bool": KeySpec("bool", ()),
    "observation.state": KeySpec("float32", (3,)),
    "counter": KeySpec("int64", (1,)),
    "half": KeySpec("float16", (2, 2)),
    "observation.depth.front": KeySpec("uint16", (4, 3)),
    "observation.images.front": KeySpec("uint8", (4, 3, 3)),
    "observation.images.plain": KeySpec("uint8", (4, 3, 3), "jpeg"),
}


def frames(key, spec, length, rng):
    if spec.codec == "jpeg":  # plain greys survive JPEG to the bit
        return np.broadcast_to(rng.integers(0, 256, (length, 1, 1, 1)), (length, *spec.shape)).astype(np.uint8)
    return rng.integers(0, 2 if spec.dtype == "bool" else 250, (length, *spec.shape)).astype(spec.dtype)


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=5),
    blocks=st.integers(1, 9),
    chunk_bytes=st.sampled_from([48, 300]),
    chunks=st.sampled_from([1, 3, 8]),
    windows=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=4, max_size=8),
    seed=st.integers(0, 1 << 30),
)
def test_windows_are_slices(lengths, blocks, chunk_bytes, chunks, windows, seed):
    rng = np.random.default_rng(seed)
    episodes = [{key: frames(key, spec, length, rng) for key, spec in SPECS.items()} for length in lengths]
    whole = {key: np.concatenate([episode[key] for episode in episodes]) for key in SPECS}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)  # hundreds of them, and nothing here is killed
        patch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", chunk_bytes)
        for room in ("SHARD_BYTES", "JPEG_SHARD_BYTES"):
            patch.setattr(f"embodied.datasets.store.store_header.{room}", chunks * chunk_bytes)
        with EpisodeStore.create(Path(folder, "s"), keys=SPECS, fps=10) as store:
            for number, (length, episode) in enumerate(zip(lengths, episodes, strict=True)):
                if number % 2:
                    store.append(episode, task="")
                    continue
                with store.writer(task="") as writer:
                    for start in range(0, length, blocks):
                        writer.write({key: array[start : start + blocks] for key, array in episode.items()})
        opened = EpisodeStore.open(Path(folder, "s"))
        assert opened.lengths == lengths and opened.num_frames == sum(lengths)
        for first, second in windows:
            start, stop = sorted((first % (sum(lengths) + 1), second % (sum(lengths) + 1)))
            for key, array in whole.items():
                read = opened.read(key, start, stop)
                assert read.dtype == array.dtype and np.array_equal(read, array[start:stop]), (key, start, stop)
        assert list(opened.validate()) == []
