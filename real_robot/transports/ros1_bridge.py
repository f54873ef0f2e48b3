"""A process between this package and ROS 1: `python3 ros1_bridge.py`, with the Python that has rospy.

Debian's rospy belongs to Debian's Python; this file runs there, and needs nothing but rospy. It passes raw messages on,
through its standard input and output. It ends with its standard input.

    length of the record, uint32 | length of the bytes, uint32 | record, JSON | bytes
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

_HEAD = struct.Struct("<II")
_ASK_S = 0.1


def write_message(stream: BinaryIO, record: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """One message."""
    head = json.dumps(record).encode()
    stream.write(_HEAD.pack(len(head), len(data)) + head)
    stream.write(data)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end. The other end is this very package: lengths are believed."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    sizes = _HEAD.unpack(head)
    record, data = (stream.read(size) for size in sizes)
    return (json.loads(record), data) if (len(record), len(data)) == sizes else None


class _Bridge:
    def __init__(self, rospy: Any, output: BinaryIO) -> None:
        self._rospy, self._output, self._lock = rospy, output, threading.Lock()
        self._topics: dict[int, Any] = {}
        self._told: dict[int, int] = {}

    def tell(self, event: str, *, data: bytes = b"", **record: Any) -> None:
        with self._lock:
            write_message(self._output, {"event": event, **record}, data)

    def act(self, record: dict[str, Any], data: bytes) -> None:
        number = record["id"]
        if record["op"] == "publish":
            message = self._topics[number].data_class()
            message._buff = data
            self._topics[number].publish(message)
            return
        fields = {"_type": record["type"], "_md5sum": record["md5"], "_full_text": record["text"]}
        kind = type("Raw", (self._rospy.AnyMsg,), {"__slots__": (), "_has_header": False, **fields})
        depth = record["depth"]
        if record["op"] == "advertise":
            made = self._rospy.Publisher(
                record["topic"], kind, queue_size=depth, latch=record["latch"], tcp_nodelay=True
            )
        else:
            made = self._rospy.Subscriber(
                record["topic"], kind, self._receive, callback_args=number, queue_size=depth, buff_size=1 << 26,
                tcp_nodelay=True,
            )  # fmt: skip
        self._topics[number] = made

    def watch(self) -> None:
        """Tell how many are at the other ends, whenever that changes."""
        while not self._rospy.is_shutdown():
            for number, topic in list(self._topics.items()):
                count = topic.get_num_connections()
                if self._told.get(number, 0) != count:
                    self._told[number] = count
                    self.tell("matched", id=number, count=count)
            time.sleep(_ASK_S)

    def _receive(self, message: Any, number: int) -> None:
        self.tell("message", data=message._buff, id=number, at=time.monotonic_ns())


def main() -> int:
    """Bridge until the standard input ends."""
    output, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr  # rospy prints
    try:
        import rosgraph  # type: ignore[import-not-found,unused-ignore]
        import rospy  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        write_message(output, {"event": "missing", "text": str(error)})
        return 1
    if not rosgraph.is_master_online():
        write_message(output, {"event": "no master"})
        return 1
    rospy.init_node(sys.argv[1], anonymous=True, disable_signals=True, disable_rosout=True, disable_rostime=True)
    bridge = _Bridge(rospy, output)
    threading.Thread(target=bridge.watch, daemon=True).start()
    bridge.tell("ready")
    while (found := read_message(sys.stdin.buffer)) is not None:
        bridge.act(*found)
    rospy.signal_shutdown("the program has ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
