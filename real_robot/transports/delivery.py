"""What every transport does with a packet before it reaches a callback."""

from __future__ import annotations

import logging

from embodied.real_robot.transports.transport import MAX_PACKET_BYTES, Packet, Receive

_logger = logging.getLogger(__name__)


class Delivery:
    """Hands packets to a callback and keeps a callback's failure from silencing the topic.

    Attributes:
        received: packets the callback took.
        failed: packets it raised at.
        oversized: packets dropped unseen for their size.
    """

    def __init__(self, topic: str, receive: Receive) -> None:
        self.topic = topic
        self.received = self.failed = self.oversized = 0
        self._receive = receive

    def accepts(self, size: int) -> bool:
        """Whether a packet of that size may be fetched; counts it if not, and warns at the first."""
        if size <= MAX_PACKET_BYTES:
            return True
        self.oversized += 1
        if self.oversized == 1:
            _logger.warning("%s: dropped a message of %d bytes, more than %d", self.topic, size, MAX_PACKET_BYTES)
        return False

    def __call__(self, packet: Packet, stamp_ns: int) -> None:
        """Deliver one packet that arrived at `stamp_ns` of the transport's clock."""
        try:
            self._receive(packet, stamp_ns)
        except Exception:  # of any kind: the thread that reads all topics must go on, and the robot's watchdogs see
            self.failed += 1
            if self.failed in (1, 10, 100) or self.failed % 1000 == 0:  # not a line for each frame
                _logger.exception("%s: a message was not taken (%d so far)", self.topic, self.failed)
        else:
            self.received += 1
