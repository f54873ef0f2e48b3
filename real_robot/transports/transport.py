"""What every transport does: raw messages by topic, both ways, with stamps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from embodied.core.errors import UsageError

Packet = bytes | memoryview
"""One message as it is on the wire: CDR with its four bytes of encapsulation (`messages.cdr`)."""

Receive = Callable[[Packet, int], None]
"""Called with each message that arrives and the clock's `now()` when it did."""

MAX_PACKET_BYTES = 64 << 20  # larger messages are dropped unseen; a 4K image in rgb8 has 25 MB

_TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
_TYPE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)/msg/([A-Za-z][A-Za-z0-9]*)")


class Clock(Protocol):
    """Two times, in nanoseconds."""

    def now(self) -> int:
        """Monotonic: for receive stamps, ages and deadlines; says nothing about the time of day."""

    def wall(self) -> int:
        """Since 1970, as headers of messages are stamped; may jump when somebody sets the clock."""


@dataclass(frozen=True)
class QoS:
    """How a topic is delivered, a subset of ROS 2's.

    A best-effort reader hears a reliable writer, but a reliable reader never hears a best-effort one; nor one that
    wants `transient_local` a writer that has it not.

    Attributes:
        reliable: resend what was lost.
        depth: messages kept on either side; older ones are overwritten.
        transient_local: readers that come late get the last `depth` messages.
        max_blocking_s: how long `publish` may wait when a reliable reader does not keep up.
    """

    reliable: bool = True
    depth: int = 1
    transient_local: bool = False
    max_blocking_s: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 10_000:
            raise UsageError(f"depth must be in 1 .. 10000, got {self.depth}")
        if not (math.isfinite(self.max_blocking_s) and 0 <= self.max_blocking_s <= 10):
            raise UsageError(f"max_blocking_s must be in 0 .. 10, got {self.max_blocking_s}")


SENSOR = QoS(reliable=False, depth=1)  # the newest or nothing
COMMAND = QoS(reliable=True, depth=1)
LATCHED = QoS(reliable=True, depth=1, transient_local=True)


class Publisher(Protocol):
    """The writing end of a topic."""

    def publish(self, packet: Packet) -> None:
        """Send one message; returns at once, or within the QoS' `max_blocking_s`.

        Raises:
            TransportError: it could not be sent.
        """

    def matched(self) -> int:
        """How many readers are known to listen."""


class Subscription(Protocol):
    """The reading end of a topic."""

    def matched(self) -> int:
        """How many writers are known to send."""


class Transport(Protocol):
    """A way to other programs. Use it from one thread; callbacks come on a thread of its own or, in `memory` and
    `bag`, on the one that moves the clock.

    A callback should hand the packet on and return: while it runs, nothing else arrives. What it raises is logged and
    the packet counts as not received, so that one bad message does not silence the others.
    """

    clock: Clock

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> Subscription:
        """Call `receive` for each message.

        Args:
            topic: absolute, such as `/joint_states`.
            message_type: such as `sensor_msgs/msg/JointState`.

        Raises:
            UsageError: a name that ROS does not allow, or a type that is not known.
        """

    def advertise(self, topic: str, message_type: str, qos: QoS) -> Publisher:
        """Open a topic for writing, early: readers take a moment to find it. Raises as `subscribe` does."""

    def close(self) -> None:
        """Stop. No callback runs after it returns; a second call does nothing."""


class TransportError(RuntimeError):
    """A message could not be sent or a topic not be opened."""


def check_domain(domain: int | None) -> None:
    """Raises UsageError for what is neither None nor a ROS_DOMAIN_ID, 0 .. 232."""
    if domain is not None and not 0 <= domain <= 232:
        raise UsageError(f"domain must be in 0 .. 232, got {domain}")


def check_topic(topic: str) -> str:
    """`topic`, if ROS 2 allows it as an absolute name; raises UsageError."""
    if not _TOPIC.fullmatch(topic) or "__" in topic or len(topic) > 248:
        raise UsageError(f"topic must be an absolute ROS name such as /joint_states, got {topic!r}")
    return topic


def check_type(message_type: str) -> tuple[str, str]:
    """Package and name of a message type; raises UsageError."""
    match = _TYPE.fullmatch(message_type)
    if not match:
        raise UsageError(f"message type must look like sensor_msgs/msg/Image, got {message_type!r}")
    return match[1], match[2]
