"""The first of two passes over a recording: when each message was.

Only times are kept, 32 bytes a message at most, so an hour of cameras and joints is some megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.importers.ros_arrays import TEXT, TRAJECTORY
from embodied.datasets.importers.ros_bags import Bag, Topic
from embodied.datasets.importers.ros_messages import (
    MessageError,
    Struct,
    decode,
    header_stamp,
    parse_definition,
    resolve,
    standard_types,
)
from embodied.datasets.importers.time_alignment import NS, SLACK_NS, Clock, choose_clock

_LATEST = 1 << 62  # nanoseconds: the year 2116
_LONGEST_TEXT = 4096  # characters of a task


@dataclass
class TopicTimes:
    """Of the messages of one topic, in the order of the recording.

    Args:
        all_log: log times in nanoseconds, of every message.
        numbers: which of all messages can be used; what follows is of these.
        log, header: nanoseconds; `header` stays empty for a type without one.
        values: of a marker or a task, see `scan`.
        first: the bytes of the first.
    """

    all_log: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    log: array[int] = field(default_factory=lambda: array("q"))
    header: array[int] = field(default_factory=lambda: array("q"))
    values: list[Any] = field(default_factory=list)
    first: bytes = b""

    def clock(self, wanted: Literal["header", "log"]) -> Clock:
        """The times to order the usable messages by."""
        return choose_clock(np.array(self.header) if self.header else None, np.array(self.log), wanted)


@lru_cache(maxsize=256)  # asked for each topic of each recording, and parsing takes some milliseconds
def topic_type(topic: Topic) -> Struct:
    """The type of a topic's messages, by the definition in the recording, or else ROS 2's own.

    Raises:
        MessageError: it cannot be read; says why.
    """
    if topic.unreadable:
        raise MessageError(topic.unreadable)
    if topic.ros1:  # such recordings always have definitions; that of an empty message is empty
        types = parse_definition(topic.definition, topic.type) if topic.definition else {topic.type: ([], [])}
        return resolve(topic.type, types, ros1=True)
    own = parse_definition(topic.definition, topic.type) if topic.definition else {}
    if topic.type not in own and topic.type not in standard_types():
        raise MessageError(f"the recording has no definition of {topic.type} that can be read")
    return resolve(topic.type, {**standard_types(), **own}, ros1=False)


def scan(bag: Bag, types: Mapping[str, Struct], *, valued: Collection[str] = ()) -> dict[str, TopicTimes]:
    """The times of all messages of the topics in `types`.

    Args:
        valued: topics whose values are needed too: texts, or what marks an episode (a bool, or True for other types).

    Raises:
        UserError: the recording is damaged.
    """
    times = {topic: TopicTimes() for topic in types}
    for topic, log_time, raw in bag.messages(types, 0, 1 << 64):
        entry, kind, ros1 = times[topic], types[topic], bag.topics[topic].ros1
        if log_time >= _LATEST:
            raise UserError(f"{bag.path} is damaged: a message of {topic} at {log_time} ns, beyond the year 2100")
        try:
            number = len(entry.all_log)
            entry.all_log.append(log_time)
            if kind.name == TRAJECTORY and not decode(raw, kind, ros1=ros1).get("points"):
                continue  # a trajectory without points stops the robot, it commands nothing
            if kind.has_header:
                entry.header.append(header_stamp(raw, ros1=ros1))
            if topic in valued:
                entry.values.append(_value(decode(raw, kind, ros1=ros1), kind))
        except MessageError as error:
            raise UserError(f"{bag.path}: message {number} of {topic} cannot be read: {error}") from error
        entry.log.append(log_time)
        entry.numbers.append(number)
        entry.first = entry.first or raw
    return times


def _value(message: Mapping[str, Any], kind: Struct) -> Any:
    """What a marker or a task says: a text, a bool; True for anything else, since it begins an episode."""
    value = message.get("data")
    if kind.name == TEXT:
        return str(value)[:_LONGEST_TEXT]
    return value if isinstance(value, bool) else True


def marked_spans(marker: TopicTimes, clock: Literal["header", "log"], stop: int) -> list[tuple[int, int]]:
    """Times between marks: of a topic that is ever false from true to false, else from message to message."""
    stamps = marker.clock(clock).stamps
    switches = any(value is False for value in marker.values)
    spans: list[tuple[int, int]] = []
    begin: int | None = None
    for place in np.argsort(stamps, kind="stable"):
        time, on = int(stamps[place]), marker.values[place] is not False
        if begin is not None and not (switches and on):
            spans.append((begin, time - 1 - SLACK_NS))
            begin = None
        if begin is None and on:
            begin = time
    return spans if begin is None else [*spans, (begin, stop)]


def task_between(task: TopicTimes | None, begin: int, end: int) -> tuple[str, list[tuple[float, str]]]:
    """The instruction at the beginning of an episode, or else the first in it, and what it changed to, in seconds."""
    if task is None or not task.values:
        return "", []
    entries = sorted(zip(task.clock("log").stamps.tolist(), task.values, strict=True), key=lambda entry: entry[0])
    before = [text for time, text in entries if time <= begin]
    inside = [(time, text) for time, text in entries if begin < time <= end]
    text = before[-1] if before else inside[0][1] if inside else ""
    changes = [((time - begin) / NS, later) for time, later in inside if later != text]
    return text, changes
