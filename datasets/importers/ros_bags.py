"""One recording of ROS topics as raw messages: MCAP, ROS 2's sqlite3, ROS 1's bag. `ros_bag_folders` opens them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from embodied.core.errors import MissingExtraError, UserError
from embodied.datasets.files.mcap_files import McapFile
from embodied.datasets.storage.disk import disk_errors

Messages = Callable[[Collection[str], int, int], Generator[tuple[str, int, bytes]]]
_LARGEST_CHUNK = 1 << 29  # bytes of a decompressed chunk of a ROS 1 bag; rosbag writes 768 kB or one message
LARGEST_METADATA = 1 << 22  # bytes of metadata.yaml: a split bag has 200 for each file


@dataclass(frozen=True)
class Topic:
    """A topic of a recording: its type as ROS 2 writes it, and the definition, empty where the recording has none.

    `unreadable` says why its messages cannot be read; empty if they can.
    """

    name: str
    type: str
    definition: str
    ros1: bool
    unreadable: str = ""


@dataclass(frozen=True)
class Bag:
    """An opened recording.

    Args:
        messages: `(topics, start, stop)`: topic, log time in nanoseconds and bytes of the messages of these topics with
            start <= log time < stop, in the same order each time.
        format: `ros2 mcap`, `ros2 sqlite3` or `ros1`.
        custom: texts that the recorder added.
    """

    path: Path
    topics: Mapping[str, Topic]
    messages: Messages
    format: str
    custom: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def mcap_bag(path: Path, files: list[Path], custom: Mapping[str, str]) -> Bag:
    """The recording in MCAP files that follow each other.

    Raises:
        UserError: one was cut off or is damaged.
    """
    with disk_errors(path, "reading"):
        opened = [McapFile(file) for file in files]
    topics = _merged(_mcap_topic(file, channel) for file in opened for channel in file.channels.values())

    def messages(wanted: Collection[str], start: int, stop: int) -> Generator[tuple[str, int, bytes]]:
        for file in opened:
            with disk_errors(file.path, "reading"):
                yield from file.messages(wanted, start, stop)

    return Bag(path, topics, messages, "ros2 mcap", custom or _embedded_custom(opened[0]))


def _merged(topics: Iterable[Topic]) -> dict[str, Topic]:
    """Topics by name, of all who published there."""
    merged: dict[str, Topic] = {}
    for topic in topics:
        known = merged.setdefault(topic.name, topic)
        if known.type != topic.type:
            reason = known.unreadable or f"its messages are of two types, {known.type} and {topic.type}"
            merged[topic.name] = replace(known, unreadable=reason)
    return merged


def _mcap_topic(file: McapFile, channel: Any) -> Topic:
    schema = file.schemas.get(channel.schema_id)
    name, encoding = (schema.name, schema.encoding) if schema else ("", "")
    if channel.message_encoding not in ("cdr", "ros1") or not name:
        return Topic(channel.topic, name, "", False, f"its messages are {channel.message_encoding or 'of no type'}")
    package, _, rest = name.partition("/")
    full = name if rest.startswith(("msg/", "action/", "srv/")) else f"{package}/msg/{rest}"
    text = schema.data.decode(errors="replace") if schema and encoding in ("ros2msg", "ros1msg") else ""
    return Topic(channel.topic, full, text, channel.message_encoding == "ros1")


def _embedded_custom(file: McapFile) -> Mapping[str, str]:
    """The recorder's texts from the copy of metadata.yaml that rosbag2 puts into the file."""
    text = file.metadata.get("rosbag2", {}).get("serialized_metadata", "")
    if len(text) > LARGEST_METADATA:
        return {}
    try:
        return dict((yaml.safe_load(text) or {}).get("custom_data") or {})
    except (yaml.YAMLError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"{file.path} is damaged: its copy of metadata.yaml ({type(error).__name__})") from error


def rosbags_bag(path: Path, files: list[Path]) -> Bag:
    """The recording in sqlite3 files that follow each other, or in a ROS 1 bag.

    Raises:
        UserError: one was cut off or is damaged.
    """
    try:
        from rosbags.interfaces import MessageDefinitionFormat
    except ImportError as error:
        raise MissingExtraError("rosbags", "ros") from error
    ros1 = files[0].suffix == ".bag"
    with ExitStack() as held:
        opened = [held.enter_context(closing(_open_ros1(file) if ros1 else _open_sqlite(file))) for file in files]
        close = held.pop_all().close
    topics = _merged(
        Topic(
            connection.topic,
            connection.msgtype,
            connection.msgdef.data if connection.msgdef.format == MessageDefinitionFormat.MSG else "",
            ros1,
        )
        for reader in opened
        for connection in reader.connections
    )

    def messages(wanted: Collection[str], start: int, stop: int) -> Generator[tuple[str, int, bytes]]:
        for file, reader in zip(files, opened, strict=True):
            connections = [connection for connection in reader.connections if connection.topic in wanted]
            if not connections:
                continue  # no connections would mean all of them
            with _damage(file):
                items = iter(reader.messages(connections, start, min(stop, (1 << 63) - 1)))
            while True:
                with _damage(file):
                    connection, log_time, raw = next(items, (None, 0, b""))
                    raw = bytes(raw)
                if connection is None:
                    break
                yield connection.topic, log_time, raw

    return Bag(path, topics, messages, "ros1" if ros1 else "ros2 sqlite3", close=close)


def _open_sqlite(file: Path) -> Any:
    from rosbags.rosbag2 import Reader

    log = file.with_name(file.name + "-wal")
    if log.is_file() and log.stat().st_size:
        raise UserError(
            f"{file} was not closed, a part of it is in {log.name}: "
            f"close it with sqlite3 {file} 'PRAGMA wal_checkpoint'"
        )
    with _damage(file):
        reader = Reader(file)
        reader.open()
    return reader


def _open_ros1(file: Path) -> Any:
    from rosbags.rosbag1 import Reader

    with _damage(file):
        reader = Reader(file)
        reader.open()
        for place, chunk in reader.chunks.items():
            reader.chunks[place] = chunk._replace(decompressor=_bounded(chunk.decompressor))
    return reader


def _bounded(decompressor: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """What rosbags decompresses a chunk with, but never more than a chunk can be."""
    import bz2

    import lz4.frame

    def decompressed(data: bytes) -> bytes:
        if data[:3] == b"BZh":
            plain = bz2.BZ2Decompressor().decompress(data, max_length=_LARGEST_CHUNK + 1)
        elif data[:4] == b"\x04\x22\x4d\x18":
            plain = bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=_LARGEST_CHUNK + 1))
        else:
            plain = decompressor(data)
        if len(plain) > _LARGEST_CHUNK:
            raise ValueError(f"a chunk of more than {_LARGEST_CHUNK} bytes")
        return plain

    return decompressed


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Turn what rosbags raises on a damaged file into one message."""
    import apsw
    from rosbags import rosbag1, rosbag2

    try:
        yield
    except (rosbag1.ReaderError, rosbag2.ReaderError) as error:
        raise _damaged(file, str(error).partition(": (")[0].rstrip(".")) from error
    # Its parsers trust the file: these are what wrong lengths, offsets and texts end in.
    except (
        apsw.Error, struct.error, ValueError, LookupError, TypeError, AssertionError, AttributeError, EOFError,
        ArithmeticError, MemoryError, RecursionError, RuntimeError, OSError,
    ) as error:  # fmt: skip
        raise _damaged(file, type(error).__name__) from error


def _damaged(file: Path, reason: str) -> UserError:
    how = "rosbag reindex" if file.suffix == ".bag" else "ros2 bag reindex"
    return UserError(f"{file} is damaged or was cut off ({reason}): restore it from a copy, or try: {how}")
