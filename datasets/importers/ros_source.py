"""Recordings as an `EpisodeSource`: planned one by one, read frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from embodied.core.errors import UserError
from embodied.datasets.episode_source import Block, SourceEpisode
from embodied.datasets.files.bag_record import BagRecord
from embodied.datasets.importers.ros_bag_folders import open_bag
from embodied.datasets.importers.ros_frames import TIMESTAMP, FrameReader
from embodied.datasets.importers.ros_planning import Alignment, EpisodePlan, plan_episodes
from embodied.datasets.importers.ros_scan import TopicTimes
from embodied.datasets.importers.ros_selection import Selection, record_of, scan_like
from embodied.datasets.store.episode_index import KeySpec

_log = logging.getLogger(__name__)
_Planned = tuple[BagRecord | None, list[EpisodePlan]]


class RosbagSource:
    """Recordings of the same topics; the attributes are those of `EpisodeSource`.

    Args:
        path: where the recordings were looked for.
        bags: the recordings.
        selection, options: what to take of each, and how.
        times: of the messages of the first.

    Raises:
        UserError: a single recording cannot be aligned; among several, its episode says so when it is read.
    """

    def __init__(
        self,
        path: Path,
        bags: Sequence[Path],
        selection: Selection,
        options: Alignment,
        times: Mapping[str, TopicTimes],
    ) -> None:
        self._path, self._bags, self._selection, self._options = path, bags, selection, options
        self._planned: dict[int, _Planned | UserError] = {}  # of the recording that was planned last
        self.fps = options.fps
        self.robot = selection.record.robot if selection.record else ""
        self.keys = {column.key: column.spec for column in selection.columns}
        if TIMESTAMP not in self.keys:
            self.keys[TIMESTAMP] = KeySpec("float64", ())
        self.provenance = self._description()
        if selection.skipped:
            _log.warning("left out: %s", "; ".join(f"{topic} ({why})" for topic, why in selection.skipped.items()))
        try:
            self._planned[0] = selection.record, self._plans(bags[0], times)
        except UserError as error:
            if len(bags) == 1:
                raise
            self._planned[0] = error

    def __len__(self) -> int:
        """The number of episodes; where recordings are cut into several, the times of all are read for it."""
        return len(self._bags) if self._options.cut == "bag" else sum(1 for _ in self.episodes())

    def episodes(self) -> Iterator[SourceEpisode]:
        """The episodes, recording by recording.

        One that is a whole recording is planned when its task or notes are asked for. Where recordings are cut, the
        times of each are read when the iteration gets to it.
        """
        for number, bag in enumerate(self._bags):
            origin = bag.name if bag == self._path else bag.relative_to(self._path).as_posix()
            if self._options.cut == "bag":
                known = self._planned.get(number)
                length = len(known[1][0].times) if isinstance(known, tuple) else None
                yield cast(SourceEpisode, _BagEpisode(self, number, origin, length))
                continue
            try:
                record, plans = self.plan(number)
            except UserError as error:
                yield SourceEpisode(origin=origin, task="", blocks=partial(_fail, error))
                continue
            for place, plan in enumerate(plans):
                blocks = partial(self.blocks, number, plan)
                yield self.described(f"{origin}#{place}", record, plan, blocks=blocks, whole=False)

    def described(
        self, origin: str, record: BagRecord | None, plan: EpisodePlan, *, blocks: Any, whole: bool
    ) -> SourceEpisode:
        """An episode with what its recording and its plan say; a part of a recording has no success of its own."""
        return SourceEpisode(
            origin=origin,
            task=plan.task or (record.task if record else ""),
            blocks=blocks,
            success=record.success if record and whole else None,
            seed=record.seed if record and whole else None,
            length=len(plan.times),
            notes={**(record.notes if record else {}), **plan.notes},
        )

    def plan(self, number: int) -> _Planned:
        """The record and the episodes of a recording.

        Raises:
            UserError: it cannot be read or aligned.
        """
        if number not in self._planned:
            planned: _Planned | UserError
            try:
                with closing(open_bag(self._bags[number])) as bag:
                    planned = record_of(bag), self._plans(bag.path, scan_like(bag, self._selection))
            except UserError as error:
                planned = error
            self._planned = {number: planned}
        found = self._planned[number]
        if isinstance(found, UserError):
            raise found
        return found

    def blocks(self, number: int, plan: EpisodePlan | None = None) -> Iterator[Block]:
        """The frames of a plan, by default of the only one of a whole recording."""
        if plan is None:
            plan = self.plan(number)[1][0]
        with closing(open_bag(self._bags[number])) as bag:
            yield from FrameReader(bag, plan, self._selection.columns, self._selection.types).blocks()

    def close(self) -> None:
        """Nothing stays open between reading one recording and the next."""

    def _plans(self, path: Path, times: Mapping[str, TopicTimes]) -> list[EpisodePlan]:
        chosen = self._selection
        signals = {topic: times[topic] for topic in chosen.topics}
        marker, task = times.get(chosen.marker), times.get(chosen.task)
        plans = plan_episodes(path, signals, self._options, marker=marker, task=task)
        if not plans and not chosen.marker:
            raise UserError(f"{path}: gaps leave no frame; allow a larger options.max_age_s, or options.gaps=hold")
        return plans

    def _description(self) -> dict[str, Any]:
        options, chosen = self._options, self._selection
        return {
            "format": "rosbag",
            "recordings": len(self._bags),
            "topics": {
                column.key: {"topic": column.topic, "type": chosen.types[column.topic].name}
                for column in chosen.columns
            },
            "skipped": dict(chosen.skipped),
            "align": dict(options.methods),
            "max_age_s": options.max_age_s,
            "gaps": options.gaps,
            "clock": options.clock,
            "episodes": options.cut,
            "latched": sorted(options.latched),
        }


class _BagEpisode:
    """A whole recording as a `SourceEpisode` whose messages are first read when what only they tell is asked for.

    One that cannot be read has no task and no notes, and its `blocks` raises, so that the others can still be had.
    """

    def __init__(self, source: RosbagSource, number: int, origin: str, length: int | None) -> None:
        self._source, self._number = source, number
        self.origin, self.length = origin, length
        self.blocks = partial(source.blocks, number)

    @cached_property
    def _described(self) -> SourceEpisode:
        try:
            record, plans = self._source.plan(self._number)
        except UserError as error:
            return SourceEpisode(origin=self.origin, task="", blocks=partial(_fail, error))
        return self._source.described(self.origin, record, plans[0], blocks=self.blocks, whole=True)

    @property
    def task(self) -> str:
        return self._described.task

    @property
    def success(self) -> bool | None:
        return self._described.success

    @property
    def seed(self) -> int | None:
        return self._described.seed

    @property
    def notes(self) -> Mapping[str, Any]:
        return self._described.notes


def _fail(error: UserError) -> Iterator[Block]:
    raise error
    yield {}
