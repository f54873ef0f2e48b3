"""Which topics of a recording become which keys, decided by its first messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from embodied.core.errors import UsageError, UserError, near_names, unknown_name
from embodied.datasets.files.bag_record import BagRecord, read_record
from embodied.datasets.importers.ros_arrays import TEXT, Output, outputs_of, unusable
from embodied.datasets.importers.ros_bags import Bag
from embodied.datasets.importers.ros_frames import Column
from embodied.datasets.importers.ros_messages import MessageError, Struct, decode
from embodied.datasets.importers.ros_scan import TopicTimes, scan, topic_type

DEFAULT_TASK = "/task"


@dataclass(frozen=True)
class Selection:
    """What is imported of every recording, as the first one has it.

    Args:
        types: of the topics that are read.
        columns: the keys, each with its topic.
        marker, task: topics whose messages mark episodes and name the task; empty if there are none.
        skipped: why the other topics are left out.
        record: what an exporter of ours wrote into the first recording.
    """

    types: Mapping[str, Struct]
    columns: Sequence[Column]
    marker: str
    task: str
    skipped: Mapping[str, str]
    record: BagRecord | None

    @property
    def topics(self) -> list[str]:
        """The topics that give keys."""
        return list(dict.fromkeys(column.topic for column in self.columns))


def record_of(bag: Bag) -> BagRecord | None:
    """What an exporter of ours wrote into a recording, if it did.

    Raises:
        UserError: it is damaged.
    """
    try:
        return read_record(bag.custom)
    except ValueError as error:
        raise UserError(f"{bag.path} is damaged: {error}; export it again") from error


def select(
    bag: Bag, *, topics: Sequence[str] | None, marker: str, task: str, latched: Collection[str]
) -> tuple[Selection, dict[str, TopicTimes]]:
    """The selection by the first recording, and the times of its messages.

    Raises:
        UsageError: a topic that was named does not exist, or cannot be used.
        UserError: the recording is damaged, or nothing in it can be used.
    """
    record = record_of(bag)
    wanted = topics if topics is not None else [key.topic for key in record.keys.values()] if record else None
    for name in [*(topics or ()), *latched, *([marker] if marker else []), *([task] if task != DEFAULT_TASK else [])]:
        if name not in bag.topics:
            raise unknown_name(f"topic of {bag.path}", name, bag.topics)
    types, skipped = _types(bag, wanted)
    if wanted is None:
        types.pop(marker, None)  # it says when, not what
    task = _task_topic(bag, task)
    valued = [name for name in (marker, task) if name]
    skipped = {name: reason for name, reason in skipped.items() if name not in valued}
    types_of_valued = {name: _needed(bag, name) for name in valued}
    times = scan(bag, {**types, **types_of_valued}, valued=valued)
    columns: list[Column] = []
    for name, kind in types.items():
        try:
            if wanted is None and len(times[name].numbers) == 1 and name not in latched:
                raise MessageError("it has one message; if that stays valid, name it in options.latched")
            columns += _columns(bag, name, kind, times[name])
        except MessageError as error:
            skipped[name] = str(error)
            if wanted is not None:
                raise UsageError(f"{bag.path}: the topic {name} cannot be imported: {error}") from error
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:6])
        raise UserError(f"{bag.path} holds nothing that can be imported ({reasons or 'it has no topics'})")
    if record is not None:
        columns = _recorded(bag, columns, record, whole=topics is None)
    needed = {**{column.topic: types[column.topic] for column in columns}, **types_of_valued}
    return Selection(needed, columns, marker, task, skipped, record), times


def _task_topic(bag: Bag, task: str) -> str:
    """The topic of the task; empty if none was named and there is none of the usual name."""
    if task in bag.topics and bag.topics[task].type == TEXT:
        return task
    if task != DEFAULT_TASK:
        raise UsageError(f"task_topic: {task} in {bag.path} is {bag.topics[task].type}, not std_msgs/String")
    return ""


def scan_like(bag: Bag, selection: Selection) -> dict[str, TopicTimes]:
    """The times of another recording, which must have the same topics of the same types.

    Raises:
        UserError: it has not, or is damaged.
    """
    for name, kind in selection.types.items():
        if name == selection.task and name not in bag.topics:
            continue
        if name not in bag.topics:
            near = " or ".join(near_names(name, bag.topics))
            raise UserError(
                f"{bag.path} has no topic {name}, unlike the first recording{f' (is it {near}?)' if near else ''}: "
                "import it separately, or choose options.topics"
            )
        if _needed(bag, name) != kind:
            raise UserError(
                f"{bag.path}: the topic {name} is of another type than in the first recording ({kind.name})"
            )
    types = {name: kind for name, kind in selection.types.items() if name in bag.topics}
    valued = [name for name in (selection.marker, selection.task) if name in types]
    times = scan(bag, types, valued=valued)
    silent = [name for name in selection.topics if not times[name].numbers]
    if silent:
        raise UserError(
            f"{bag.path} has no messages of {', '.join(silent)}: import it separately, or choose options.topics"
        )
    return times


def _needed(bag: Bag, name: str) -> Struct:
    try:
        return topic_type(bag.topics[name])
    except MessageError as error:
        raise UserError(f"{bag.path}: the topic {name} cannot be read: {error}") from error


def _types(bag: Bag, wanted: Sequence[str] | None) -> tuple[dict[str, Struct], dict[str, str]]:
    """The types of the topics to try, and why the others are left out."""
    types: dict[str, Struct] = {}
    skipped: dict[str, str] = {}
    for name, topic in bag.topics.items():
        if wanted is not None and name not in wanted:
            continue
        try:
            if reason := unusable(topic.type):
                raise MessageError(reason)
            types[name] = topic_type(topic)
        except MessageError as error:
            skipped[name] = str(error)
            if wanted is not None:
                raise UsageError(f"{bag.path}: the topic {name} cannot be imported: {error}") from error
    return types, skipped


def _columns(bag: Bag, name: str, kind: Struct, times: TopicTimes) -> list[Column]:
    """The keys of one topic.

    Raises:
        MessageError: it has no messages, or the first cannot be used.
    """
    if not times.numbers:
        raise MessageError("it has no messages")
    outputs = outputs_of(kind, decode(times.first, kind, ros1=bag.topics[name].ros1))
    return [Column(_key(bag, name, output), name, output, output.spec) for output in outputs]


def _key(bag: Bag, topic: str, output: Output) -> str:
    key = f"{topic}/{output.field}" if output.field else topic
    return f"{topic}.{output.field}" if output.field and key in bag.topics else key


def _recorded(bag: Bag, columns: Sequence[Column], record: BagRecord, *, whole: bool) -> list[Column]:
    """The columns under the names and with the dtypes and shapes they had before the export."""
    found = {(column.topic, column.output.field): column for column in columns}
    renamed = []
    for key, entry in record.keys.items():
        column = found.pop((entry.topic, entry.field), None)
        if column is None and whole:
            raise UserError(f"{bag.path} is damaged: {entry.topic}, which holds {key}, is not in it; export it again")
        if column is None:
            continue  # the user chose other topics
        if prod(entry.spec.shape) != prod(column.spec.shape):
            raise UserError(
                f"{bag.path} is damaged: {entry.topic} has {column.spec.shape}, {key} is {entry.spec.shape}"
            )
        renamed.append(replace(column, key=key, spec=entry.spec))
    return renamed + list(found.values())
