"""Messages on a stream of bytes: a record of JSON and raw bytes behind it. Nothing received is ever executed.

    magic, 4 bytes | length of the record, uint32 | length of the bytes, uint32 | record, UTF-8 | bytes

Numbers are little endian. Both lengths are checked against limits before anything is allocated.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

MAX_RECORD = 16 << 10
_MAGIC = b"EPS1"
_HEAD = struct.Struct("<4sII")
_PIECE = 1 << 18  # bytes asked for at once
_SLICE_S = 0.2  # of waiting, after which it is asked whether to go on


class ProtocolError(Exception):
    """What came is no message, or not the one that is due."""


class ConnectionLostError(Exception):
    """The other side is gone, or too slow."""


class TooSlowError(ConnectionLostError):
    """It did not come, or go, in time."""


class Message(NamedTuple):
    """A record, a JSON object, and the bytes behind it."""

    record: dict[str, Any]
    data: memoryview

    def text(self, name: str, *, most: int = 200) -> str:
        """A text in the record. Raises ProtocolError where it is none, or longer than `most` characters."""
        value = self.record.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise ProtocolError(f"{name} must be a text of at most {most} characters")
        return value

    def number(self, name: str) -> int:
        """A whole number of at least 0 in the record. Raises ProtocolError where it is none."""
        value = self.record.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ProtocolError(f"{name} must be a whole number of at least 0")
        return value


class Channel:
    """One connection, plain or TLS. Use it from one thread, but for `cut`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, record: dict[str, Any], data: bytes = b"", *, timeout_s: float) -> None:
        """Raises ConnectionLostError where it does not go out in time."""
        head = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
        assert len(head) <= MAX_RECORD, len(head)
        try:
            self._connection.settimeout(timeout_s)
            self._connection.sendall(b"".join((_HEAD.pack(_MAGIC, len(head), len(data)), head, data)))
        except OSError as error:
            raise _lost(error) from error

    def receive(self, *, idle_s: float, whole_s: float, most: int, stop: Callable[[], bool] = lambda: False) -> Message:
        """The next message.

        Args:
            idle_s: until it begins.
            whole_s: from then on until it is there.
            most: bytes that may be behind the record.
            stop: ends the wait for the beginning, as if its time were over.

        Raises:
            ProtocolError: it is malformed or too large: nothing more can be read from this connection.
            ConnectionLostError: it does not come in time, or the connection ends.
        """
        first = self._first(time.monotonic() + idle_s, stop)
        end = time.monotonic() + whole_s
        magic, size, behind = _HEAD.unpack(bytes(first) + self._take(_HEAD.size - 1, end))
        if magic != _MAGIC:
            raise ProtocolError("this is no message of a policy server or its client")
        if size > MAX_RECORD or behind > most:
            raise ProtocolError(f"a message of {size} + {behind} bytes, more than {MAX_RECORD} + {most}")
        return Message(_record(self._take(size, end)), memoryview(self._take(behind, end)))

    def cut(self) -> None:
        """End it from any thread: whoever waits for it wakes up."""
        try:
            # The method of the class below: that of a TLS socket would let go of TLS while another thread uses it.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
        except OSError:  # it has ended already
            return

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()

    def _first(self, end: float, stop: Callable[[], bool]) -> bytearray:
        while True:
            try:
                return self._take(1, min(end, time.monotonic() + _SLICE_S))
            except TooSlowError:
                if stop() or time.monotonic() >= end:
                    raise

    def _take(self, size: int, end: float) -> bytearray:
        taken = bytearray()
        while len(taken) < size:
            left = end - time.monotonic()
            if left <= 0:
                raise TooSlowError("it took too long")
            try:
                self._connection.settimeout(left)
                piece = self._connection.recv(min(_PIECE, size - len(taken)))
            except OSError as error:
                raise _lost(error) from error
            if not piece:
                raise ConnectionLostError("the other side ended the connection")
            taken += piece
        return taken


def _record(data: bytearray) -> dict[str, Any]:
    try:
        record = json.loads(bytes(data).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"its record is no JSON: {str(error)[:80]}") from error
    if not isinstance(record, dict):
        raise ProtocolError("its record is no JSON object")
    return record


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _lost(error: OSError) -> ConnectionLostError:
    if isinstance(error, TimeoutError):
        return TooSlowError("it took too long")
    return ConnectionLostError(error.strerror or str(error))
