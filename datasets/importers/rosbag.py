"""Recordings of robots: ROS 2 bags (MCAP, sqlite3, folders or bare files) and ROS 1 bags.

Topics come at rates of their own. Each episode gets frames at one rate `fps` over the time that all its topics share,
and each frame takes from every topic the message that `align` says: by default the last one at or before it, which is
what a policy would have had at that moment. (`next` suits commands: the first one after an observation answered it.)

Keys have the names of their topics, with the field behind where a topic has several (`/joint_states/position`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from embodied.core.errors import UsageError
from embodied.datasets.episode_source import Format
from embodied.datasets.importers.ros_bag_folders import SUFFIXES, find_bags, is_bag_folder, open_bag
from embodied.datasets.importers.ros_options import (
    CLOCKS,
    GAPS,
    checked_choice,
    checked_names,
    checked_positive,
    frame_rate,
    methods_by_topic,
    with_angles,
)
from embodied.datasets.importers.ros_planning import Alignment
from embodied.datasets.importers.ros_selection import DEFAULT_TASK, select
from embodied.datasets.importers.ros_source import RosbagSource


def _recognizes(path: Path) -> bool:
    if path.is_file():
        return path.suffix in SUFFIXES
    return path.is_dir() and (
        is_bag_folder(path) or any(entry.suffix in SUFFIXES or is_bag_folder(entry) for entry in path.iterdir())
    )


FORMAT = Format("rosbag", "ROS 2 bags (MCAP, sqlite3) and ROS 1 bags, their topics aligned in time", _recognizes)


def open_source(
    path: str | Path,
    *,
    fps: float | None = None,
    topics: Sequence[str] | None = None,
    align: str | Mapping[str, str] = "previous",
    max_age_s: float = 0.5,
    gaps: str = "error",
    clock: str = "header",
    episodes: str = "bag",
    latched: Sequence[str] = (),
    angles: Sequence[str] = (),
    task_topic: str = DEFAULT_TASK,
) -> RosbagSource:
    """Open one recording, or a folder with several: an episode each.

    Args:
        path: a .mcap, .db3 or .bag file, a ROS 2 bag folder, or a folder that has such files or folders in it.
        fps: frames per second; None takes the rate that an exported bag has in it.
        topics: the topics to import; None takes all that can be used.
        align: which message a frame takes, for all topics or by topic (`{/cmd: next}`, others are `previous`):
            `previous`, `nearest`, `next`, or `interpolate`: numbers in a straight line, quaternions along their arc,
            what cannot be blended (images, whole numbers) nearest.
        max_age_s: a message farther from its frame than this leaves a gap.
        gaps: `error`, `drop` the frames, or `hold` the message whatever its age. Gaps are in the notes of an episode.
        clock: `header` stamps where they are sane, or `log` time. Log time minus header time is in the notes.
        episodes: `bag`, one each; `gap`, cut at gaps (two frames at least); or a topic that marks them: from true to
            false of a Bool, else from message to message.
        latched: topics whose last message stays valid, such as a gripper command that is sent on change: they have no
            gaps and do not end an episode.
        angles: keys whose numbers are angles in radians, interpolated along the shorter way.
        task_topic: the std_msgs/String topic with the instruction.

    Raises:
        UsageError: an option makes no sense, or names what is not there.
        UserError: the (first) recording cannot be read, or its topics have gaps or no common time.
    """
    path = Path(path)
    topics = None if topics is None else checked_names("topics", topics)
    latched, angles = checked_names("latched", latched), checked_names("angles", angles)
    checked_choice("gaps", gaps, GAPS)
    checked_choice("clock", clock, CLOCKS)
    if not str(episodes).startswith("/"):
        checked_choice("episodes", episodes, ("bag", "gap", "/the/name/of/a/topic"))
    max_age_s = checked_positive("max_age_s", max_age_s)
    bags = find_bags(path)
    with closing(open_bag(bags[0])) as bag:
        marker = "" if episodes in ("bag", "gap") else episodes
        selection, times = select(bag, topics=topics, marker=marker, task=str(task_topic), latched=latched)
    selection = with_angles(selection, angles)
    options = Alignment(
        fps=frame_rate(bags[0], fps, selection, times),
        methods=methods_by_topic(align, selection, latched),
        max_age_s=max_age_s,
        gaps=cast(Any, gaps),
        clock=cast(Any, clock),
        cut=episodes,
        latched=frozenset(latched),
    )
    if options.latched >= set(selection.topics):
        raise UsageError("latched: at least one topic must not be latched, to say when episodes end")
    return RosbagSource(path, bags, selection, options, times)
