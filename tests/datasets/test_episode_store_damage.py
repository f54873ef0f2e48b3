"""Whatever happens to the bytes of a store, it is found, and named; never taken for data, never a crash."""

import itertools
import json
import random
import shutil
from functools import partial

import numpy as np
import pytest
import zarr

from embodied.core.errors import UserError
from embodied.datasets.store.episode_index import to_line
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.datasets.store.store_validation import validate_store

IMAGE = "observation.images.front"
KEYS = {
    IMAGE: KeySpec("uint8", (8, 6, 3)),
    "observation.images.jpeg": KeySpec("uint8", (8, 6, 3), "jpeg"),
    "action": KeySpec("float32", (2,)),
}


def episode(seed, length=5):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (length, 8, 6, 3), dtype=np.uint8)
    return {IMAGE: pixels, "observation.images.jpeg": pixels, "action": rng.normal(size=(length, 2)).astype("f4")}


def add(store, seed, length=5):
    return store.append(episode(seed, length), task="reach", seed=seed, success=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Four episodes in chunks of 4 and shards of 8 frames; nobody changes it."""
    path = tmp_path_factory.mktemp("sound") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", 4 * 144)
        patch.setattr("embodied.datasets.store.store_header.SHARD_BYTES", 8 * 144)
        patch.setattr("embodied.datasets.store.store_header.JPEG_SHARD_BYTES", 8 * 144)
        with EpisodeStore.create(path, keys=KEYS, fps=20, robot="arm", provenance={"made": [1.5, None]}) as store:
            for seed in range(4):
                add(store, seed, 5 + seed)
    return path


@pytest.fixture
def path(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "s")
    return tmp_path / "s"


def shard(path, key, number=0):
    (found,) = [file for file in (path / key / "c" / str(number)).rglob("*") if file.is_file()] or [
        path / key / "c" / str(number)
    ]
    return found


def flip(file, place, bit=0):
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << bit
    file.write_bytes(data)


def files_of(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def test_a_sound_store_has_no_damage(sound):
    assert list(EpisodeStore.open(sound).validate()) == list(validate_store(sound)) == []


def test_any_flipped_bit_is_found_by_validate_and_its_file_named(path):
    rng = random.Random(0)
    for file in files_of(path):
        data = file.read_bytes()
        places = {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(6))}
        for place in sorted(places):
            flip(file, place, bit := rng.randrange(8))
            damages = list(validate_store(path))
            assert damages, (file, place, bit)
            assert any(str(file) in damage.path or file.parent.name in damage.path for damage in damages), damages
            file.write_bytes(data)
    assert list(validate_store(path)) == []


def test_validate_names_episode_key_chunk_file_and_reason(path):
    flip(shard(path, IMAGE), 3)  # frames 0 to 4 of episode 0
    flip(shard(path, "observation.images.jpeg", 1), 3)  # frames 8 to 12 of episode 1, which starts at 5 and has 6
    shard(path, "observation.images.jpeg", 2).unlink()  # frames 16 to 24 of episodes 2 and 3
    found = {(d.episode, d.key, d.chunk) for d in EpisodeStore.open(path).validate()}
    lost = "observation.images.jpeg"
    assert found == {
        (0, IMAGE, 0),
        (1, lost, 2),
        (2, lost, 2),
        (2, lost, 4),
        (3, lost, 4),
        (3, lost, 5),
    }
    (first,) = [damage for damage in validate_store(path) if damage.key == IMAGE]
    assert first.path == str(shard(path, IMAGE)) and first.reason == "its checksum does not match"
    assert str(first) == f"episode 0, key {IMAGE}, chunk 0: {first.path}: its checksum does not match"


@pytest.mark.parametrize("key", [IMAGE, "observation.images.jpeg"])
@pytest.mark.parametrize("place", [3, -3, -30])
def test_a_flipped_byte_is_named_by_reading(path, key, place):
    file = shard(path, key)
    flip(file, place)
    with pytest.raises(UserError) as raised:
        EpisodeStore.open(path).read(key, 0, 8)
    assert all(part in str(raised.value) for part in (str(file), f"key {key}", "episode 0", "chunk 0", "is damaged"))


def test_damage_hides_only_the_chunks_it_touches(path):
    flip(shard(path, "action"), 3)
    reopened = EpisodeStore.open(path)
    flip(shard(path, IMAGE), 3)
    with pytest.raises(UserError, match=rf"key {IMAGE}, episode 0, chunk 0 "):
        reopened.read(IMAGE, 0, 20)
    assert np.array_equal(reopened.read(IMAGE, 4, 26), np.concatenate([episode(s, 5 + s)[IMAGE] for s in range(4)])[4:])


@pytest.mark.parametrize("damage", ["empty", "missing", "half"])
def test_a_torn_or_missing_file_is_named_and_nothing_is_built_on_it(path, damage):
    file = shard(path, "action")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "empty" else 20])
    with pytest.raises(UserError, match="key action, episode 0, chunk 0 "):
        EpisodeStore.open(path).read("action", 0, 1)
    with EpisodeStore.open(path, mode="a") as store, pytest.raises(UserError, match="key action, episode"):
        add(store, 9)
    assert len(EpisodeStore.open(path)) == 4


def test_values_changed_with_valid_checksums_are_found(path):
    zarr.open_group(str(path), mode="r+")["action"][2] = 9
    (damage,) = validate_store(path)
    assert (damage.episode, damage.key, damage.chunk) == (0, "action", None)
    assert "not those that were appended" in damage.reason


def segments(path):
    return sorted((path / "_index").glob("*.jsonl"))


def test_a_wrong_line_of_the_index_is_named(path):
    file = segments(path)[2]
    file.write_text(file.read_text().replace('"length":7', '"length":6'))
    with pytest.raises(UserError, match=rf"index .*{file.name}, is damaged: line 1: it does not match its checksum"):
        EpisodeStore.open(path)
    damages = list(validate_store(path))
    assert [(d.episode, d.key, d.path) for d in damages] == [(2, "", str(file))]
    assert damages[0].reason.startswith("line 1: ")


def test_a_missing_file_of_the_index_is_named(path):
    segments(path)[1].unlink()
    with pytest.raises(UserError, match="the file with episode 1 is missing"):
        EpisodeStore.open(path)
    assert any("episode 1 is missing" in damage.reason for damage in validate_store(path))


def test_a_segment_that_outlived_its_merging_changes_nothing(path):
    old = {file: file.read_bytes() for file in segments(path)}
    with EpisodeStore.open(path, mode="a") as store:
        for seed in range(4, 16):
            add(store, seed, 5 + seed)
    (merged,) = segments(path)
    for file, data in old.items():
        file.write_bytes(data)
    reopened = EpisodeStore.open(path, mode="a")
    assert [info.seed for info in reopened.episodes] == list(range(16))
    assert list(reopened.validate()) == []
    add(reopened, 16)
    assert [info.seed for info in EpisodeStore.open(path).episodes] == list(range(17))
    assert merged in segments(path)


def test_damaged_array_metadata_is_found_and_the_next_append_repairs_it(path):
    file = path / "action" / "zarr.json"
    file.write_text("{")
    assert np.array_equal(EpisodeStore.open(path).read("action", 0, 5), episode(0)["action"])  # the index says it all
    (damage,) = validate_store(path)
    assert (damage.key, damage.path) == ("action", str(file))
    with EpisodeStore.open(path, mode="a") as store:
        add(store, 4)
    assert list(validate_store(path)) == []


def try_everything(path):
    """What a user may do to a store; gives how it ended."""
    ends = []
    for attempt in (partial(EpisodeStore.open, path), lambda: list(validate_store(path))):
        try:
            attempt()
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(path) in str(error)
            ends.append("error")
        else:
            ends.append("fine")
    if ends[0] == "fine":
        store = EpisodeStore.open(path)
        for key in store.keys:
            try:
                store.read(key, 0, store.num_frames)
                store.statistics(key)
            except UserError:
                ends.append("error")
    return ends


@pytest.fixture
def small(tmp_path):
    """Two episodes of two keys."""
    keys = {"observation.images.jpeg": KEYS["observation.images.jpeg"], "action": KEYS["action"]}
    with EpisodeStore.create(tmp_path / "small", keys=keys, fps=20, provenance={"made": [1.5, None]}) as store:
        for seed in range(2):
            store.append({key: episode(seed)[key] for key in keys}, task="reach", notes={"a": 1})
    return tmp_path / "small"


def test_files_of_random_bytes_are_errors(small):
    path, rng = small, random.Random(1)
    for file in files_of(path):
        data = file.read_bytes()
        tries = [b"", b"null", b"[]", b"{}", b"[" * 20000, data[: len(data) // 2], data + b"x", data[1:]]
        for content in [*tries, rng.randbytes(200)]:
            file.write_bytes(content)
            try_everything(path)
            assert content == data or list(validate_store(path)), (file, content[:40])
        file.write_bytes(data)


def change(value, place, new):
    """The value with the part at `place`, a sequence of keys, exchanged."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = change(value[place[0]], place[1:], new)
    return copy


def places(value, before=()):
    yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*before, key))


WRONG = [None, True, -1, 10**30, 1.5, float("nan"), "x", "", [], [[1]], {}, {"a": 1}]


def test_a_header_of_wrong_types_with_a_valid_checksum_is_an_error(small):
    from embodied.core.files import hash_json

    path, file = small, small / "zarr.json"
    document = json.loads(file.read_bytes())
    content = {k: v for k, v in document["attributes"]["embodied"].items() if k not in ("format", "schema", "checksum")}
    wrongs = itertools.cycle(WRONG)
    for place in places(content):
        for wrong in itertools.islice(wrongs, 5):
            changed = change(content, place, wrong)
            if not isinstance(changed, dict):
                continue
            try:
                checksum = hash_json(changed)
            except ValueError:
                checksum = "none"
            head = {"format": "embodied-episode-store", "schema": 2, "checksum": checksum}
            document["attributes"]["embodied"] = {**head, **changed}
            file.write_text(json.dumps(document))
            try_everything(path)


def test_an_index_of_wrong_types_with_valid_checksums_is_an_error(small):
    path, file, wrongs = small, segments(small)[1], itertools.cycle(WRONG)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    good = file.read_bytes()
    for number, kind in ((0, "episode"), (1, "statistics")):
        record = lines[number][kind]
        for place in places(record):
            for wrong in itertools.islice(wrongs, 5):
                changed = change(record, place, wrong)
                try:
                    line = to_line(kind, changed)
                except ValueError:
                    continue
                both = [
                    to_line(kind, changed) if at == number else part + b"\n"
                    for at, part in enumerate(good.splitlines())
                ]
                assert line in both
                file.write_bytes(b"".join(both))
                try_everything(path)


def test_an_index_that_claims_more_than_there_is_costs_no_memory_and_ends(path, monkeypatch):
    file = segments(path)[3]
    record = json.loads(file.read_text().splitlines()[0])["episode"]
    statistics = file.read_bytes().splitlines()[1] + b"\n"
    file.write_bytes(to_line("episode", {**record, "length": 1 << 47}) + statistics)
    store = EpisodeStore.open(path)
    with pytest.raises(UserError, match=r"do not fit into memory|is damaged"):
        store.read_episode(3)
    monkeypatch.setattr("embodied.datasets.store.store_validation._MOST_LOST_FILES", 3)
    damages = list(validate_store(path))
    assert {damage.episode for damage in damages} == {None, 3} and len(damages) < 40
