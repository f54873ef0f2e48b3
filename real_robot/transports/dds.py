"""DDS as ROS 2 speaks it: its topic and type names, its QoS, XCDR version 1; through Cyclone DDS' C library.

Departures from a ROS 2 node, none of which keep data from flowing: `ros2 node list` does not show this program (it
publishes no `ros_discovery_info`), and there are no parameter services.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from dataclasses import dataclass, field

import numpy as np

from embodied.core.errors import UsageError
from embodied.real_robot.messages.structs import Definitions, standard_definitions
from embodied.real_robot.messages.type_hash import type_hash
from embodied.real_robot.transports.allocator import keep_buffers
from embodied.real_robot.transports.clocks import SystemClock
from embodied.real_robot.transports.dds_domains import DOMAINS
from embodied.real_robot.transports.dds_library import (
    ANY_STATE,
    DATA,
    XCDR1,
    Buffer,
    Descriptor,
    MatchedStatus,
    SampleInfo,
    checked,
    descriptor,
    library,
)
from embodied.real_robot.transports.delivery import Delivery
from embodied.real_robot.transports.transport import (
    MAX_PACKET_BYTES,
    Packet,
    QoS,
    Receive,
    TransportError,
    check_domain,
    check_topic,
    check_type,
)

_logger = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
_WAKE_NS = 500_000_000  # a wait ends by itself; only a safeguard, since closing wakes it
_MOST_TAKEN = 16  # packets of one topic before the others have their turn
_INTERFACE = re.compile(r"[\w.:-]{1,64}", re.ASCII)


def open_transport(
    *, domain: int | None = None, interface: str = LOOPBACK, definitions: Definitions | None = None
) -> DdsTransport:
    """Join a DDS domain.

    Args:
        domain: ROS_DOMAIN_ID of the robot, 0 .. 232. May be left out on loopback only, where it is 0: on a network,
            0 is what everybody else uses too.
        interface: a network interface by name (`eth0`) or address; nothing is sent or heard on others. Default:
            loopback.
        definitions: where message types are found, if not only those that come along.

    Raises:
        UsageError: an interface without a domain, or one that makes no sense.
        UserError: there is no such interface.
        MissingExtraError: cyclonedds is not installed.
    """
    if domain is None and interface != LOOPBACK:
        raise UsageError(f"interface={interface} needs a domain: that of your robot (its ROS_DOMAIN_ID)")
    check_domain(domain)
    if not _INTERFACE.fullmatch(interface):
        raise UsageError(f"interface must be a name such as eth0 or an address, got {interface!r}")
    keep_buffers()
    return DdsTransport(domain or 0, interface, definitions or standard_definitions())


class DdsTransport:
    """A participant of a DDS domain, with a thread that reads all topics."""

    def __init__(self, domain: int, interface: str, definitions: Definitions) -> None:
        self.clock = SystemClock()
        self.domain = domain
        self._definitions = definitions
        self._topics: dict[tuple[str, str], tuple[int, Descriptor]] = {}
        self._readers: list[_Subscription] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._library = library()
        DOMAINS.join(domain, interface)
        try:
            name = f"joining DDS domain {domain}"
            self._participant = checked(self._library.dds_create_participant(domain, None, None), name)
            self._waitset = checked(self._library.dds_create_waitset(self._participant), name)
            self._wake = checked(self._library.dds_create_guardcondition(self._participant), name)
            checked(self._library.dds_waitset_attach(self._waitset, self._wake, -1), name)
        except TransportError:
            DOMAINS.leave(domain)
            raise

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> _Subscription:
        handle, _ = self._topic(topic, message_type)
        settings = _settings(qos, "")
        try:
            reader = checked(
                self._library.dds_create_reader(self._participant, handle, settings, None), f"subscribing to {topic}"
            )
        finally:
            self._library.dds_delete_qos(settings)
        subscription = _Subscription(reader, Delivery(topic, receive), min(qos.depth, _MOST_TAKEN))
        self._readers.append(subscription)
        condition = checked(self._library.dds_create_readcondition(reader, ANY_STATE), topic)
        checked(self._library.dds_waitset_attach(self._waitset, condition, len(self._readers) - 1), topic)
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name=f"dds-{self.domain}", daemon=True)
            self._thread.start()
        return subscription

    def advertise(self, topic: str, message_type: str, qos: QoS) -> _Publisher:
        handle, hashed = self._topic(topic, message_type)
        settings = _settings(qos, hashed)
        try:
            writer = checked(
                self._library.dds_create_writer(self._participant, handle, settings, None), f"advertising {topic}"
            )
        finally:
            self._library.dds_delete_qos(settings)
        return _Publisher(self, topic, writer)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._library.dds_set_guardcondition(self._wake, True)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._library.dds_delete(self._participant)
        DOMAINS.leave(self.domain)

    @property
    def closed(self) -> bool:
        return self._closing

    def _topic(self, topic: str, message_type: str) -> tuple[int, str]:
        """A topic's handle, and what a writer of it says about its type."""
        if self._closing:
            raise TransportError(f"{topic}: the transport is closed")
        package, name = check_type(message_type)
        struct = self._definitions[message_type]
        key = (check_topic(topic), message_type)
        if key not in self._topics:
            described = descriptor(struct, f"{package}::msg::dds_::{name}_")
            handle = self._library.dds_create_topic(
                self._participant, ctypes.byref(described), f"rt{topic}".encode(), None, None
            )
            self._topics[key] = (checked(handle, f"opening {topic} for {message_type}"), described)
        return self._topics[key][0], f"typehash={type_hash(struct)};"

    def _read(self) -> None:
        ready = (ctypes.c_ssize_t * 64)()
        while not self._closing:
            count = self._library.dds_waitset_wait(self._waitset, ready, len(ready), _WAKE_NS)
            if count < 0:
                _logger.error("reading DDS domain %d stopped: %s", self.domain, self._library.dds_strretcode(-count))
                return
            for number in ready[: min(count, len(ready))]:
                if number >= 0 and not self._closing:
                    self._take(self._readers[number])

    def _take(self, subscription: _Subscription) -> None:
        handles, infos = subscription.handles, subscription.infos
        count = self._library.dds_takecdr(subscription.reader, handles, len(handles), infos, ANY_STATE)
        stamp = self.clock.now()
        for place in range(count):
            handle = handles[place] or 0
            packet = self._packet(handle, subscription.delivery) if infos[place].valid else None
            self._library.ddsi_serdata_unref(handle)
            if packet is not None:
                subscription.delivery(packet, stamp)

    def _packet(self, handle: int, delivery: Delivery) -> Packet | None:
        """A copy of a packet, once, out of Cyclone's memory."""
        size = self._library.ddsi_serdata_size(handle)
        if not delivery.accepts(size):
            return None
        copy = np.empty(size, np.uint8)
        self._library.ddsi_serdata_to_ser(handle, 0, size, copy.ctypes.data)
        return copy.data.toreadonly()


@dataclass(eq=False)
class _Subscription:
    reader: int
    delivery: Delivery
    most: int
    handles: ctypes.Array[ctypes.c_void_p] = field(init=False)
    infos: ctypes.Array[SampleInfo] = field(init=False)

    def __post_init__(self) -> None:
        self.handles = (ctypes.c_void_p * self.most)()
        self.infos = (SampleInfo * self.most)()

    def matched(self) -> int:
        status = MatchedStatus()
        checked(library().dds_get_subscription_matched_status(self.reader, ctypes.byref(status)), self.delivery.topic)
        return int(status.current)


class _Publisher:
    def __init__(self, transport: DdsTransport, topic: str, writer: int) -> None:
        self._transport, self._topic, self._writer = transport, topic, writer
        self._library = library()
        self._type = ctypes.c_void_p()
        checked(self._library.dds_get_entity_sertype(writer, ctypes.byref(self._type)), f"advertising {topic}")

    def publish(self, packet: Packet) -> None:
        """Cyclone checks the packet against the type: one that does not fit raises TransportError too."""
        if self._transport.closed:
            raise TransportError(f"{self._topic}: the transport is closed")
        if not 4 <= len(packet) <= MAX_PACKET_BYTES:
            raise TransportError(f"{self._topic}: a message of {len(packet)} bytes, not 4 .. {MAX_PACKET_BYTES}")
        if len(packet) % 4:
            packet = bytes(packet) + bytes(-len(packet) % 4)
        held = np.frombuffer(packet, np.uint8)
        buffer = Buffer(held.ctypes.data, len(packet))
        data = self._library.ddsi_serdata_from_ser_iov(self._type, DATA, 1, ctypes.byref(buffer), len(packet))
        if not data:
            raise TransportError(f"{self._topic}: the packet is no message of the topic's type")
        checked(self._library.dds_writecdr(self._writer, data), f"publishing on {self._topic}")

    def matched(self) -> int:
        status = MatchedStatus()
        checked(self._library.dds_get_publication_matched_status(self._writer, ctypes.byref(status)), self._topic)
        return int(status.current)


def _settings(qos: QoS, user_data: str) -> int:
    """A dds_qos_t as rmw_cyclonedds would make it; to be deleted after use."""
    lib = library()
    settings: int = lib.dds_create_qos()
    lib.dds_qset_reliability(settings, int(qos.reliable), round(qos.max_blocking_s * 1e9))
    lib.dds_qset_history(settings, 0, qos.depth)
    lib.dds_qset_durability(settings, int(qos.transient_local))
    if qos.transient_local:
        lib.dds_qset_durability_service(settings, 0, 0, qos.depth, -1, -1, -1)
    lib.dds_qset_writer_data_lifecycle(settings, False)
    lib.dds_qset_data_representation(settings, 1, (ctypes.c_int16 * 1)(XCDR1))
    if user_data:
        lib.dds_qset_userdata(settings, user_data.encode(), len(user_data))
    return settings
