"""What a simulated robot said of its episodes, read back from a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from embodied.datasets.importers.ros_bag_folders import open_bag
from embodied.real_robot.messages.cdr_reading import MessageError
from embodied.real_robot.simulator.episodes import STATUS, EpisodeStatus, read_status

_NS = 1_000_000_000
_EARLIER_NS = _NS // 2  # a status is published just before an episode's first frame, or just after


def outcomes(bag: Path, spans: Sequence[tuple[int, int]]) -> list[EpisodeStatus | None]:
    """The last status of the episode that ran over each span; None where none was told.

    Args:
        spans: first and last time of each episode, ns, by log time.

    Raises:
        UserError: the recording is damaged.
    """
    told: list[tuple[int, EpisodeStatus]] = []
    with closing(open_bag(bag)) as opened:
        if STATUS.name not in opened.topics or opened.topics[STATUS.name].type != STATUS.type:
            return [None] * len(spans)
        for _, log_ns, raw in opened.messages([STATUS.name], 0, 1 << 64):
            try:
                told.append((log_ns, read_status(raw)))
            except MessageError:  # somebody else's texts on that topic
                continue
    return [_outcome(told, begin, end) for begin, end in spans]


def _outcome(told: Sequence[tuple[int, EpisodeStatus]], begin: int, end: int) -> EpisodeStatus | None:
    running = [s.number for ns, s in told if s.phase != "ready" and begin - _EARLIER_NS <= ns <= end + _EARLIER_NS]
    if not running:
        return None
    number = max(set(running), key=running.count)
    return [status for _, status in told if status.number == number][-1]


def described(status: EpisodeStatus | None) -> Mapping[str, object]:
    """A status for the notes of an episode."""
    return {} if status is None else {"simulated": asdict(status)}
