"""A store of schema 1, as this package once wrote it, is read as it is and brought to today's schema in place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from embodied.core.errors import UserError
from embodied.datasets.storage.local import LocalStorage
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.datasets.store.store_migration import migrate
from embodied.datasets.store.store_validation import validate_store

FIXTURE = Path(__file__).parent / "fixtures" / "episode_store_schema_1"
FINGERPRINT = "97f6fdbfbdb6fb09c164d935dea9816638a846eecf5e2dba3bbf17855d72eeef"
IMAGE = "observation.images.front"
LENGTHS = (5, 3, 7)


def episode(seed):
    """What the fixture was made of."""
    length = LENGTHS[seed]
    return {
        IMAGE: (np.arange(length * 8 * 8 * 3).reshape(length, 8, 8, 3) * (seed + 3) % 251).astype(np.uint8),
        "action": (np.arange(length * 2).reshape(length, 2) / 8 - seed).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
    }


def check(store, episodes=3):
    assert store.keys == {
        IMAGE: KeySpec("uint8", (8, 8, 3)),
        "action": KeySpec("float32", (2,)),
        "next.success": KeySpec("bool", ()),
    }
    assert (store.fps, store.robot, store.provenance) == (20.0, "arm", {"made": "by schema 1"})
    assert [(e.task, e.seed, e.success) for e in store.episodes[:3]] == [
        ("task 0", 0, True),
        ("task 1", 1, False),
        ("task 2", 2, True),
    ]
    assert len(store) == episodes
    for seed in range(3):
        for key, array in episode(seed).items():
            assert np.array_equal(store.read_episode(seed)[key], array)
    assert list(store.validate()) == []


@pytest.fixture
def path(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "s")
    return tmp_path / "s"


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_it_is_read_without_a_change(path):
    before = contents(path)
    store = EpisodeStore.open(path)
    assert store.schema == 1 and store.fingerprint() == FINGERPRINT
    check(store)
    actions = np.concatenate([episode(seed)["action"] for seed in range(3)]).astype(float)
    np.testing.assert_allclose(store.statistics("action")["q10"], np.quantile(actions, 0.1, axis=0))
    assert store.statistics(IMAGE)["mean"].shape == (3,)
    assert contents(path) == before


def test_opening_it_for_appending_migrates_it(path):
    old = EpisodeStore.open(path)
    with EpisodeStore.open(path, mode="a") as store:
        assert store.schema == 2 and store.fingerprint() == FINGERPRINT  # so caches of it stay valid
        check(store)
        for key in store.keys:
            for name, value in old.statistics(key).items():
                np.testing.assert_allclose(store.statistics(key)[name], value)
        assert store.append(episode(0), task="new") == 3
    check(EpisodeStore.open(path), 4)
    check(old)
    for key, array in zarr.open_group(str(path), mode="r").arrays():
        assert array.shape[0] == 20 and np.array_equal(array[15:], episode(0)[key])
    assert migrate(path) is False


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_migration_is_done_again(path, monkeypatch, number, moment):
    class KilledError(Exception):
        pass

    write, done = LocalStorage.write, [0]

    def killed(self, name, data):
        done[0] += 1
        if done[0] == number and moment == "before":
            raise KilledError
        write(self, name, data)
        if done[0] == number:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", killed)
        with pytest.raises(KilledError):
            migrate(path)
    assert EpisodeStore.open(path).schema == (2 if (number, moment) == (6, "after") else 1)
    check(EpisodeStore.open(path))
    assert migrate(path) is ((number, moment) != (6, "after"))
    check(EpisodeStore.open(path))


def test_an_empty_store_migrates(path):
    file = path / "zarr.json"
    document = json.loads(file.read_bytes())
    from embodied.core.files import hash_json

    record = document["attributes"]["embodied"]
    record |= {"episodes": [], "statistics": {}}
    content = {key: value for key, value in record.items() if key not in ("format", "schema", "checksum")}
    record["checksum"] = hash_json(content)
    file.write_text(json.dumps(document))
    with EpisodeStore.open(path, mode="a") as store:
        assert len(store) == 0 and store.append(episode(1), task="") == 0
    assert list(validate_store(path)) == []


def test_damage_is_found_and_stops_a_migration(path):
    file = path / "action" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    assert [(d.episode, d.key, d.chunk) for d in validate_store(path)] == [(n, "action", 0) for n in range(3)]
    with pytest.raises(UserError, match=r"key action, episode.* 0.*, chunk 0"):
        migrate(path)
    assert EpisodeStore.open(path).schema == 1


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("zarr.json", '"length": 5', '"length": 4'),
        ("action/zarr.json", '"data_type": "float32"', '"data_type": "float64"'),
        ("action/zarr.json", "{", ""),
        ("zarr.json", '"schema": 1', '"schema": 0'),
    ],
)
def test_a_damaged_index_is_an_error(path, name, old, new):
    file = path / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"damaged|says|schema 0"):
        EpisodeStore.open(path)
    with pytest.raises(UserError, match=r"damaged|says|schema 0"):
        migrate(path)
