"""Recordings of a robot as episodes in the names and units that its policies are trained on.

Frames come at the policy's rate. `observation.images.<camera>` and `observation.state` are what was measured last at
each; `action` is what leads from the command at a frame to that at the next one, see `commanded_actions`, so the last
frame of a recording, which has no next, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, STATE
from embodied.datasets.episode_source import Block, EncodedBlock, EpisodeSource, SourceEpisode
from embodied.datasets.importers import rosbag
from embodied.datasets.importers.ros_bag_folders import find_bags, open_bag
from embodied.datasets.store.episode_index import KeySpec
from embodied.real_robot.control.publishing import SHADOW
from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.recording.commanded_actions import CommandedActions
from embodied.real_robot.recording.outcomes import described, outcomes
from embodied.real_robot.recording.process import commands_of
from embodied.real_robot.simulator.episodes import ACTIVE

_NS = 1_000_000_000
COMMANDS = ("live", "shadow")


@dataclass(frozen=True)
class _Columns:
    """Elements of a foreign vector, in the order that is wanted."""

    key: str
    places: tuple[int, ...]


def open_recording(
    path: str | Path, robot: RobotDescription, *, commands: str = "live", **options: Any
) -> RecordedEpisodes:
    """Open a recording of a robot, or a folder with several.

    A recording with `/sim/episode/active` in it has an episode wherever that is true, less the frames without a fresh
    command, in which the simulated robot held; others are an episode each, and a gap in them is an error.

    Args:
        path: a .mcap file, a bag, or a folder with some.
        commands: `live`, or `shadow` where the robot was not moved by them.
        options: of `datasets.importers.rosbag.open_source`, instead of what follows from the robot.

    Raises:
        UsageError: an option makes no sense, or topics of the robot are not in the recording.
        UserError: it is damaged, or its topics have gaps.
    """
    if commands not in COMMANDS:
        raise unknown_name("commands", commands, COMMANDS)
    path = Path(path)
    prefix = SHADOW if commands == "shadow" else ""
    moved = [replace(topic, name=prefix + topic.name) for topic in commands_of(robot)]
    _check_topics(path, robot, moved)
    topics = [topic.name for topic in _topics(robot, moved)]
    marked = _speaks(path, ACTIVE)
    chosen: dict[str, Any] = {
        "fps": robot.policy_hz,
        "topics": topics,
        "align": {moved[0].name: "interpolate"},  # commands come faster than frames, and stand for what is between
        "latched": [topic.name for topic in moved[1:]],
        "max_age_s": max(0.5, 3 / robot.policy_hz),
        "episodes": ACTIVE.name if marked else "bag",
        "gaps": "drop" if marked else "error",
    }
    source = rosbag.open_source(path, **{**chosen, **options})
    return RecordedEpisodes(cast(EpisodeSource, source), robot, moved, path)


class RecordedEpisodes:
    """The episodes; the attributes are those of `EpisodeSource`."""

    def __init__(self, source: EpisodeSource, robot: RobotDescription, moved: Sequence[Topic], path: Path) -> None:
        self._source, self._path = source, path
        self._actions = CommandedActions(robot)
        found: Mapping[str, Mapping[str, str]] = source.provenance["topics"]
        keys: dict[str, list[str]] = {}
        for key, entry in found.items():
            keys.setdefault(entry["topic"], []).append(key)
        self._images = {camera.input: keys[camera.topic.name][0] for camera in robot.cameras.values()}
        self._state: _Columns | None = None
        if robot.joint_states is not None and robot.state:
            self._state = _chosen(source, keys[robot.joint_states.name], robot.state)
        self._commands, self._axes = _commanded(source, robot, moved, keys)
        self.fps, self.robot = source.fps, robot.name
        self.provenance: Mapping[str, Any] = {
            **source.provenance,
            "robot": robot.name,
            "commands": [topic.name for topic in moved],
            "commanded": {"kind": robot.kind, "gripper": None if robot.gripper is None else robot.gripper.axis},
        }
        self.keys: Mapping[str, KeySpec] = {input: source.keys[key] for input, key in self._images.items()}
        if self._state is not None:
            self.keys = {**self.keys, STATE: KeySpec("float32", (len(robot.state),), names=robot.state)}
        self.keys = {**self.keys, ACTION: KeySpec("float32", (len(robot.axes),), names=robot.axis_names)}

    def __len__(self) -> int:
        return len(self._source)

    def episodes(self) -> Iterator[SourceEpisode]:
        """The episodes in the order of the recordings; those of a simulator know their seed and success."""
        for bag, inner in self._by_bag():
            told = outcomes(bag, [self._span(episode) for episode in inner])
            for episode, status in zip(inner, told, strict=True):
                ended = status is not None and status.phase == "ended"
                yield SourceEpisode(
                    origin=episode.origin,
                    task=episode.task,
                    blocks=partial(self._blocks, episode),
                    success=status.success if status is not None and ended else episode.success,
                    seed=status.seed if status is not None else episode.seed,
                    length=None if episode.length is None else episode.length - 1,
                    notes={**episode.notes, **described(status)},
                )

    def close(self) -> None:
        self._source.close()

    def _by_bag(self) -> Iterator[tuple[Path, list[SourceEpisode]]]:
        """The recordings with their episodes."""
        grouped: dict[str, list[SourceEpisode]] = {}
        for episode in self._source.episodes():
            grouped.setdefault(episode.origin.partition("#")[0], []).append(episode)
        alone = find_bags(self._path) == [self._path]
        for name, episodes in grouped.items():
            yield self._path if alone else self._path / name, episodes

    def _span(self, episode: SourceEpisode) -> tuple[int, int]:
        begin = int(episode.notes.get("start_ns", 0))
        return begin, begin + round((episode.length or 1) * _NS / self.fps)

    def _blocks(self, episode: SourceEpisode) -> Iterator[Block]:
        """The frames, each with the command after it: the last one of a block waits for the next block."""
        kept: EncodedBlock | None = None
        for inner in episode.blocks():
            block = _joined(kept, self._renamed(inner))
            commands = np.asarray(block[ACTION])
            count = len(commands) - 1
            kept = _part(block, slice(count, None))
            if count:
                frames = _part(block, slice(0, count))
                frames[ACTION] = self._actions(commands[:-1], commands[1:]).astype(np.float32)
                yield frames

    def _renamed(self, block: Block) -> EncodedBlock:
        """The keys of the store, with the commands, float64 [T, N], for actions."""
        files = getattr(block, "files", {})
        frames: dict[str, Any] = {input: block[key] for input, key in self._images.items()}
        if self._state is not None:
            frames[STATE] = np.asarray(block[self._state.key])[:, list(self._state.places)].astype(np.float32)
        parts = [np.asarray(block[each.key], np.float64)[:, list(each.places)] for each in self._commands]
        frames[ACTION] = np.concatenate(parts, axis=1)[:, self._axes]
        kept = {input: list(files[key]) for input, key in self._images.items() if key in files}
        return EncodedBlock(frames, kept)


def _topics(robot: RobotDescription, moved: Sequence[Topic]) -> list[Topic]:
    sensors = [camera.topic for camera in robot.cameras.values()]
    return [*sensors, *([robot.joint_states] if robot.joint_states else []), *moved]


def _check_topics(path: Path, robot: RobotDescription, moved: Sequence[Topic]) -> None:
    """Each topic is in the first recording, of its type; and has messages, as far as that is seen at once."""
    with closing(open_bag(find_bags(path)[0])) as bag:
        for topic in _topics(robot, moved):
            if topic.name not in bag.topics:
                raise unknown_name(f"topic of robot {robot.name} in {bag.path}", topic.name, bag.topics)
            if bag.topics[topic.name].type != topic.type:
                raise UsageError(
                    f"{bag.path}: {topic.name} is {bag.topics[topic.name].type}, robot {robot.name} has {topic.type}"
                )
        for topic in _topics(robot, moved):
            if next(iter(bag.messages([topic.name], 0, 1 << 64)), None) is None:
                hint = "; was it shadowed? options.commands=shadow" if topic in moved else ""
                raise UsageError(f"{bag.path} has no messages of {topic.name}{hint}")


def _speaks(path: Path, topic: Topic) -> bool:
    """Whether the first recording has messages of a topic."""
    with closing(open_bag(find_bags(path)[0])) as bag:
        known = topic.name in bag.topics and bag.topics[topic.name].type == topic.type
        return known and next(iter(bag.messages([topic.name], 0, 1 << 64)), None) is not None


def _commanded(
    source: EpisodeSource, robot: RobotDescription, moved: Sequence[Topic], keys: Mapping[str, list[str]]
) -> tuple[list[_Columns], list[int]]:
    """Where the commands of the axes are, topic by topic, and the order that makes them the robot's."""
    gripper = robot.gripper_index if len(moved) > 1 else None
    arm = [index for index in range(len(robot.axes)) if index != gripper]
    groups = [arm] if gripper is None else [arm, [gripper]]
    columns = [
        _chosen(source, keys[topic.name], [robot.axis_names[index] for index in group])
        for topic, group in zip(moved, groups, strict=True)
    ]
    order = [index for group in groups for index in group]
    return columns, [order.index(index) for index in range(len(robot.axes))]


def _chosen(source: EpisodeSource, keys: Sequence[str], wanted: Sequence[str]) -> _Columns:
    """Where the elements of these names are in the first of a topic's keys, which holds positions."""
    spec = source.keys[keys[0]]
    names = tuple(spec.names) or tuple(wanted)  # an array says nothing of its elements: they are in the robot's order
    names = tuple(name.removeprefix("twist.") for name in names)
    if len(names) != int(np.prod(spec.shape)):
        raise UsageError(f"{keys[0]} has {spec.describe()}, the robot {len(wanted)} axes: {', '.join(wanted)}")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise unknown_name(f"joint of {keys[0]}", missing[0], names)
    return _Columns(keys[0], tuple(names.index(name) for name in wanted))


def _part(block: EncodedBlock, frames: slice) -> EncodedBlock:
    """Some frames of a block."""
    files = {key: list(every[frames]) for key, every in block.files.items()}
    return EncodedBlock({key: np.asarray(values)[frames] for key, values in block.items()}, files)


def _joined(kept: EncodedBlock | None, block: EncodedBlock) -> EncodedBlock:
    """A block with the frame before it in front."""
    if kept is None:
        return block
    files = {key: [*kept.files[key], *files] for key, files in block.files.items()}
    frames = {key: np.concatenate([np.asarray(kept[key]), np.asarray(values)]) for key, values in block.items()}
    return EncodedBlock(frames, files)
