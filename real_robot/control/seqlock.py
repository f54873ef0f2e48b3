"""One writer, any number of readers, no waiting: the newest value of fixed size in memory shared by processes.

Lamport 1977 ("Concurrent reading and writing", CACM 20 (11)): a counter is odd while a value is written, and a reader
that sees it change has read a torn value. Two slots take turns, so that a writer that is killed half-way leaves the
value before; and a CRC-32 stands beside each, since Python has no memory barriers and other processors than x86 may
make the counter visible before the value.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

_HEAD = struct.Struct("<QQII")  # counter, number, length, CRC-32 of number and value
_NUMBER = struct.Struct("<Q")
_ALIGNMENT = 64


class Value(NamedTuple):
    """What was read: `number` grows by one with each value written, from 1."""

    number: int
    data: bytes


class Seqlock:
    """A slot pair in `memory`, which must have `Seqlock.size(capacity)` bytes and be zero at first.

    Only one object may write at a time. A new writer continues where a dead one stopped.
    """

    def __init__(self, memory: memoryview, capacity: int) -> None:
        if len(memory) < self.size(capacity):
            raise ValueError(f"memory has {len(memory)} bytes, {self.size(capacity)} are needed")
        self.capacity = capacity
        slot = self.size(capacity) // 2
        self._slots = tuple(memory[i * slot : (i + 1) * slot] for i in range(2))
        self._counters = tuple(slot[:8].cast("Q") for slot in self._slots)
        self._seen: Value | None = None
        self._written: int | None = None

    @staticmethod
    def size(capacity: int) -> int:
        """Bytes needed for values of up to `capacity` bytes."""
        slot = -(-(_HEAD.size + capacity) // _ALIGNMENT) * _ALIGNMENT
        return 2 * slot

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Publish a value and return its number.

        Raises:
            ValueError: it is longer than the capacity.
        """
        if len(data) > self.capacity:
            raise ValueError(f"a value of {len(data)} bytes does not fit into {self.capacity}")
        if self._written is None:
            newest = self.read()
            self._written = newest.number if newest else 0
        number = self._written + 1
        slot, counter = self._slots[number % 2], self._counters[number % 2]
        odd = counter[0] | 1  # odd already where a writer died in this slot
        counter[0] = odd
        check = zlib.crc32(data, zlib.crc32(_NUMBER.pack(number)))
        _HEAD.pack_into(slot, 0, odd, number, len(data), check)
        slot[_HEAD.size : _HEAD.size + len(data)] = data
        counter[0] = odd + 1
        self._written = number
        return number

    def read(self, *, tries: int = 10) -> Value | None:
        """The newest whole value, never an older one than before; None before the first.

        A slot that is being written is looked at `tries` times, after which its writer counts as dead.
        """
        for _ in range(tries):
            values = [self._read_slot(i) for i in range(2)]
            for value in values:
                if isinstance(value, Value) and (self._seen is None or value.number > self._seen.number):
                    self._seen = value
            if not any(value is True for value in values):
                break
        return self._seen

    def _read_slot(self, index: int) -> Value | bool:
        """The slot's value; True where it is being written, False where there is none."""
        slot, counter = self._slots[index], self._counters[index]
        before = counter[0]
        if before == 0:
            return False
        if before % 2:
            return True
        _, number, length, check = _HEAD.unpack_from(slot, 0)
        if length > self.capacity:
            return True
        data = bytes(slot[_HEAD.size : _HEAD.size + length])
        if counter[0] != before or zlib.crc32(data, zlib.crc32(_NUMBER.pack(number))) != check:
            return True
        return Value(number, data)
