"""ROS 1 as Debian has it: rospy in a process of its own (`ros1_bridge`), messages translated to and from CDR here.

ROS 1 has no QoS: everything goes over TCP, the newest `depth` messages wait, and `transient_local` is a latched topic
of one message. It has no authentication either: beyond loopback, whoever reaches the network reaches the robot.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.messages.cdr_reading import MessageError, decode, decode_ros1
from embodied.real_robot.messages.cdr_writing import encode, encode_ros1
from embodied.real_robot.messages.structs import Definitions, standard_definitions
from embodied.real_robot.messages.values import class_of
from embodied.real_robot.transports import ros1_bridge
from embodied.real_robot.transports.clocks import SystemClock
from embodied.real_robot.transports.delivery import Delivery
from embodied.real_robot.transports.ros1_bridge import read_message, write_message
from embodied.real_robot.transports.ros1_types import full_text, md5sum, ros1_name
from embodied.real_robot.transports.transport import (
    MAX_PACKET_BYTES,
    Packet,
    QoS,
    Receive,
    TransportError,
    check_topic,
    check_type,
)

_logger = logging.getLogger(__name__)
_NODE = re.compile(r"[A-Za-z]\w*", re.ASCII)
_START_S, _END_S = 20.0, 5.0
_APT = "apt-get install --no-install-recommends python3-rospy"


def open_transport(
    *,
    master: str = "http://127.0.0.1:11311",
    host: str = "127.0.0.1",
    python: str = "/usr/bin/python3",
    node: str = "embodied",
    definitions: Definitions | None = None,
) -> Ros1Transport:
    """Join a ROS 1 system.

    Args:
        master: where its roscore is, the robot's ROS_MASTER_URI.
        host: this machine's address as the other nodes reach it. On loopback nobody else can connect.
        python: the Python that has rospy.
        node: what `rosnode list` calls this program, and a number behind it.
        definitions: where message types are found, if not only those that come along.

    Raises:
        UsageError: an argument that makes no sense.
        UserError: rospy is not installed, or there is no master.
    """
    if not re.fullmatch(r"http://[\w.\-\[\]:]+:\d{1,5}/?", master, re.ASCII):
        raise UsageError(f"master must look like http://127.0.0.1:11311, got {master!r}")
    if not _NODE.fullmatch(node):
        raise UsageError(f"node must be a ROS name such as embodied, got {node!r}")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"host must be an address of this machine, got {host!r}") from error
    if not Path(python).is_file():
        raise UserError(f"python={python} is not there: name the Python that has rospy ({_APT})")
    return Ros1Transport(_bridge(master, host, python, node), definitions or standard_definitions(), master)


def _bridge(master: str, host: str, python: str, node: str) -> subprocess.Popen[bytes]:
    # Nothing of this program's own Python (-I too): its packages are for another version of it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"ROS_MASTER_URI": master, "ROS_IP": host}
    environment.pop("ROS_HOSTNAME", None)
    return subprocess.Popen(
        [python, "-I", str(Path(ros1_bridge.__file__).resolve()), node],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is for this program, which ends it in good order
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        _logger.debug("the bridge to ROS 1 had ended already")
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Ros1Transport:
    """A bridge, and a thread that reads from it and delivers."""

    def __init__(self, process: subprocess.Popen[bytes], definitions: Definitions, master: str) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.clock = SystemClock()
        self._process = process
        self._input, self._output = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        self._definitions, self._closed = definitions, False
        self._topics: dict[int, _Subscription | _Publisher] = {}
        self._ready, self._said = threading.Event(), ""
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="ros1", daemon=True)
        self._thread.start()
        self._ready.wait(_START_S)
        if self._said != "ready":
            self.close()
            reasons = {
                "missing": f"ROS 1's rospy is not installed: {_APT}",
                "no master": f"no ROS 1 master at {master}: start roscore, or set master= (the robot's ROS_MASTER_URI)",
            }
            raise UserError(reasons.get(self._said, f"the bridge to ROS 1 did not start ({self._said or 'no answer'})"))

    def subscribe(self, topic: str, message_type: str, qos: QoS, receive: Receive) -> _Subscription:
        subscription = _Subscription(self._kind(topic, message_type), Delivery(topic, receive))
        self._open("subscribe", topic, message_type, qos, subscription)
        return subscription

    def advertise(self, topic: str, message_type: str, qos: QoS) -> _Publisher:
        publisher = _Publisher(self._kind(topic, message_type), self, topic)
        self._open("advertise", topic, message_type, qos, publisher)
        return publisher

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._writing:
            _end(self._process)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._output.close()

    def send(self, topic: str, record: dict[str, Any], data: bytes = b"") -> None:
        """To the bridge. Raises TransportError where it is gone."""
        try:
            with self._writing:
                if self._closed:
                    raise TransportError(f"{topic}: the transport is closed")
                write_message(self._input, record, data)
        except OSError as error:
            raise TransportError(f"{topic}: the bridge to ROS 1 has ended") from error

    def _kind(self, topic: str, message_type: str) -> Any:
        check_topic(topic)
        check_type(message_type)
        return class_of(self._definitions[message_type])

    def _open(self, how: str, topic: str, name: str, qos: QoS, end: _Subscription | _Publisher) -> None:
        struct = self._definitions[name]
        end.number = len(self._topics) + 1
        self._topics[end.number] = end
        described = {"type": ros1_name(name), "md5": md5sum(struct), "text": full_text(struct)}
        record = {"op": how, "id": end.number, "topic": topic, "depth": qos.depth, "latch": qos.transient_local}
        self.send(topic, record | described)

    def _read(self) -> None:
        while (found := read_message(self._output)) is not None:
            record, data = found
            if record["event"] == "matched":
                self._topics[record["id"]].count = record["count"]
            elif record["event"] == "message":
                topic = self._topics[record["id"]]
                if isinstance(topic, _Subscription) and not self._closed and topic.delivery.accepts(len(data)):
                    topic.deliver(data, record["at"])
            else:
                self._said = record["event"]
                self._ready.set()
        ended_early = self._said == "ready" and not self._closed
        self._ready.set()
        if ended_early:
            _logger.error("the bridge to ROS 1 has ended: nothing more will be heard")


@dataclass(eq=False)
class _Subscription:
    kind: Any
    delivery: Delivery
    number: int = 0
    count: int = 0
    untranslated: int = 0

    def matched(self) -> int:
        return self.count

    def deliver(self, data: bytes, at_ns: int) -> None:
        """One message of ROS 1, as CDR; what is none is dropped and counted."""
        try:
            packet = encode(decode_ros1(data, self.kind))
        except MessageError as error:
            self.untranslated += 1
            if self.untranslated == 1:
                _logger.warning("%s: dropped a message: %s (further ones are only counted)", self.delivery.topic, error)
            return
        self.delivery(packet, at_ns)


@dataclass(eq=False)
class _Publisher:
    kind: Any
    transport: Ros1Transport
    topic: str
    number: int = 0
    count: int = 0

    def matched(self) -> int:
        return self.count

    def publish(self, packet: Packet) -> None:
        if len(packet) > MAX_PACKET_BYTES:
            raise TransportError(f"{self.topic}: a message of {len(packet)} bytes, more than {MAX_PACKET_BYTES}")
        try:
            data = encode_ros1(decode(packet, self.kind))
        except MessageError as error:
            raise TransportError(f"{self.topic}: {error}") from error
        self.transport.send(self.topic, {"op": "publish", "id": self.number}, data)
