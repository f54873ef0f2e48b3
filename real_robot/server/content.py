"""What a robot and a policy server tell each other: needs, observations, plans.

Dtypes and shapes are not on the wire: they follow from the policy's needs, so that bytes either fit or are refused.

Legend: S side of a frame, P proprioception, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX, STATE
from embodied.datasets.store.chunk_codecs import DamagedChunkError, decode_jpeg
from embodied.policies.action_space import ActionSpace
from embodied.real_robot.control.mailbox import MAX_ACTIONS
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.server.framing import Message, ProtocolError

PROTOCOL = 1
"""Both sides must speak the same."""

Pictures = Literal["jpeg", "raw"]
PICTURES: tuple[Pictures, ...] = get_args(Pictures)
_MARGIN = 4096  # bytes that a JPEG of noise may be larger than its pixels


@dataclass(frozen=True)
class Encoding:
    """How frames travel.

    Args:
        pictures: `jpeg`, or `raw`, which loses nothing.
        quality: of JPEG, 1 to 100; colour is kept at full resolution.
    """

    pictures: Pictures = "jpeg"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.pictures not in PICTURES:
            raise unknown_name("pictures", str(self.pictures), PICTURES)
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be a whole number in 1 .. 100, got {self.quality!r}")


def pack_observation(observation: Mapping[str, np.ndarray], encoding: Encoding) -> tuple[list[dict[str, Any]], bytes]:
    """Records and bytes of `observation.images.<camera>` uint8 [1, S, S, 3] and `observation.state` float32 [1, P]."""
    records, pieces = [], []
    for name, array in observation.items():
        kind, piece = "raw", np.ascontiguousarray(array, "u1" if array.dtype == np.uint8 else "<f4").tobytes()
        if name.startswith(IMAGE_PREFIX) and encoding.pictures == "jpeg":
            pixels = np.ascontiguousarray(array[0])
            kind, piece = (
                "jpeg",
                bytes(
                    simplejpeg.encode_jpeg(pixels, quality=encoding.quality, colorspace="RGB", colorsubsampling="444")
                ),
            )
        records.append({"name": name, "as": kind, "bytes": len(piece)})
        pieces.append(piece)
    return records, b"".join(pieces)


def unpack_observation(message: Message, needs: Needs) -> dict[str, np.ndarray]:
    """The observation that a policy with these needs can act on.

    Raises:
        ProtocolError: it is another, or damaged.
    """
    shapes, found, place = _shapes(needs), {}, 0
    records = message.record.get("arrays")
    if not isinstance(records, list) or len(records) != len(shapes):
        raise ProtocolError(f"expected {len(shapes)} arrays")
    for record in records:
        name, kind, size = _array(record)
        if name not in shapes or name in found:
            raise ProtocolError(f"an array {name[:60]!r} is not what the policy sees, {', '.join(shapes)}")
        piece = message.data[place : place + size]
        if len(piece) != size:
            raise ProtocolError(f"{name}: {size} bytes were announced, {len(piece)} are there")
        found[name] = _read_array(name, kind, piece, shapes[name])
        place += size
    if place != len(message.data):
        raise ProtocolError(f"{len(message.data) - place} bytes are left over")
    return found


def most_bytes(needs: Needs) -> int:
    """Of an observation."""
    return sum(int(np.prod(shape)) * (4 if name == STATE else 1) + _MARGIN for name, shape in _shapes(needs).items())


def unpack_plan(message: Message, needs: Needs) -> np.ndarray:
    """Actions float64 [H, A], not checked further: the command process does that.

    Raises:
        ProtocolError: they are not of the policy's width, none, or too many.
    """
    width = needs.action_dim * 8
    if not message.data or len(message.data) % width or len(message.data) // width > MAX_ACTIONS:
        raise ProtocolError(f"a plan of {len(message.data)} bytes, not of 1 to {MAX_ACTIONS} actions of {width} each")
    return np.frombuffer(message.data, "<f8").reshape(-1, needs.action_dim)


def pack_plan(actions: np.ndarray) -> bytes:
    """The inverse of `unpack_plan`, of as many actions as a mailbox takes."""
    return np.ascontiguousarray(actions[:MAX_ACTIONS], "<f8").tobytes()


def needs_record(needs: Needs) -> dict[str, Any]:
    """JSON-able."""
    return {
        "keys": list(needs.keys),
        "image_size": needs.image_size,
        "state_dim": needs.state_dim,
        "action_dim": needs.action_dim,
        "actions": None if needs.actions is None else needs.actions.record(),
        "state_names": list(needs.state_names),
        "offsets": [list(pair) for pair in needs.offsets],
        "hz": needs.hz,
    }


def read_needs(record: Any) -> Needs:
    """The inverse of `needs_record`. Raises ProtocolError where it is none."""
    try:
        space = record["actions"]
        needs = Needs(
            keys=tuple(str(key) for key in record["keys"]),
            image_size=int(record["image_size"]),
            state_dim=int(record["state_dim"]),
            action_dim=int(record["action_dim"]),
            actions=None if space is None else ActionSpace.of(space),
            state_names=tuple(str(name) for name in record.get("state_names", ())),
            offsets=tuple((int(action), int(number)) for action, number in record.get("offsets", ())),
            hz=float(record.get("hz", 0.0)),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError("the policy's needs cannot be read") from error
    sizes = 0 <= needs.image_size <= 8192 and 0 <= needs.state_dim <= 4096 and 1 <= needs.action_dim <= 4096
    if not sizes or not all(
        0 <= action < needs.action_dim and 0 <= number < needs.state_dim for action, number in needs.offsets
    ):
        raise ProtocolError("the policy's needs make no sense")
    return needs


def _shapes(needs: Needs) -> dict[str, tuple[int, ...]]:
    size = needs.image_size
    shapes: dict[str, tuple[int, ...]] = {key: (1, size, size, 3) for key in needs.keys if key.startswith(IMAGE_PREFIX)}
    return shapes | ({STATE: (1, needs.state_dim)} if needs.reads_state else {})


def _array(record: Any) -> tuple[str, str, int]:
    if not isinstance(record, dict):
        raise ProtocolError("an array without a record")
    message = Message(record, memoryview(b""))
    return message.text("name"), message.text("as"), message.number("bytes")


def _read_array(name: str, kind: str, piece: memoryview, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype("<f4" if name == STATE else "u1")
    if kind == "jpeg" and name != STATE and len(piece):
        try:
            return decode_jpeg(bytes(piece), shape[1:])[None]
        except DamagedChunkError as error:
            raise ProtocolError(f"{name}: {error}") from error
    expected = int(np.prod(shape)) * dtype.itemsize
    if kind != "raw" or len(piece) != expected:
        raise ProtocolError(f"{name}: expected {expected} bytes raw, got {len(piece)} as {kind[:20]!r}")
    return np.frombuffer(piece, dtype).reshape(shape)
