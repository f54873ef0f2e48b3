"""A folder, a zip file and an object store behave alike; each says in one message what is wrong with it."""

import errno
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.storage.location import open_storage, pack

FILES = {"zarr.json": b"{}", "action/zarr.json": b"array", "action/c/0/0": bytes(range(256)), "actions/c/0": b"other"}


@pytest.fixture(params=["folder", "s3"])
def writable(request, tmp_path):
    return open_storage(request.getfixturevalue("s3") if request.param == "s3" else tmp_path / "demos")


@pytest.fixture(params=["folder", "zip", "s3"])
def filled(request, tmp_path):
    """A storage with `FILES`."""
    url = request.getfixturevalue("s3") if request.param == "s3" else tmp_path / "demos"
    storage = open_storage(url)
    for name, data in FILES.items():
        storage.write(name, data)
    if request.param == "zip":
        pack(url, tmp_path / "demos.zip")
        return open_storage(tmp_path / "demos.zip")
    return storage


def test_what_was_written_is_read_listed_and_measured(filled):
    assert filled.exists()
    assert filled.list("") == sorted(FILES)
    assert filled.list("action") == ["action/c/0/0", "action/zarr.json"]  # not "actions/..."
    assert filled.list("nothing") == []
    for name, data in FILES.items():
        assert filled.read(name) == data and filled.size(name) == len(data)
    for absent in ("nothing", "action", "action/c", "zarr.json/more"):
        assert filled.size(absent) is None
        with pytest.raises(KeyError):
            filled.read(absent)


def test_nothing_is_there_before_the_first_write(writable):
    assert not writable.exists() and writable.list("") == [] and writable.size("zarr.json") is None
    writable.delete("zarr.json")
    with writable.lock(wait_s=0):
        assert not writable.exists() and writable.list("") == []
    assert not writable.exists()


def test_writes_replace_and_deletes_forget(writable):
    for data in (b"first", b"", b"third"):
        writable.write("a/b", data)
        assert writable.read("a/b") == data
    writable.sync(["a/b"])
    writable.delete("a/b")
    assert writable.size("a/b") is None and writable.list("") == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../other", "a/../../b", "a\0b"])
def test_a_name_cannot_leave_the_store(writable, name):
    for act in (writable.read, lambda name: writable.write(name, b""), writable.size, writable.delete):
        with pytest.raises(UsageError, match="cannot be a name in"):
            act(name)


@pytest.mark.parametrize(
    "byte_range", [None, (2, 5), (250, 300), (300, 310), ("from", 250), ("last", 3), ("last", 999)]
)
def test_zarr_reads_any_part(filled, byte_range):
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    data, request = FILES["action/c/0/0"], None
    expected = data
    if byte_range is not None:
        first, second = byte_range
        kinds = {"from": (OffsetByteRequest, data[second:]), "last": (SuffixByteRequest, data[-second:])}
        kind, expected = kinds.get(first, (None, None))
        request = kind(second) if kind else RangeByteRequest(first, second)
        expected = expected if kind else data[first:second]
    store = filled.zarr_store(writable=False)
    assert sync(store.get("action/c/0/0", default_buffer_prototype(), request)).to_bytes() == expected
    assert sync(store.get("absent", default_buffer_prototype(), request)) is None


def make_array(storage, values):
    group = zarr.open_group(storage.zarr_store(writable=True), mode="w", zarr_format=3)
    group.create_array("x", data=values, chunks=(2, 3), shards=(4, 3))
    return [name for name in storage.list("") if name.startswith("x/c/")]


def test_zarr_arrays_live_there(writable, tmp_path):
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    assert make_array(writable, values) == ["x/c/0/0", "x/c/1/0", "x/c/2/0"]
    writable.sync(writable.list(""))
    places = [writable]
    pack(writable.location, tmp_path / "packed.zip")
    places.append(open_storage(tmp_path / "packed.zip"))
    for place in places:
        store = place.zarr_store(writable=False)
        for one in (store, pickle.loads(pickle.dumps(store))):
            group = zarr.open_group(one, mode="r")
            assert [name for name, _ in group.members()] == ["x"]
            assert np.array_equal(group["x"][:], values) and np.array_equal(group["x"][3:6], values[3:6])
            with pytest.raises(ValueError, match="read-only"):
                group["x"][0] = 1


READ = """
import zarr
from embodied.datasets.storage.location import open_storage
for location in locations:
    array = zarr.open_group(open_storage(location).zarr_store(writable=False), mode="r")["x"]
    assert array[:].sum() == 30, location
"""


def test_another_process_reads_the_same_arrays(writable, tmp_path, start):
    make_array(writable, np.ones((10, 3), np.float32))
    pack(writable.location, tmp_path / "packed.zip")
    reader = start(READ, locations=[writable.location, str(tmp_path / "packed.zip")])
    reader.join()
    assert reader.exitcode == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/demos", "a folder, a .zip file or s3://bucket/prefix"),
        ("http://host/demos.zip", "a folder, a .zip file or s3://bucket/prefix"),
        ("s3://", "expected s3://bucket/prefix"),
        ("s3://a", "3 to 63 letters"),
        ("s3://robots?x=1/demos", "3 to 63 letters"),
        ("s3://robots/../other", "cannot be a name"),
        ("s3://robots//demos", "cannot be a name"),
    ],
)
def test_a_place_of_no_known_kind_is_refused(path, message):
    with pytest.raises(UsageError, match=message):
        open_storage(path)


def test_paths_and_strings_name_the_same_place(tmp_path):
    pytest.importorskip("obstore")
    assert open_storage(Path("s3://robots/demos")).location == "s3://robots/demos"
    assert open_storage("s3://robots/demos/").location == "s3://robots/demos"
    assert open_storage(str(tmp_path / "a.b")).location == open_storage(tmp_path / "a.b").location
    (tmp_path / "folder.zip").mkdir()
    assert open_storage(tmp_path / "folder.zip").writable
    assert not open_storage(tmp_path / "file.ZIP").writable


def test_packing_says_what_it_cannot_do(tmp_path):
    store = open_storage(tmp_path / "demos")
    store.write("zarr.json", b"{}")
    (tmp_path / "taken.zip").touch()
    for source, target, message in [
        (tmp_path / "demos", tmp_path / "demos.tar", "must end in .zip"),
        (tmp_path / "demos", tmp_path / "taken.zip", "exists already"),
        (tmp_path / "absent", tmp_path / "a.zip", "expected a folder"),
        (tmp_path / "taken.zip", tmp_path / "a.zip", "expected a folder"),
    ]:
        with pytest.raises(UsageError, match=message):
            pack(source, target)
    with store.lock(wait_s=0), pytest.raises(UserError, match="is writing to"):
        pack(tmp_path / "demos", tmp_path / "a.zip", wait_s=0)
    store.delete("zarr.json")
    store.write("other", b"")
    with pytest.raises(UsageError, match=r"no zarr\.json"):
        pack(tmp_path / "demos", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["taken.zip"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_packing_shows_its_progress(tmp_path):
    class Counting(SilentReporter):
        def track(self, items, *, total, description, done=0):
            seen.append((description, total))
            yield from items

    seen = []
    storage = open_storage(tmp_path / "demos")
    for name, data in FILES.items():
        storage.write(name, data)
    pack(tmp_path / "demos", tmp_path / "a.zip", reporter=Counting())
    assert seen == [("packing", len(FILES))]


def test_a_full_disk_stops_packing_before_it_begins(tmp_path, monkeypatch):
    open_storage(tmp_path / "demos").write("zarr.json", bytes(10_000))
    monkeypatch.setattr("embodied.datasets.storage.disk.shutil.disk_usage", lambda path: SimpleNamespace(free=9_999))
    with pytest.raises(UserError, match=r"no space left .* or pack to another disk"):
        pack(tmp_path / "demos", tmp_path / "a.zip")


def test_a_disk_that_fills_up_is_named(tmp_path, monkeypatch):
    storage = open_storage(tmp_path / "demos")
    storage.write("zarr.json", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"no space left on the disk of {tmp_path}/demos while writing zarr\.json"):
        storage.write("zarr.json", b"new")
    assert storage.read("zarr.json") == b"old" and storage.list("") == ["zarr.json"]


def test_a_write_reaches_the_disk_with_all_the_folders_it_made(tmp_path, monkeypatch):
    fsync, synced = os.fsync, []

    def recorded(descriptor):
        synced.append(os.stat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    storage, folder = open_storage(tmp_path / "demos"), tmp_path / "demos"
    storage.write("action/c/0", b"x")
    expected = [folder / "action" / "c" / "0", folder / "action" / "c", folder / "action", folder, tmp_path]
    assert {path.stat().st_ino for path in expected} <= set(synced)
    synced.clear()
    storage.sync(["action/c/0"])
    assert {path.stat().st_ino for path in expected} == set(synced)


def test_what_killed_writers_left_is_swept(tmp_path):
    storage = open_storage(tmp_path / "demos")
    storage.write("action/c/0", b"x")
    for name in ("action/c/.0.12345678.tmp", "action/c/0.abc.partial", ".zarr.json.1.tmp"):
        (tmp_path / "demos" / name).write_bytes(b"half")
    assert storage.list("") == ["action/c/0"]
    storage.sweep()
    assert [path.name for path in (tmp_path / "demos").rglob("*") if path.is_file()] == ["0"]


def test_packing_twice_gives_the_same_file(tmp_path):
    store = open_storage(tmp_path / "demos")
    for name, data in FILES.items():
        store.write(name, data)
    (tmp_path / "demos" / ".x.1234.tmp").write_bytes(b"half")  # of a killed writer
    for name in ("a.zip", "b.zip"):
        pack(tmp_path / "demos", tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert open_storage(tmp_path / "a.zip").list("") == sorted(FILES)
