"""Any zip of a store is read in place; damaged, foreign and hostile ones give a message and nothing else."""

import os
import random
import struct
import zipfile

import numpy as np
import pytest
import zarr

from embodied.core.errors import UserError
from embodied.datasets.storage.location import open_storage, pack

DATA = bytes(range(256)) * 40


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return open_storage(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_the_folder_made_by_other_means_is_read_too(tmp_path, method):
    files = {"demos/": b"", "demos/zarr.json": b"{}", "demos/a/c/0": DATA, "__MACOSX/demos/._zarr.json": b"junk"}
    storage = write_zip(tmp_path / "demos.zip", files, compression=method)
    assert storage.list("") == ["a/c/0", "zarr.json"] and storage.read("a/c/0") == DATA


def test_a_file_with_64_bit_sizes(tmp_path):
    entry = zipfile.ZipInfo("zarr.json")
    with (
        zipfile.ZipFile(tmp_path / "demos.zip", "w") as archive,
        archive.open(entry, "w", force_zip64=True) as file,
    ):
        file.write(DATA)
    assert open_storage(tmp_path / "demos.zip").read("zarr.json") == DATA


def test_nothing_can_be_written(tmp_path):
    storage = write_zip(tmp_path / "demos.zip", {"zarr.json": b"{}"})
    for act in (
        lambda: storage.write("a", b""),
        lambda: storage.delete("zarr.json"),
        lambda: storage.lock(wait_s=0).__enter__(),
        lambda: storage.zarr_store(writable=True),
    ):
        with pytest.raises(UserError, match="only read: unpack it"):
            act()
    assert not storage.writable and storage.list("") == ["zarr.json"]


def test_what_is_not_there_is_not_there(tmp_path):
    storage = open_storage(tmp_path / "absent.zip")
    assert not storage.exists() and storage.list("") == [] and storage.size("zarr.json") is None
    with pytest.raises(KeyError):
        storage.read("zarr.json")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100, b"PK\5\6" + b"\xff" * 18])
def test_a_file_that_is_no_zip(tmp_path, content):
    (tmp_path / "demos.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"demos\.zip is not a zip file, or damaged"):
        open_storage(tmp_path / "demos.zip").read("zarr.json")


def test_a_zip_that_was_cut_short(tmp_path):
    write_zip(tmp_path / "demos.zip", {"zarr.json": DATA})
    content = (tmp_path / "demos.zip").read_bytes()
    (tmp_path / "demos.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="copy it again"):
        open_storage(tmp_path / "demos.zip").list("")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../evil", "a\\..\\evil", "a//b"])
def test_names_that_lead_out_of_the_store_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="unsafe name"):
        write_zip(tmp_path / "demos.zip", {"zarr.json": b"{}", name: b""}).list("")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_is_not_read_in_place(tmp_path, method):
    storage = write_zip(tmp_path / "demos.zip", {"zarr.json": DATA}, compression=method)
    with pytest.raises(UserError, match="pack the store again without compression"):
        storage.read("zarr.json")


def patched(path, signature, offset, value):
    """Put the bytes `value` at `offset` of the first header with this signature."""
    content = bytearray(path.read_bytes())
    start = content.index(signature) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return open_storage(path)


def test_a_file_without_a_name(tmp_path):
    write_zip(tmp_path / "demos.zip", {"a": b""})
    with pytest.raises(UserError, match="unsafe name ''"):
        patched(tmp_path / "demos.zip", b"PK\1\2", 46, b"\0").list("")


def test_an_encrypted_file(tmp_path):
    write_zip(tmp_path / "demos.zip", {"zarr.json": DATA})
    with pytest.raises(UserError, match="is encrypted"):
        patched(tmp_path / "demos.zip", b"PK\1\2", 8, b"\1\0").read("zarr.json")


def test_absurd_sizes_cost_no_memory(tmp_path):
    for size in (len(DATA) + 1, 1 << 31):  # uncompressed size in the list of files
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            write_zip(tmp_path / "demos.zip", {"zarr.json": DATA}, compression=method)
            storage = patched(tmp_path / "demos.zip", b"PK\1\2", 24, struct.pack("<I", size))
            with pytest.raises(UserError, match=r"damaged|cannot be read in place"):
                storage.read("zarr.json")
    write_zip(
        tmp_path / "demos.zip", {"zarr.json": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED
    )  # unpacks to more
    with pytest.raises(UserError, match=r"is damaged at zarr\.json"):
        patched(tmp_path / "demos.zip", b"PK\1\2", 24, struct.pack("<I", 5)).read("zarr.json")


def test_an_absurdly_long_list_of_files_is_not_read(tmp_path):
    size = (64 << 20) + 1
    with open(tmp_path / "demos.zip", "wb") as file:
        file.truncate(size)  # takes no room on the disk
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    with pytest.raises(UserError, match=f"a list of files of {size} bytes"):
        open_storage(tmp_path / "demos.zip").list("")


def test_a_changed_byte_is_found_or_changes_nothing(tmp_path):
    files = {"zarr.json": DATA[:300], "a/c/0": DATA[:200]}
    write_zip(tmp_path / "demos.zip", files, compression=zipfile.ZIP_DEFLATED)
    content, generator, refused = (tmp_path / "demos.zip").read_bytes(), random.Random(0), 0
    for _ in range(400):
        changed = bytearray(content)
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (tmp_path / "demos.zip").write_bytes(changed)
        storage = open_storage(tmp_path / "demos.zip")
        try:
            for name in storage.list(""):
                assert storage.read(name) in files.values()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(tmp_path / "demos.zip") in str(error)
    assert refused > 200


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking with threads, from Python 3.12 on
def test_forked_readers_share_an_open_file(tmp_path):
    values = np.arange(40_000, dtype=np.float32).reshape(400, 100)
    group = zarr.open_group(open_storage(tmp_path / "demos").zarr_store(writable=True), mode="w", zarr_format=3)
    group.create_array("x", data=values, chunks=(10, 100))
    pack(tmp_path / "demos", tmp_path / "demos.zip")
    storage = open_storage(tmp_path / "demos.zip")
    assert storage.size("x/zarr.json")  # open before the fork
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                for _ in range(5):
                    array = zarr.open_group(storage.zarr_store(writable=False), mode="r")["x"]
                    assert np.array_equal(array[:], values)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
