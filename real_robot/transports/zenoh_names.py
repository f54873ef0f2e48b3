"""What rmw_zenoh calls things: keys of topics, tokens that announce programs, and what goes along with a message.

As rmw_zenoh_cpp does it (liveliness_utils.cpp, attachment_helpers.cpp, of 2024 to 2026); it promises no stability.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from embodied.real_robot.messages.structs import Struct
from embodied.real_robot.messages.type_hash import type_hash
from embodied.real_robot.transports.transport import QoS, check_topic, check_type

NO_HASH = "TypeHashNotSupported"  # what ROS 2 Humble has in its place
_SPACE = "@ros2_lv"
_DEFAULT_DEPTH = 42  # of rmw_zenoh, which leaves defaults out


@dataclass(frozen=True)
class TopicName:
    """A topic with its type, as keys contain them."""

    domain: int
    topic: str
    type: str
    hash: str

    @property
    def key(self) -> str:
        """Where its messages are."""
        return f"{self.domain}{self.topic}/{self.type}/{self.hash}"

    def token(self, session: str, entity: int, kind: str, node: str, qos: QoS) -> str:
        """The announcement of a publisher (`kind` MP) or a subscription (MS)."""
        reliability = "" if qos.reliable else "2"
        durability = "1" if qos.transient_local else ""
        depth = "" if qos.depth == _DEFAULT_DEPTH else str(qos.depth)
        described = f"{reliability}:{durability}:,{depth}:,:,:,,"
        about = f"{_mangled(self.topic)}/{self.type}/{self.hash}"
        return f"{_SPACE}/{self.domain}/{session}/0/{entity}/{kind}/%/%/{node}/{about}/{described}"


def topic_name(domain: int, topic: str, struct: Struct, *, hashed: bool) -> TopicName:
    """Raises UsageError for a name that ROS does not allow."""
    package, name = check_type(struct.name)
    return TopicName(
        domain, check_topic(topic), f"{package}::msg::dds_::{name}_", type_hash(struct) if hashed else NO_HASH
    )


def node_token(domain: int, session: str, node: str) -> str:
    """The announcement of this program."""
    return f"{_SPACE}/{domain}/{session}/0/0/NN/%/%/{node}"


def all_tokens(domain: int) -> str:
    """The key that every announcement of a domain matches."""
    return f"{_SPACE}/{domain}/**"


def announced(token: str) -> tuple[str, TopicName] | None:
    """Kind and topic of an announcement; None if it is of a node or of another form."""
    parts = token.split("/")
    if len(parts) < 13 or not parts[1].isdigit():
        return None
    return parts[5], TopicName(int(parts[1]), parts[9].replace("%", "/"), parts[10], parts[11])


def attachment(number: int, wall_ns: int, writer: bytes) -> bytes:
    """33 bytes: a message's number, its time, and its writer's 16-byte name after their count."""
    return struct.pack("<qqB", number, wall_ns, len(writer)) + writer


def _mangled(name: str) -> str:
    return name.replace("/", "%")
