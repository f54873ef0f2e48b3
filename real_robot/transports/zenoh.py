"""Zenoh as ROS 2's rmw_zenoh speaks it: its keys, its announcements, what it attaches to messages.

What differs from DDS: nothing here is lost on the way, so what is late waits. Each subscription keeps its newest
`depth` messages and drops older ones before anybody sees them, and a full link drops at the sender
(`CongestionControl.DROP`) instead of blocking it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import threading
from typing import Any

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.real_robot.messages.structs import Definitions, standard_definitions
from embodied.real_robot.transports.allocator import keep_buffers
from embodied.real_robot.transports.clocks import SystemClock
from embodied.real_robot.transports.delivery import Delivery
from embodied.real_robot.transports.transport import (
    MAX_PACKET_BYTES,
    Packet,
    QoS,
    Receive,
    TransportError,
    check_domain,
)
from embodied.real_robot.transports.zenoh_names import TopicName, attachment, node_token, topic_name
from embodied.real_robot.transports.zenoh_peers import Peers

ROUTER = "tcp/127.0.0.1:7447"  # where rmw_zenoh looks for its router
_ENDPOINT = re.compile(r"(tcp|tls|quic)/(\[[0-9A-Fa-f:]+\]|[\w.-]+):(\d{1,5})", re.ASCII)
_NODE = re.compile(r"[A-Za-z]\w*", re.ASCII)


def open_transport(
    *,
    domain: int | None = None,
    connect: str | None = ROUTER,
    listen: str = "tcp/127.0.0.1:0",
    router: bool = False,
    type_hash: bool = True,
    shared_memory: bool = True,
    node: str = "embodied",
    definitions: Definitions | None = None,
) -> ZenohTransport:
    """Join a domain over Zenoh.

    Args:
        domain: ROS_DOMAIN_ID of the robot, 0 .. 232. May be left out where both endpoints are loopback; then 0.
        connect: another's endpoint, `tcp/HOST:PORT`: a Zenoh router or a peer; retried until it is there. None: wait
            for others to connect.
        listen: the endpoint that others may connect to; port 0 takes any.
        router: be the router that rmw_zenoh's nodes look for; then let `listen` be `tcp/127.0.0.1:7447`, and
            `connect` None.
        type_hash: True for ROS 2 from Jazzy on, False for Humble, whose keys have none.
        shared_memory: let large messages between processes of this machine go through memory both see, where the
            other side can too; the faster, the larger the image.
        node: what `ros2 node list` calls this program.
        definitions: where message types are found, if not only those that come along.

    Raises:
        UsageError: an endpoint beyond this machine without a domain, or an argument that makes no sense.
        UserError: the endpoint cannot be listened at.
        MissingExtraError: eclipse-zenoh is not installed.
    """
    local = all(_is_local("connect" if each is connect else "listen", each) for each in (connect, listen) if each)
    if domain is None and not local:
        raise UsageError(f"connect={connect} listen={listen} needs a domain: that of your robot (its ROS_DOMAIN_ID)")
    check_domain(domain)
    if not _NODE.fullmatch(node):
        raise UsageError(f"node must be a ROS name such as embodied, got {node!r}")
    keep_buffers()
    session = _session(connect, listen, "router" if router else "peer", shared_memory=shared_memory)
    return ZenohTransport(session, domain or 0, node, definitions or standard_definitions(), hashed=type_hash)


def _is_local(name: str, endpoint: str) -> bool:
    match = _ENDPOINT.fullmatch(endpoint)
    if not match:
        raise UsageError(f"{name} must look like tcp/127.0.0.1:7447, got {endpoint!r}")
    host = match[2].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _session(connect: str | None, listen: str, mode: str, *, shared_memory: bool) -> Any:
    try:
        import zenoh
    except ImportError as error:
        raise MissingExtraError("eclipse-zenoh", "zenoh") from error
    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": mode,
        "connect/endpoints": [connect] if connect else [],
        "connect/timeout_ms": 0,  # go on without, and retry
        "connect/exit_on_failure": False,
        "listen/endpoints": [listen],
        "listen/exit_on_failure": True,
        "scouting/multicast/enabled": False,
        "timestamping/enabled": True,  # `transient_local` wants it
        "transport/shared_memory/enabled": shared_memory,
        "transport/link/rx/max_message_size": MAX_PACKET_BYTES + (1 << 20),  # and what Zenoh adds
    }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    try:
        return zenoh.open(config)
    except zenoh.ZError as error:
        raise UserError(f"cannot listen at {listen}: {str(error).partition(' at /')[0]}") from error


class ZenohTransport:
    """A Zenoh session, with a thread for each subscription, of which one at a time delivers."""

    def __init__(self, session: Any, domain: int, node: str, definitions: Definitions, *, hashed: bool) -> None:
        self.clock = SystemClock()
        self.domain, self.node = domain, node
        self._session, self._definitions, self._hashed = session, definitions, hashed
        self._identity = str(session.zid())
        self._entities = 0
        self._subscriptions: list[_Subscription] = []
        self._closing = False
        self._peers = Peers(session, domain)
        self._tokens = [session.liveliness().declare_token(node_token(domain, self._identity, node))]
        self.delivering = threading.RLock()

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> _Subscription:
        import zenoh

        name = self._announce(topic, message_type, "MS", qos)
        ring: Any = zenoh.handlers.RingChannel(qos.depth)  # the oldest falls out
        if qos.transient_local:
            from zenoh import ext

            history = ext.HistoryConfig(max_samples=qos.depth, detect_late_publishers=True)
            source: Any = ext.declare_advanced_subscriber(self._session, name.key, ring, history=history)
        else:
            source = self._session.declare_subscriber(name.key, ring)
        subscription = _Subscription(self, name, source, Delivery(topic, receive), self._peers)
        self._subscriptions.append(subscription)
        return subscription

    def advertise(self, topic: str, message_type: str, qos: QoS) -> _Publisher:
        import zenoh

        name = self._announce(topic, message_type, "MP", qos)
        options: dict[str, Any] = {
            "congestion_control": zenoh.CongestionControl.DROP,
            "reliability": zenoh.Reliability.RELIABLE if qos.reliable else zenoh.Reliability.BEST_EFFORT,
            "express": True,  # do not wait for more to send along
        }
        if qos.transient_local:
            from zenoh import ext

            options |= {"cache": ext.CacheConfig(qos.depth), "publisher_detection": True}
            sink: Any = ext.declare_advanced_publisher(self._session, name.key, **options)
        else:
            sink = self._session.declare_publisher(name.key, **options)
        return _Publisher(self, name, sink, self._peers)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._session.close()
        if not any(each.is_current() for each in self._subscriptions):  # else the others wait for this very callback
            for subscription in self._subscriptions:
                subscription.join()

    @property
    def closed(self) -> bool:
        return self._closing

    def _announce(self, topic: str, message_type: str, kind: str, qos: QoS) -> TopicName:
        if self._closing:
            raise TransportError(f"{topic}: the transport is closed")
        name = topic_name(self.domain, topic, self._definitions[message_type], hashed=self._hashed)
        self._entities += 1
        token = name.token(self._identity, self._entities, kind, self.node, qos)
        self._tokens.append(self._session.liveliness().declare_token(token))
        return name


class _Subscription:
    def __init__(
        self, transport: ZenohTransport, name: TopicName, source: Any, delivery: Delivery, peers: Peers
    ) -> None:
        self.delivery = delivery
        self._transport, self._name, self._source, self._peers = transport, name, source, peers
        # A daemon that asks, rather than a function that Zenoh calls: the latter keeps a program from ending.
        self._thread = threading.Thread(target=self._receive, name=f"zenoh {name.topic}", daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        from zenoh import ZError

        while True:
            try:
                payload = self._source.handler.recv().payload
            except ZError:  # what it raises once the session is closed; there is no other reason
                return
            stamp = self._transport.clock.now()
            if self.delivery.accepts(len(payload)):
                packet = payload.to_bytes()
                with self._transport.delivering:
                    if self._transport.closed:
                        return
                    self.delivery(packet, stamp)

    def is_current(self) -> bool:
        """Whether its callback is what asks."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait for its last callback."""
        self._thread.join()

    def matched(self) -> int:
        return self._peers.count("MP", self._name)


class _Publisher:
    def __init__(self, transport: ZenohTransport, name: TopicName, sink: Any, peers: Peers) -> None:
        self._transport, self._name, self._sink, self._peers = transport, name, sink, peers
        self._identity = os.urandom(16)
        self._count = 0

    def publish(self, packet: Packet) -> None:
        if self._transport.closed:
            raise TransportError(f"{self._name.topic}: the transport is closed")
        if len(packet) > MAX_PACKET_BYTES:
            raise TransportError(f"{self._name.topic}: a message of {len(packet)} bytes, more than {MAX_PACKET_BYTES}")
        self._count += 1
        note = attachment(self._count, self._transport.clock.wall(), self._identity)
        self._sink.put(bytes(packet), attachment=note)

    def matched(self) -> int:
        return self._peers.count("MS", self._name)
