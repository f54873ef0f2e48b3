"""An episode store in an object store or a zip file is the same store."""

import numpy as np
import pytest

from embodied.core.errors import UserError
from embodied.datasets.storage.location import open_storage, pack
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

IMAGE = "observation.images.front"
KEYS = {IMAGE: KeySpec("uint8", (8, 6, 3)), "action": KeySpec("float32", (2,))}


def episode(seed, length=5):
    rng = np.random.default_rng(seed)
    return {
        IMAGE: rng.integers(0, 256, (length, 8, 6, 3), dtype=np.uint8),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
    }


def create(path):
    store = EpisodeStore.create(path, keys=KEYS, fps=20, robot="arm", provenance={"noise": 0.1})
    for seed in range(3):
        store.append(episode(seed, 5 + seed), task="reach", seed=seed, success=seed % 2 == 0)
    return store


@pytest.fixture(params=["s3", "zip"])
def filled(request, tmp_path):
    """A store with the episodes 0 to 2, opened for reading, and the same in a folder."""
    if request.param == "s3":
        path = request.getfixturevalue("s3")
        create(path)
    else:
        create(tmp_path / "packed")
        path = tmp_path / "demos.zip"
        pack(tmp_path / "packed", path)
    return EpisodeStore.open(path), create(tmp_path / "folder")


def test_it_holds_what_a_folder_holds(filled):
    store, folder = filled
    assert store.fingerprint() == folder.fingerprint()
    assert (store.fps, store.robot, store.provenance) == (20.0, "arm", {"noise": 0.1})
    assert store.keys == folder.keys and store.episodes == folder.episodes
    for name, value in folder.statistics("action").items():
        assert np.array_equal(store.statistics("action")[name], value)
    assert list(store.validate()) == []


def test_windows_read_like_slices(filled):
    store, _ = filled
    for key in KEYS:
        frames = np.concatenate([episode(seed, 5 + seed)[key] for seed in range(3)])
        for start, stop in [(0, 18), (0, 1), (4, 6), (17, 18), (9, 9), (3, 14)]:
            read = store.read(key, start, stop)
            assert read.dtype == frames.dtype and np.array_equal(read, frames[start:stop])
    assert np.array_equal(store.read_episode(2)["action"], episode(2, 7)["action"])


def test_streaming_into_an_object_store(s3):
    with EpisodeStore.create(s3, keys=KEYS, fps=20) as store:
        with store.writer(task="reach") as writer:
            for part in (slice(0, 4), slice(4, 9)):
                writer.write({key: array[part] for key, array in episode(7, 9).items()})
        with pytest.raises(ZeroDivisionError), store.writer(task="reach") as writer:
            writer.write(episode(8))
            raise ZeroDivisionError
    reopened = EpisodeStore.open(s3)
    assert reopened.lengths == [9]
    for key, array in episode(7, 9).items():
        assert np.array_equal(reopened.read(key, 0, 9), array)


APPEND = """
import numpy as np
from embodied.datasets.store.episode_store import EpisodeStore
with EpisodeStore.open(url, mode="a") as store:
    for number in range(3):
        value = 10 * worker + number
        arrays = {key: np.full((4 + worker, *spec.shape), value, spec.dtype) for key, spec in store.keys.items()}
        store.append(arrays, task="reach", seed=value, success=True)
"""


def test_processes_append_to_one_object_store(s3, start):
    EpisodeStore.create(s3, keys=KEYS, fps=20).close()
    workers = [start(APPEND, url=s3, worker=worker) for worker in (1, 2)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = EpisodeStore.open(s3)
    assert sorted(info.seed for info in store.episodes) == [10, 11, 12, 20, 21, 22]
    for info in store.episodes:
        assert info.length == 4 + info.seed // 10
        for array in store.read_episode(info.index).values():
            assert (array == info.seed).all()
    assert list(store.validate()) == []


def test_a_flipped_byte_in_an_object_is_found_and_named(s3):
    store, storage = create(s3), open_storage(s3)
    (name,) = [name for name in storage.list("action/c")]
    data = bytearray(storage.read(name))
    data[10] ^= 1
    storage.write(name, bytes(data))
    damages = list(EpisodeStore.open(s3).validate())
    assert damages and all(damage.key == "action" for damage in damages)
    with pytest.raises(UserError, match="action"):
        store.read("action", 0, 3)


def test_a_zip_cannot_be_appended_to(tmp_path):
    create(tmp_path / "folder")
    pack(tmp_path / "folder", tmp_path / "demos.zip")
    with pytest.raises(UserError, match="can only be read"):
        EpisodeStore.open(tmp_path / "demos.zip", mode="a")


def test_where_no_store_is_a_message_says_so(s3, tmp_path):
    for path in (s3, tmp_path / "absent.zip", tmp_path / "absent"):
        with pytest.raises(UserError, match=f"no episode store at {path}"):
            EpisodeStore.open(path)
    open_storage(s3).write("other", b"")
    with pytest.raises(UserError, match="is not an episode store"):
        EpisodeStore.open(s3)
    with pytest.raises(UserError, match="exists already"):
        EpisodeStore.create(s3, keys=KEYS, fps=20)
