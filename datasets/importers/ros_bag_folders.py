"""Which recordings of ROS topics are under a path, and how each is opened.

ROS 2 bags (folders with metadata.yaml, of MCAP or sqlite3 files, one or split, compressed by file, by message or by
chunk), bare .mcap and .db3 files, and ROS 1 .bag files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePath

import yaml

from embodied.core.errors import UserError
from embodied.datasets.files.mcap_files import decompress
from embodied.datasets.importers.ros_bags import LARGEST_METADATA, Bag, Messages, mcap_bag, rosbags_bag
from embodied.datasets.storage.disk import disk_errors

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3", ".bag")
_LARGEST_MESSAGE = 1 << 28  # bytes, decompressed
_LARGEST_RATIO = 512  # of a compressed file: images of one colour reach 200


def is_bag_folder(path: Path) -> bool:
    """Whether a folder has the metadata.yaml of a ROS 2 bag."""
    if not (path / METADATA).is_file():
        return False
    with (path / METADATA).open("rb") as file:
        return b"rosbag2_bagfile_information" in file.read(4096)


def find_bags(path: Path) -> list[Path]:
    """The recordings at or below a path, in natural order (run_2 before run_10).

    Raises:
        UserError: there is none.
    """
    if path.is_file() or (path / METADATA).is_file():
        return [path]
    if not path.exists():
        raise UserError(f"no ROS recording at {path}: there is no such file or folder")
    folders = {found.parent for found in path.rglob(METADATA)}
    files = [
        found
        for found in path.rglob("*")
        if found.suffix in SUFFIXES and found.is_file() and folders.isdisjoint(found.parents)
    ]
    if not folders and not files:
        raise UserError(f"no ROS recording in {path}: no folder with {METADATA}, and no file {', '.join(SUFFIXES)}")
    return sorted([*folders, *files], key=lambda found: _natural(str(found.relative_to(path))))


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text)]


def open_bag(path: Path) -> Bag:
    """Open the recording at `path`.

    Raises:
        UserError: it is damaged, was cut off, or of a kind that cannot be read.
    """
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == ".mcap":
        return mcap_bag(path, [path], {})
    if path.suffix in (".db3", ".bag"):
        return rosbags_bag(path, [path])
    raise UserError(f"{path} is no ROS recording: it is none of {', '.join(SUFFIXES)}, nor a folder with {METADATA}")


def _open_folder(path: Path) -> Bag:
    with disk_errors(path / METADATA, "reading"):
        size = (path / METADATA).stat().st_size
        text = (path / METADATA).read_bytes() if size <= LARGEST_METADATA else b""
    try:
        # Names only, as rosbag2 writes them: nothing above the folder is opened.
        information = yaml.safe_load(text)["rosbag2_bagfile_information"]
        storage = information["storage_identifier"]
        files = [path / PurePath(name).name for name in information["relative_file_paths"]]
        compression = (information.get("compression_mode") or "none").lower(), information.get("compression_format")
        custom = dict(information.get("custom_data") or {})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path / METADATA} is damaged ({type(error).__name__}): write it anew with: ros2 bag reindex {path}"
        ) from error
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(f"{path} is incomplete: {', '.join(missing) or 'its metadata names no file'} is missing")
    if storage not in ("mcap", "sqlite3"):
        raise UserError(f"{path}: the storage {storage!r} cannot be read: bring it to mcap with ros2 bag convert")
    if compression[0] not in ("none", "file", "message") or (compression[0] != "none" and compression[1] != "zstd"):
        raise UserError(f"{path}: the compression {compression[1]!r} by {compression[0]!r} cannot be read, only zstd")
    with ExitStack() as held:
        if compression[0] == "file":
            folder = held.enter_context(tempfile.TemporaryDirectory())
            files = [_unpack(file, Path(folder)) for file in files]
        bag = mcap_bag(path, files, custom) if storage == "mcap" else rosbags_bag(path, files)
        held.callback(bag.close)
        if compression[0] == "message":
            bag = replace(bag, messages=_decompressing(path, bag.messages))
        return replace(bag, custom=custom or bag.custom, close=held.pop_all().close)


def _unpack(file: Path, folder: Path) -> Path:
    """A file that was compressed as a whole, in a temporary folder, without its .zstd."""
    import zstandard

    target = folder / file.stem
    left = max(file.stat().st_size * _LARGEST_RATIO, 1 << 20)
    with (
        disk_errors(target, f"decompressing {file}"),
        file.open("rb") as packed,
        target.open("wb") as plain,
        zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader,
    ):
        while left > 0:
            try:
                block = reader.read(1 << 20)
            except zstandard.ZstdError as error:
                raise UserError(f"{file} is damaged ({error}): restore it from a copy") from error
            if not block:
                return target
            plain.write(block)
            left -= len(block)
    raise UserError(f"{file} becomes more than {_LARGEST_RATIO} times its size: it is damaged, or made to fill disks")


def _decompressing(path: Path, messages: Messages) -> Messages:
    def read(wanted: Collection[str], start: int, stop: int) -> Generator[tuple[str, int, bytes]]:
        for topic, log_time, packed in messages(wanted, start, stop):
            raw = decompress(packed, "zstd", _LARGEST_MESSAGE)
            if not raw or len(raw) > _LARGEST_MESSAGE:
                raise UserError(f"{path} is damaged: a compressed message of {topic}; restore it from a copy")
            yield topic, log_time, raw

    return read
