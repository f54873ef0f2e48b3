"""Replay of a recording: what is in an MCAP file arrives again, at its pace, at another, or as fast as it is taken.

The clock is the recording's: `wall()` is the time at which a message was logged, so ages and timeouts come out as they
did then, at any pace. What is published during a replay reaches subscribers in this process, never a robot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

from embodied.core.errors import UsageError, UserError, near_names
from embodied.datasets.files.mcap_files import McapFile
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import (
    MAX_PACKET_BYTES,
    Publisher,
    QoS,
    Receive,
    Subscription,
    check_topic,
    check_type,
)

_NS = 1_000_000_000
_EVERYTHING = QoS(reliable=True, depth=1, transient_local=True)  # offers what any subscription may want


def open_transport(*, path: str | Path, rate: float | None = 1.0) -> BagTransport:
    """Open a recording.

    Args:
        path: an .mcap file in ROS 2's CDR, or a folder with several, which are played in the order of their names.
        rate: seconds of the recording in a second; None for as fast as possible.

    Raises:
        UsageError: a rate that makes no sense.
        UserError: no such file, or it is damaged.
        MissingExtraError: mcap is not installed.
    """
    if rate is not None and not (math.isfinite(rate) and 0.001 <= rate <= 1000):
        raise UsageError(f"rate must be in 0.001 .. 1000 or null, got {rate}")
    path = Path(path)
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path} is neither an .mcap file nor a folder with some")
    return BagTransport([McapFile(file) for file in files], rate=rate)


class BagTransport:
    """Messages arrive while `play` runs, on the thread that called it."""

    def __init__(self, files: list[McapFile], *, rate: float | None) -> None:
        self._files, self._rate = files, rate
        self._network = MemoryTransport()
        self.clock = self._network.clock
        self._stopped = False
        self.topics: dict[str, str] = {}
        """Types of the recorded topics."""
        for file in files:
            for channel in file.channels.values():
                schema = file.schemas.get(channel.schema_id)
                if channel.message_encoding == "cdr" and schema is not None:
                    self.topics[channel.topic] = schema.name
        self._publishers: dict[str, Publisher] = {}

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> Subscription:
        """A topic that was not recorded is no error: `matched` is 0; another type than the recorded is."""
        check_type(message_type)
        recorded = self.topics.get(check_topic(topic))
        if recorded is None and (near := near_names(topic, self.topics)):
            raise UsageError(f"{topic} is not in the recording: did you mean {' or '.join(near)}?")
        if recorded not in (None, message_type):
            raise UsageError(f"{topic} was recorded as {recorded}, not {message_type}")
        if recorded is not None and topic not in self._publishers:
            self._publishers[topic] = self._network.advertise(topic, message_type, _EVERYTHING)
        return self._network.subscribe(topic, message_type, qos, receive)

    def advertise(self, topic: str, message_type: str, qos: QoS) -> Publisher:
        return self._network.advertise(topic, message_type, qos)

    def play(self, *, topics: Iterable[str] | None = None, stop_after_s: float = math.inf) -> int:
        """Replay from the beginning to the end, or until `close` or so many seconds of the recording.

        Args:
            topics: only these, of those that are subscribed to.

        Returns:
            How many messages were played.

        Raises:
            UserError: the file is damaged.
        """
        wanted = set(self._publishers if topics is None else topics) & set(self._publishers)
        played, first, began = 0, None, time.monotonic()
        for file in self._files:
            for topic, log_ns, packet in file.messages(wanted):
                if first is None:
                    first = log_ns
                    self.clock.wall_offset_ns = first - self.clock.now()
                elapsed = (log_ns - first) / _NS
                if self._stopped or elapsed > stop_after_s:
                    return played
                if self._rate is not None:
                    time.sleep(max(0.0, began + elapsed / self._rate - time.monotonic()))
                # A message that was written late does not turn the clock back.
                self._network.advance(max(0, log_ns - self.clock.wall()) / _NS)
                if len(packet) <= MAX_PACKET_BYTES:
                    self._publishers[topic].publish(packet)
                    self._network.advance(0)
                    played += 1
        return played

    def close(self) -> None:
        self._stopped = True
        self._network.close()
