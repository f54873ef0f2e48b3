"""Sensors that speak at their own pace, brought to one rate: which sample each frame takes, and how old it is.

Pure functions on nanoseconds (int64). M samples of one sensor, N frames ("ticks") of an episode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["previous", "nearest", "next", "interpolate"]
METHODS: tuple[Method, ...] = ("previous", "nearest", "next", "interpolate")
NS = 1_000_000_000

SLACK_NS = 1000  # stamps that went through seconds in a double are off by some hundred nanoseconds: closer is the same
_SANE_OFFSET_NS = NS  # a sensor's stamps are believed if they are usually this close to when they were recorded
_BROKEN_STAMP_NS = 60 * NS  # a stamp this far from where the sensor's others put it was never a time


@dataclass(frozen=True)
class Samples:
    """The samples of one sensor in the order of time, without two of one stamp.

    Args:
        stamps: int64 [M], strictly increasing.
        order: int64 [M], where each came in the recording.
        out_of_order, duplicates: how many came after a later one, and how many had the stamp of another.
    """

    stamps: np.ndarray
    order: np.ndarray
    out_of_order: int
    duplicates: int


@dataclass(frozen=True)
class Clock:
    """Which time the samples of a sensor are ordered by.

    Args:
        stamps: int64 [M], in the order of the recording.
        used: `header`, or `log` where the header's times cannot be believed.
        offset_s: the median of log time minus header time; None without a header.
        broken: samples whose header time was replaced by log time minus the median offset.
    """

    stamps: np.ndarray
    used: Literal["header", "log"]
    offset_s: float | None
    broken: int = 0


@dataclass(frozen=True)
class Picks:
    """Per tick the two samples it lies between (twice the same one where no blending is wanted).

    Args:
        first, second: int64 [N], indices into `Samples.stamps`.
        weight: float64 [N] in [0, 1), of `second`.
        age_ns: int64 [N], distance to the sample taken, to the farther one of two; `NEVER` where there is none.
    """

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray
    age_ns: np.ndarray


NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Gaps:
    """Where a sensor was silent: `count` gaps over `frames` ticks, the longest of `longest_s` from `at_s` on."""

    count: int
    frames: int
    longest_s: float
    at_s: float


def choose_clock(header: np.ndarray | None, log: np.ndarray, wanted: Literal["header", "log"]) -> Clock:
    """Header stamps if there are any and they are sane, else log time.

    Sane is a median within one second of log time: simulated time, a clock that was never set, and stamps that are
    zero are none of it. Single stamps that are a minute off the others are replaced.
    """
    if header is None:
        return Clock(log, "log", None)
    offsets = log - header
    median = int(np.median(offsets))
    if wanted == "log" or abs(median) > _SANE_OFFSET_NS:
        return Clock(log, "log", median / NS)
    broken = np.abs(offsets - median) > _BROKEN_STAMP_NS
    return Clock(np.where(broken, log - median, header), "header", median / NS, int(broken.sum()))


def sort_samples(stamps: np.ndarray) -> Samples:
    """Samples in the order of time; of those with one stamp the last that was recorded stays."""
    order = np.argsort(stamps, kind="stable")
    ordered = stamps[order]
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    late = int((stamps < np.maximum.accumulate(stamps)).sum())
    return Samples(ordered[last], order[last], late, int(len(ordered) - last.sum()))


def rate_hz(stamps: np.ndarray) -> float:
    """The mean rate of sorted stamps; 0 of fewer than two."""
    return (len(stamps) - 1) / (int(stamps[-1] - stamps[0]) / NS) if len(stamps) > 1 and stamps[-1] > stamps[0] else 0.0


def common_range(limiting: Iterable[np.ndarray], latched: Iterable[np.ndarray] = ()) -> tuple[int, int]:
    """The first time at which every sensor has spoken, and the last at which all still do; empty if start > stop.

    Args:
        limiting: sorted stamps of each sensor.
        latched: of sensors whose last sample stays valid, so that they do not limit the end.
    """
    ends = [(int(stamps[0]), int(stamps[-1])) for stamps in limiting]
    starts = [first for first, _ in ends] + [int(stamps[0]) for stamps in latched]
    return max(starts), min(last for _, last in ends)


def count_ticks(start: int, stop: int, fps: float) -> int:
    """How many ticks `ticks` gives; one that is hardly later than `stop` counts."""
    return 0 if stop < start else int((stop - start + SLACK_NS) * (fps / NS)) + 1


def ticks(start: int, stop: int, fps: float) -> np.ndarray:
    """int64 [N]: `start`, and on at the rate `fps` up to `stop`, or hardly later."""
    numbers = np.arange(count_ticks(start, stop, fps), dtype=np.int64)
    return start + np.rint(numbers * (NS / fps)).astype(np.int64)


def pick(stamps: np.ndarray, times: np.ndarray, method: Method, *, slack_ns: int = SLACK_NS) -> Picks:
    """The samples that the ticks take.

    `previous` is the last sample at or before a tick, what a policy would have had at that time; `next` the first at
    or after it, such as the command that answered an observation; `nearest` the closer of the two, the earlier where
    they are equally close; `interpolate` both.

    Args:
        stamps: int64 [M], strictly increasing, M at least 1.
        times: int64 [N], the ticks.
        slack_ns: what is no farther than this from a tick is at the tick.
    """
    slack = 0 if method == "nearest" else slack_ns
    last = len(stamps) - 1
    before = np.searchsorted(stamps, times + slack, side="right") - 1
    after = np.searchsorted(stamps, times - slack, side="left")
    at_tick = before >= after
    lag = np.where(before >= 0, np.maximum(times - stamps[np.clip(before, 0, last)], 0), NEVER)
    lead = np.where(after <= last, np.maximum(stamps[np.clip(after, 0, last)] - times, 0), NEVER)
    before, after = np.clip(before, 0, last), np.clip(after, 0, last)
    if method == "interpolate":
        after = np.where(at_tick, before, after)
        between = before < after
        weight = np.where(between, np.where(between, lag, 0) / np.maximum(stamps[after] - stamps[before], 1), 0.0)
        return Picks(before, after, weight, np.where(at_tick, np.minimum(lag, lead), np.maximum(lag, lead)))
    if method == "nearest":
        chosen, age = np.where(lag <= lead, before, after), np.minimum(lag, lead)
    else:
        chosen, age = (before, lag) if method == "previous" else (after, lead)
    return Picks(chosen, chosen, np.zeros(len(times)), age)


def find_gaps(stamps: np.ndarray, times: np.ndarray, too_old: np.ndarray) -> Gaps | None:
    """What to report of the ticks marked in `too_old` (bool [N]); None where there are none."""
    if not too_old.any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[False], too_old, [False]])))
    starts, stops = times[edges[::2]], times[edges[1::2] - 1]  # the first and last tick of each gap
    before = np.searchsorted(stamps, starts, side="right") - 1
    after = np.searchsorted(stamps, stops, side="left")
    silent_from = np.where(before >= 0, stamps[np.maximum(before, 0)], starts)
    silent_to = np.where(after < len(stamps), stamps[np.minimum(after, len(stamps) - 1)], stops)
    longest = int(np.argmax(silent_to - silent_from))
    return Gaps(
        count=len(starts),
        frames=int(too_old.sum()),
        longest_s=float(silent_to[longest] - silent_from[longest]) / NS,
        at_s=float(silent_from[longest] - times[0]) / NS,
    )


def blend_linear(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """`first` to `second` in a straight line."""
    return first + weight * (second - first)


def blend_angles(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Angles in radians, each from `first` along its shorter way; not wrapped again, so it may pass pi on the way."""
    return first + weight * (np.mod(second - first + np.pi, 2 * np.pi) - np.pi)


def blend_quaternions(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Unit quaternions [4] along the shorter arc between them (Shoemake 1985, slerp); `first` where one is zero."""
    lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if min(lengths) == 0:
        return first
    start, end = first / lengths[0], second / lengths[1]
    cosine = float(start @ end)
    if cosine < 0:  # q and -q are one rotation
        end, cosine = -end, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:  # the arc is as good as straight, and its sine about to vanish
        mixed = blend_linear(start, end, weight)
        return mixed / np.linalg.norm(mixed)
    return (np.sin((1 - weight) * angle) * start + np.sin(weight * angle) * end) / np.sin(angle)
