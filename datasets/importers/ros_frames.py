"""The second of two passes over a recording: the frames of an episode, in blocks.

The recording is read once from front to back. A message waits until the last frame that takes it is out: normally a
few of them, and when a recording keeps its topics far apart (all of one camera, then all of the next) the rest waits on
disk. So memory depends on neither the length of a recording nor its order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, cast

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EncodedBlock
from embodied.datasets.files.encoded_images import Picture
from embodied.datasets.importers.ros_arrays import Output, PictureOutput
from embodied.datasets.importers.ros_bags import Bag
from embodied.datasets.importers.ros_messages import MessageError, Struct, decode
from embodied.datasets.importers.ros_planning import EpisodePlan, TopicPicks
from embodied.datasets.importers.time_alignment import NS, blend_angles, blend_linear, blend_quaternions
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.store.episode_index import KeySpec

_MEMORY = 128 << 20  # bytes of waiting messages before they go to disk
TIMESTAMP = "timestamp"


@dataclass(frozen=True)
class Column:
    """One key of an episode: which output of which topic, and what the source calls it and keeps of it."""

    key: str
    topic: str
    output: Output
    spec: KeySpec
    angles: bool = False


class MessageShelf:
    """Raw messages by topic and number, in memory up to a limit and on disk beyond it."""

    def __init__(self, *, memory: int = _MEMORY) -> None:
        self._memory = memory
        self._held: dict[tuple[str, int], bytes] = {}
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        self._bytes = 0
        self._file: BinaryIO | None = None

    def put(self, label: tuple[str, int], raw: bytes) -> None:
        """Keep a message."""
        if self._bytes + len(raw) <= self._memory:
            self._held[label] = raw
            self._bytes += len(raw)
            return
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (closed by `close`)
        self._places[label] = (self._file.seek(0, 2), len(raw))
        self._file.write(raw)

    def take(self, label: tuple[str, int]) -> bytes:
        """The message, which is then no longer kept."""
        if label in self._held:
            raw = self._held.pop(label)
            self._bytes -= len(raw)
            return raw
        place, size = self._places.pop(label)
        assert self._file is not None, label
        self._file.seek(place)
        return self._file.read(size)

    def __contains__(self, label: object) -> bool:
        return label in self._held or label in self._places

    def close(self) -> None:
        """Give the disk back."""
        if self._file is not None:
            self._file.close()


class FrameReader:
    """Reads the frames of one episode, in their order.

    Args:
        bag: the opened recording.
        types: of its topics.
    """

    def __init__(
        self,
        bag: Bag,
        plan: EpisodePlan,
        columns: Sequence[Column],
        types: Mapping[str, Struct],
        *,
        memory: int = _MEMORY,
    ) -> None:
        self._bag, self._plan, self._types = bag, plan, types
        self._columns: dict[str, list[Column]] = {}
        for column in columns:
            self._columns.setdefault(column.topic, []).append(column)
        self._last_use = {topic: _last_use(plan.picks[topic]) for topic in self._columns}
        self._messages = bag.messages(list(self._columns), plan.start, plan.stop)
        self._counts = dict.fromkeys(self._columns, 0)
        self._shelf = MessageShelf(memory=memory)
        self._decoded: dict[tuple[str, int], list[Picture]] = {}

    def blocks(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """Blocks of about `block_bytes`, with the time since the first frame as `timestamp`.

        Raises:
            UserError: the recording is damaged, or a message does not fit the first one of its topic.
        """
        specs = {column.key: column.spec for columns in self._columns.values() for column in columns}
        size = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in specs.values())
        step, length = max(1, block_bytes // max(size, 1)), len(self._plan.times)
        try:
            for begin in range(0, length, step):
                end = min(begin + step, length)
                block = {key: np.empty((end - begin, *spec.shape), spec.dtype) for key, spec in specs.items()}
                files: dict[str, list[bytes | None]] = {key: [] for key in specs}
                for frame in range(begin, end):
                    row = {key: array[frame - begin : frame - begin + 1] for key, array in block.items()}
                    self._fill(row, files, frame)
                if TIMESTAMP not in block:
                    block[TIMESTAMP] = (self._plan.times[begin:end] - self._plan.times[0]) / NS
                yield EncodedBlock(block, files)
        finally:
            self._messages.close()
            self._shelf.close()

    def _fill(self, row: Mapping[str, np.ndarray], files: Mapping[str, list[bytes | None]], frame: int) -> None:
        for topic, columns in self._columns.items():
            picks = self._plan.picks[topic]
            numbers, weight = (int(picks.first[frame]), int(picks.second[frame])), float(picks.weight[frame])
            first = self._arrays(topic, numbers[0])
            second = self._arrays(topic, numbers[1]) if weight else first
            for place, column in enumerate(columns):
                value = first[place].pixels
                blended = _blend(column, value, second[place].pixels, weight) if weight else value
                row[column.key][0] = blended.reshape(column.spec.shape)
                files[column.key].append(first[place].file)  # images are never blended
            for number in set(numbers):
                if self._last_use[topic].get(number) == frame:
                    self._decoded.pop((topic, number), None)

    def _arrays(self, topic: str, number: int) -> list[Picture]:
        """The arrays of a message, read up to it if it was not met yet."""
        label = (topic, number)
        if label not in self._decoded:
            with disk_errors(self._bag.path, "keeping messages in the temporary folder"):
                while label not in self._shelf:
                    self._read_on()
                raw = self._shelf.take(label)
            where = f"{self._bag.path}: message of {topic} (number {number} after {self._plan.start} ns)"
            self._decoded[label] = self._read(topic, raw, where)
        return self._decoded[label]

    def _read_on(self) -> None:
        message = next(self._messages, None)
        if message is None:
            raise UserError(f"{self._bag.path} ended earlier than when it was first read: does somebody write to it?")
        topic, _, raw = message
        number = self._counts[topic]
        self._counts[topic] += 1
        if number in self._last_use[topic]:
            self._shelf.put((topic, number), raw)

    def _read(self, topic: str, raw: bytes, where: str) -> list[Picture]:
        arrays = []
        try:
            message = decode(raw, self._types[topic], ros1=self._bag.topics[topic].ros1)
            for column in self._columns[topic]:
                output, spec = column.output, column.output.spec
                found = output.picture(message) if isinstance(output, PictureOutput) else Picture(output.read(message))
                array = found.pixels
                if array.shape != spec.shape or array.dtype != spec.dtype:
                    got = KeySpec(array.dtype.name, array.shape).describe()
                    raise MessageError(f"it has {got}, the first message {KeySpec(spec.dtype, spec.shape).describe()}")
                arrays.append(found)
        except MessageError as error:
            raise UserError(f"{where} cannot be used: {error}") from error
        return arrays


def _last_use(picks: TopicPicks) -> dict[int, int]:
    """Per message that is taken the last frame that does."""
    last: dict[int, int] = {}
    for each in (picks.first, picks.second):
        numbers, places = np.unique(each[::-1], return_index=True)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            last[number] = max(last.get(number, 0), len(each) - 1 - place)
    return last


def _blend(column: Column, first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    if not column.output.blendable:
        return first
    blend: Callable[[np.ndarray, np.ndarray, float], np.ndarray] = blend_angles if column.angles else blend_linear
    blended = blend(first, second, weight)
    for begin in column.output.quaternions:
        four = slice(begin, begin + 4)
        blended[four] = blend_quaternions(first[four], second[four], weight)
    return blended
