"""A transport inside one process, under a clock that only moves when told; with faults to order, for tests."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from embodied.core.errors import UsageError
from embodied.real_robot.transports.clocks import ManualClock
from embodied.real_robot.transports.delivery import Delivery
from embodied.real_robot.transports.transport import (
    MAX_PACKET_BYTES,
    Packet,
    QoS,
    Receive,
    TransportError,
    check_topic,
    check_type,
)

_NS = 1_000_000_000


@dataclass(frozen=True)
class Faults:
    """What happens to the messages of a topic on their way.

    Attributes:
        loss: share of the messages that never arrive, in [0, 1]; a reliable topic loses them all the same.
        delay_s: from publishing to arrival.
        jitter_s: further delay, uniform between 0 and this, for each message by itself; so they may overtake.
        duplicates: share of the messages that arrive twice.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplicates: float = 0.0

    def __post_init__(self) -> None:
        for name in ("loss", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("delay_s", "jitter_s"):
            if not 0 <= getattr(self, name) < 3600:
                raise UsageError(f"{name} must be in [0, 3600), got {getattr(self, name)}")


class MemoryTransport:
    """Delivers in `advance`, on the caller's thread, in the order of arrival times. Everything derives from the seed.

    Several programs may share one: it is the network. A message arrives at every subscription whose QoS matches.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.clock = ManualClock()
        self._random = random.Random(seed)
        self._faults: dict[str, Faults] = {}
        self._subscriptions: dict[str, list[_Subscription]] = defaultdict(list)
        self._publishers: dict[str, list[_Publisher]] = defaultdict(list)
        self._travelling: list[_Travelling] = []
        self._sent = 0
        self._closed = False

    def set_faults(self, topic: str, faults: Faults) -> None:
        """From now on, for messages of `topic`."""
        self._faults[check_topic(topic)] = faults

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> _Subscription:
        check_type(message_type)
        subscription = _Subscription(self, check_topic(topic), message_type, qos, Delivery(topic, receive))
        self._subscriptions[topic].append(subscription)
        for publisher in self._publishers[topic]:
            if qos.transient_local and _match(publisher, subscription):
                for packet in publisher.kept:
                    self._send(topic, packet, [subscription])
        return subscription

    def advertise(self, topic: str, message_type: str, qos: QoS) -> _Publisher:
        check_type(message_type)
        publisher = _Publisher(self, check_topic(topic), message_type, qos)
        self._publishers[topic].append(publisher)
        return publisher

    def advance(self, duration_s: float) -> None:
        """Move the clock, stopping at each arrival to call the callback, which may publish in turn.

        Raises:
            TransportError: ten million messages and no end: callbacks answer one another without delay.
        """
        end = self.clock.now() + round(duration_s * _NS)
        for _ in range(10_000_000):
            if self._closed or not self._travelling or self._travelling[0].arrival_ns > end:
                self.clock.advance(end - self.clock.now())
                return
            message = heapq.heappop(self._travelling)
            self.clock.advance(message.arrival_ns - self.clock.now())
            for subscription in message.to:
                subscription.delivery(message.packet, self.clock.now())
        raise TransportError("callbacks answer one another without end")

    def close(self) -> None:
        self._closed = True
        self._travelling.clear()

    def _publish(self, publisher: _Publisher, packet: bytes) -> None:
        if self._closed:
            raise TransportError(f"{publisher.topic}: the transport is closed")
        matching = [each for each in self._subscriptions[publisher.topic] if _match(publisher, each)]
        self._send(publisher.topic, packet, matching)

    def _send(self, topic: str, packet: bytes, to: list[_Subscription]) -> None:
        faults = self._faults.get(topic, Faults())
        if self._random.random() < faults.loss or not to:
            return
        for _ in range(1 + (self._random.random() < faults.duplicates)):
            delay = faults.delay_s + self._random.random() * faults.jitter_s
            self._sent += 1
            heapq.heappush(self._travelling, _Travelling(self.clock.now() + round(delay * _NS), self._sent, packet, to))


@dataclass(order=True, frozen=True)
class _Travelling:
    arrival_ns: int
    number: int
    packet: bytes = field(compare=False)
    to: list[_Subscription] = field(compare=False)


@dataclass(eq=False)
class _Subscription:
    network: MemoryTransport
    topic: str
    type: str
    qos: QoS
    delivery: Delivery

    def matched(self) -> int:
        return sum(_match(publisher, self) for publisher in self.network._publishers[self.topic])


class _Publisher:
    def __init__(self, network: MemoryTransport, topic: str, message_type: str, qos: QoS) -> None:
        self.network, self.topic, self.type, self.qos = network, topic, message_type, qos
        self.kept: deque[bytes] = deque(maxlen=qos.depth if qos.transient_local else 0)

    def publish(self, packet: Packet) -> None:
        if len(packet) > MAX_PACKET_BYTES:
            raise TransportError(f"{self.topic}: a message of {len(packet)} bytes, more than {MAX_PACKET_BYTES}")
        copy = bytes(packet)  # what the sender does to it afterwards is not heard
        self.kept.append(copy)
        self.network._publish(self, copy)

    def matched(self) -> int:
        return sum(_match(self, each) for each in self.network._subscriptions[self.topic])


def _match(publisher: _Publisher, subscription: _Subscription) -> bool:
    """Whether DDS would connect them."""
    offered, wanted = publisher.qos, subscription.qos
    return (
        publisher.type == subscription.type
        and (offered.reliable or not wanted.reliable)
        and (offered.transient_local or not wanted.transient_local)
    )


def open_transport(*, seed: int = 0) -> MemoryTransport:
    """See `MemoryTransport`."""
    return MemoryTransport(seed=seed)
