"""Records topics of a transport while they arrive, without holding up whoever listens too."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from functools import partial

from embodied.core.errors import UserError
from embodied.real_robot.recording.recorder import Recorder
from embodied.real_robot.transports.transport import Packet, QoS, Transport

_logger = logging.getLogger(__name__)
MOST_WAITING_BYTES = 256 << 20  # on their way to a slow disk; what comes on top is counted and lost


class TopicRecorder:
    """Writes what arrives on some topics on a thread of its own, until `close`.

    A full disk ends the recording and nothing else: `failure` says why, and further messages count as lost.

    Attributes:
        lost: messages that were not written.
        failure: why the recording ended early, else None.
    """

    def __init__(
        self, transport: Transport, topics: Mapping[str, tuple[str, QoS]], recorder: Recorder,
        *, most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:  # fmt: skip
        """Begin.

        Args:
            topics: name to type and QoS; a depth of some is better here than the 1 of a controller.
            recorder: is closed by `close`.
        """
        self.lost = 0
        self.failure: UserError | None = None
        self._clock, self._recorder, self._most = transport.clock, recorder, most_waiting_bytes
        self._waiting: queue.SimpleQueue[tuple[str, Packet, int] | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        for topic, (message_type, qos) in topics.items():
            recorder.add_topic(topic, message_type)
            transport.subscribe(topic, message_type, qos, partial(self._arrive, topic))
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def _arrive(self, topic: str, packet: Packet, stamp_ns: int) -> None:
        with self._lock:
            if self._closed:
                return
            if self.failure is not None or self._waiting_bytes + len(packet) > self._most:
                self.lost += 1
                return
            self._waiting_bytes += len(packet)
        self._waiting.put((topic, packet, self._clock.wall() - (self._clock.now() - stamp_ns)))

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            topic, packet, wall_ns = item
            with self._lock:
                self._waiting_bytes -= len(packet)
            if self.failure is None:
                try:
                    self._recorder.write(topic, packet, wall_ns)
                    continue
                except UserError as error:
                    self.failure = error
                    _logger.error("the recording ended early: %s", error)
            with self._lock:
                self.lost += 1

    def close(self) -> None:
        """Write what waits and finish the file.

        Raises:
            UserError: the recording ended early, or the disk fails now.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._waiting.put(None)
        self._thread.join()
        try:
            self._recorder.close()
        except UserError as error:
            self.failure = self.failure or error
        if self.failure is not None:
            raise self.failure
