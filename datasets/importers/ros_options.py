"""The options of importing recordings, checked against what the first one holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.datasets.importers.ros_scan import TopicTimes
from embodied.datasets.importers.ros_selection import Selection
from embodied.datasets.importers.time_alignment import METHODS, Method, rate_hz
from embodied.datasets.store.episode_checks import checked_fps

_HIGHEST_RATE = 1_000_000  # frames per second; the times of messages are told apart to a microsecond
GAPS, CLOCKS = ("error", "drop", "hold"), ("header", "log")


def checked_choice(name: str, value: str, valid: Sequence[str]) -> str:
    """The value of an option that has a few.

    Raises:
        UsageError: it is none of them.
    """
    if value not in valid:
        raise unknown_name(name, str(value), valid)
    return value


def checked_names(name: str, value: Sequence[str] | str) -> list[str]:
    """The value of an option that lists names, or has one.

    Raises:
        UsageError: it is neither.
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(each, str) for each in names):
        raise UsageError(f"{name} must be a list of names, got {value!r}")
    return list(names)


def checked_positive(name: str, value: float) -> float:
    """The value of an option that is a positive number.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UsageError(f"{name} must be positive, got {value!r}")
    return float(value)


def methods_by_topic(align: str | Mapping[str, str], selection: Selection, latched: Sequence[str]) -> dict[str, Method]:
    """How each topic is aligned, from one method for all or methods by topic.

    Raises:
        UsageError: a topic or method that does not exist, or one that the topic cannot have.
    """
    if not isinstance(align, str | Mapping):
        raise UsageError(f"align must be a method, or methods by topic, got {align!r}")
    named = {} if isinstance(align, str) else dict(align)
    for topic, method in named.items():
        if topic not in selection.topics:
            raise unknown_name("topic of align", str(topic), selection.topics)
        if method not in METHODS:
            raise unknown_name(f"align of {topic}", str(method), METHODS)
    default = align if isinstance(align, str) else "previous"
    if default not in METHODS:
        raise unknown_name("align", default, METHODS)
    methods: dict[str, Method] = {}
    for topic in selection.topics:
        blendable = any(column.output.blendable for column in selection.columns if column.topic == topic)
        method = "previous" if topic in latched else named.get(topic, default)
        if method == "interpolate" and not blendable:
            if topic in named:
                raise UsageError(f"align: {topic} cannot be interpolated (only vectors of floats can): use nearest")
            method = "nearest"
        methods[topic] = cast(Method, method)
    return methods


def with_angles(selection: Selection, angles: Sequence[str]) -> Selection:
    """The selection with some of its keys marked as angles.

    Raises:
        UsageError: a key that does not exist, or that holds no floats.
    """
    keys = {column.key: column for column in selection.columns}
    for key in angles:
        if key not in keys:
            raise unknown_name("key of angles", key, keys)
        if not keys[key].output.blendable:
            raise UsageError(f"angles: {key} is {keys[key].spec.describe()}, not a vector of floats")
    columns = [replace(column, angles=column.key in angles) for column in selection.columns]
    return replace(selection, columns=columns)


def frame_rate(bag: Path, fps: float | None, selection: Selection, times: Mapping[str, TopicTimes]) -> float:
    """The frames per second that were asked for, or that an exported recording says.

    Raises:
        UsageError: there are none, or they make no sense.
    """
    if fps is None and selection.record is not None:
        fps = selection.record.fps
    if fps is None:
        stamps = {topic: np.sort(times[topic].clock("header").stamps) for topic in selection.topics[:12]}
        rates = ", ".join(f"{topic} {rate_hz(each):.4g} Hz" for topic, each in stamps.items())
        raise UsageError(f"{bag} does not say how many frames per second: give options.fps (its topics: {rates})")
    if checked_fps(checked_positive("fps", fps)) > _HIGHEST_RATE:
        raise UsageError(f"fps must be at most {_HIGHEST_RATE}, got {fps:g}")
    return float(fps)
