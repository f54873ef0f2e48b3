"""Which messages each frame of an episode takes: the plan that the second pass over a recording follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.importers.ros_scan import TopicTimes, marked_spans, task_between
from embodied.datasets.importers.time_alignment import (
    NEVER,
    NS,
    Clock,
    Method,
    Picks,
    Samples,
    common_range,
    count_ticks,
    find_gaps,
    pick,
    rate_hz,
    sort_samples,
    ticks,
)

_MOST_TICKS = 10_000_000  # of a recording: 46 hours at 60 per second
_MOST_EPISODES = 10_000  # of a recording


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How messages become frames; the options of the importer, checked.

    Args:
        methods: by topic.
        cut: `bag`, `gap`, or a topic whose messages mark episodes.
    """

    fps: float
    methods: Mapping[str, Method]
    max_age_s: float
    gaps: Literal["error", "drop", "hold"]
    clock: Literal["header", "log"]
    cut: str
    latched: frozenset[str]


@dataclass(frozen=True)
class TopicPicks:
    """Per frame the messages a topic gives, by number among those between the plan's times, and the second's weight."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class EpisodePlan:
    """The frames of an episode.

    Args:
        times: int64 [N], nanoseconds.
        picks: the messages of each topic.
        start, stop: log times around all these messages: start <= log time < stop.
    """

    times: np.ndarray
    picks: Mapping[str, TopicPicks]
    start: int
    stop: int
    task: str
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class _Signal:
    """A topic in time.

    Args:
        log: int64, log times of all its messages.
        usable: int64, which of them can be used.
        clock, samples: of the usable ones.
    """

    log: np.ndarray
    usable: np.ndarray
    clock: Clock
    samples: Samples


def plan_episodes(
    path: Path,
    times: Mapping[str, TopicTimes],
    options: Alignment,
    *,
    marker: TopicTimes | None,
    task: TopicTimes | None,
) -> list[EpisodePlan]:
    """The episodes of one recording.

    Args:
        path: of the recording, for messages.
        times: of the topics to import.
        marker, task: the topics that mark episodes and name the task, if there are any.

    Raises:
        UserError: topics that never overlap, or gaps that `options.gaps` does not allow.
    """
    signals = {}
    for topic, entry in times.items():
        clock = entry.clock(options.clock)
        log, usable = np.array(entry.all_log), np.array(entry.numbers)
        signals[topic] = _Signal(log, usable, clock, sort_samples(clock.stamps))
    plans = []
    spans = _spans(path, signals, options, marker)
    if len(spans) > _MOST_EPISODES:
        raise UserError(f"{path}: {options.cut} marks {len(spans)} episodes: choose a topic that marks fewer")
    for start, stop in spans:
        if count_ticks(start, stop, options.fps) > _MOST_TICKS:
            raise UserError(
                f"{path} spans {(stop - start) / NS / 3600:.0f} hours, more than {_MOST_TICKS} frames: its times are "
                "wrong (try options.clock=log), or fps is"
            )
        plans += _plan_span(path, signals, options, ticks(start, stop, options.fps), task)
    return plans


def _spans(
    path: Path, signals: Mapping[str, _Signal], options: Alignment, marker: TopicTimes | None
) -> list[tuple[int, int]]:
    """First and last time of each episode, before gaps."""
    stamps = {topic: signal.samples.stamps for topic, signal in signals.items()}
    start, stop = common_range(
        [each for topic, each in stamps.items() if topic not in options.latched],
        [each for topic, each in stamps.items() if topic in options.latched],
    )
    if start > stop:
        late = max(stamps, key=lambda topic: int(stamps[topic][0]))
        early = min(
            (topic for topic in stamps if topic not in options.latched), key=lambda topic: int(stamps[topic][-1])
        )
        raise UserError(
            f"{path}: {late} begins {(start - stop) / NS:.3f} s after {early} ends, so there is no frame with both: "
            "choose others with options.topics, or name topics whose last message stays valid in options.latched"
        )
    if marker is None:
        return [(start, stop)]
    marked = [(max(begin, start), min(end, stop)) for begin, end in marked_spans(marker, options.clock, stop)]
    return [(begin, end) for begin, end in marked if begin <= end]


def _plan_span(
    path: Path, signals: Mapping[str, _Signal], options: Alignment, times: np.ndarray, task: TopicTimes | None
) -> list[EpisodePlan]:
    """The episode over these ticks, or those that its gaps leave."""
    picks, reports, bad = {}, {}, np.zeros(len(times), bool)
    for topic, signal in signals.items():
        picks[topic] = pick(signal.samples.stamps, times, options.methods[topic])
        limit = NEVER - 1 if topic in options.latched else min(round(options.max_age_s * NS), NEVER - 1)
        too_old = picks[topic].age_ns > limit
        found = find_gaps(signal.samples.stamps, times, too_old)
        if found is not None:
            reports[topic] = asdict(found)
            bad |= too_old
    if reports and options.gaps == "error" and options.cut != "gap":
        raise _gap_error(path, reports, options.max_age_s, f"{int(bad.sum())} of {len(times)}")
    if options.cut == "gap":
        edges = np.flatnonzero(np.diff(np.concatenate([[False], ~bad, [False]])))
        kept = [np.arange(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if end - begin > 1]
    else:
        kept = [np.flatnonzero(~bad) if options.gaps == "drop" else np.arange(len(times))]
    notes = {"topics": {topic: _describe(signal) for topic, signal in signals.items()}}
    if reports:
        notes["gaps"] = reports
    return [_episode(signals, picks, times, frames, task, notes) for frames in kept if len(frames)]


def _gap_error(path: Path, reports: Mapping[str, Mapping[str, Any]], max_age_s: float, frames: str) -> UserError:
    topic, worst = max(reports.items(), key=lambda item: item[1]["longest_s"])
    others = f", and {len(reports) - 1} other topics had gaps" if len(reports) > 1 else ""
    return UserError(
        f"{path}: {topic} was silent for {worst['longest_s']:.3f} s from {worst['at_s']:.3f} s on, one of "
        f"{worst['count']} gaps{others} ({frames} frames are older than max_age_s={max_age_s:g}): options.gaps=hold "
        "repeats the last message, options.gaps=drop leaves those frames out, options.episodes=gap begins a new "
        "episode after each"
    )


def _episode(
    signals: Mapping[str, _Signal],
    picks: Mapping[str, Picks],
    times: np.ndarray,
    frames: np.ndarray,
    task: TopicTimes | None,
    notes: Mapping[str, Any],
) -> EpisodePlan:
    """The plan for some of the ticks."""
    numbers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for topic, signal in signals.items():
        usable = signal.usable[signal.samples.order]
        numbers[topic] = usable[picks[topic].first[frames]], usable[picks[topic].second[frames]]
    used = [signals[topic].log[each] for topic, both in numbers.items() for each in both]
    start, stop = min(int(each.min()) for each in used), max(int(each.max()) for each in used) + 1
    chosen = {}
    for topic, (first, second) in numbers.items():
        # The second pass counts only what lies between these log times, so that it need not read all before them.
        counted = np.cumsum((signals[topic].log >= start) & (signals[topic].log < stop)) - 1
        chosen[topic] = TopicPicks(counted[first], counted[second], picks[topic].weight[frames])
    begin, end = int(times[frames[0]]), int(times[frames[-1]])
    text, changes = task_between(task, begin, end)
    extra: dict[str, Any] = {"start_ns": begin, "tasks": changes} if changes else {"start_ns": begin}
    if len(frames) < len(times):
        extra["frames_left_out"] = len(times) - len(frames)
    return EpisodePlan(times[frames], chosen, start, stop, text, {**notes, **extra})


def _describe(signal: _Signal) -> dict[str, Any]:
    """What a recording says of a topic in time, for notes."""
    described: dict[str, Any] = {
        "messages": len(signal.log),
        "rate_hz": round(rate_hz(signal.samples.stamps), 3),
        "clock": signal.clock.used,
    }
    if signal.clock.offset_s is not None:
        described["log_minus_header_s"] = round(signal.clock.offset_s, 6)
    faults = {
        "out_of_order": signal.samples.out_of_order,
        "duplicates": signal.samples.duplicates,
        "broken_stamps": signal.clock.broken,
        "unusable": len(signal.log) - len(signal.usable),
    }
    return {**described, **{name: count for name, count in faults.items() if count}}
