"""Import: a foreign dataset, episode by episode, into an episode store that any interruption leaves usable.

    name, source = open_source("demo.hdf5")
    plan = plan_import(source, format=name, path="demo.hdf5", mapping=propose(source.keys))
    report = run_import(source, plan, "store", reporter=SilentReporter())

Every episode is committed whole, named by its origin; the next run of the same plan goes on after the last one. A
store keeps what it was made from under `provenance["import"]`, and refuses episodes of anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import Reporter
from embodied.core.run_folder import versions
from embodied.datasets.background_commits import BackgroundCommits
from embodied.datasets.episode_source import EncodedBlock, EpisodeSource, SourceEpisode
from embodied.datasets.key_casting import ImageOptions
from embodied.datasets.key_mapping import KeyMapping
from embodied.datasets.loading.read_ahead import run_ahead
from embodied.datasets.resumable_store import resumable_store
from embodied.datasets.store.episode_index import EpisodeInfo, KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.ticking import ticking

PROVENANCE = "import"
_MOST_AHEAD = 3  # blocks of about 32 MiB that are read before they are written
_DETAILS = ("task", "seed", "success", "origin", "notes")


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What an import makes of a source: all that decides the content of the store.

    Args:
        format: of the source.
        source: its name, without the folders above it.
        options: of the importer.
        mapping: of keys.
        images: how images are kept and read.
        specs: the keys of the store.
    """

    format: str
    source: str
    options: Mapping[str, Any]
    mapping: KeyMapping
    images: ImageOptions
    specs: Mapping[str, KeySpec]

    def identity(self) -> dict[str, Any]:
        """JSON-able; two imports with the same one may share a store."""
        images = {"images": self.images.codec, "layout": self.images.layout, "float_images": self.images.float_images}
        mapping = {name: list(foreign) for name, foreign in self.mapping.sources.items()}
        return {"format": self.format, "source": self.source, "options": dict(self.options), "map": mapping, **images}


@dataclass
class ImportReport:
    """What an import did: episodes added, already there, and skipped with the reason for each."""

    store: EpisodeStore
    added: int = 0
    present: int = 0
    skipped: list[str] = field(default_factory=list)


class EpisodeError(UserError):
    """An episode of the source cannot be imported; the others may be."""


@dataclass(frozen=True)
class _Begin:
    """An episode, before its frames."""

    details: Mapping[str, Any]  # for `EpisodeStore.writer`


@dataclass(frozen=True)
class _End:
    """There are no more frames of an episode, or the next one cannot be read."""

    error: UserError | None = None


_Part = _Begin | EncodedBlock | _End


def plan_import(
    source: EpisodeSource,
    *,
    format: str,
    path: str,
    mapping: KeyMapping,
    options: Mapping[str, Any] | None = None,
    images: ImageOptions | None = None,
) -> ImportPlan:
    """Check that a mapping fits a source, before anything is written.

    Raises:
        UsageError: it does not.
    """
    chosen = images or ImageOptions()
    return ImportPlan(
        format=format,
        source=Path(path).absolute().name,
        options=dict(options or {}),
        mapping=mapping,
        images=chosen,
        specs=mapping.specs(source.keys, chosen),
    )


def run_import(
    source: EpisodeSource,
    plan: ImportPlan,
    path: str | Path,
    *,
    reporter: Reporter,
    episodes: Sequence[int] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> ImportReport:
    """Add the episodes of a source that the store at `path` has not yet, in the source's order.

    Args:
        source: opened; stays open.
        plan: what to make of it.
        path: of the store, which is made if there is none.
        reporter: shows progress.
        episodes: numbers in the source; all by default.
        on_error: whether an episode that cannot be read ends the import or is left out, to be tried again next time.

    Raises:
        UsageError: the store at `path` was made of something else.
        UserError: an episode cannot be read, or the store not be written.
    """
    if on_error not in ("raise", "skip"):
        raise UsageError(f"on_error must be raise or skip, got {on_error!r}")
    provenance = {PROVENANCE: plan.identity(), "source": dict(source.provenance), "versions": versions()}
    with resumable_store(
        path, keys=plan.specs, fps=source.fps, robot=source.robot, provenance=provenance, part=PROVENANCE
    ) as store:
        everything = _all_episodes(source)
        _require_part_of(everything, store.episodes, path)
        numbers = range(len(everything)) if episodes is None else dict.fromkeys(episodes)
        stored = {info.origin for info in store.episodes}
        if absent := [number for number in numbers if not 0 <= number < len(everything)]:
            raise UsageError(f"episodes: {absent[0]} is not in the source, which has {len(everything)}")
        wanted = [everything[number] for number in sorted(numbers)]
        report = ImportReport(store, present=sum(episode.origin in stored for episode in wanted))
        _add_missing(report, wanted, stored, plan, reporter=reporter, on_error=on_error)
    return report


def _all_episodes(source: EpisodeSource) -> list[SourceEpisode]:
    found: dict[str, SourceEpisode] = {}
    for episode in source.episodes():
        if episode.origin in found:
            raise UserError(f"two episodes of the source are called {episode.origin}: rename one")
        found[episode.origin] = episode
    if not found:
        raise UserError("the source has no episodes")
    return list(found.values())


def _require_part_of(everything: Sequence[SourceEpisode], stored: Sequence[EpisodeInfo], path: str | Path) -> None:
    """Refuse a source that cannot be the one that the stored episodes are from."""
    lengths = {episode.origin: episode.length for episode in everything}
    for info in stored:
        known = info.origin in lengths
        if known and lengths[info.origin] in (None, info.length):
            continue
        now = f"has {lengths[info.origin]} frames" if known else "is not there"
        raise UsageError(
            f"{info.origin}, of {info.length} frames in {path}, {now} in the source: the source has changed or is "
            "another one of the same name; choose another to="
        )


def _add_missing(
    report: ImportReport,
    wanted: Sequence[SourceEpisode],
    stored: Container[str],
    plan: ImportPlan,
    *,
    reporter: Reporter,
    on_error: Literal["raise", "skip"],
) -> None:
    missing = [episode for episode in wanted if episode.origin not in stored]
    lengths = [episode.length for episode in wanted]
    known = None not in lengths  # then frames are counted, else episodes
    total = sum(length or 0 for length in lengths) if known else len(wanted)
    left = sum(episode.length or 0 for episode in missing) if known else len(missing)
    with (
        ticking(reporter, total=total, description="frames" if known else "episodes", done=total - left) as advance,
        closing(run_ahead(_parts(missing, plan), most=_MOST_AHEAD)) as parts,
        BackgroundCommits(report.store) as commits,
    ):
        for episode in missing:
            try:
                _add(commits, episode, parts, advance if known else lambda frames: None)
                report.added += 1
            except EpisodeError as error:
                if on_error == "raise":
                    raise
                reporter.note(f"left out: {error}")
                report.skipped.append(str(error))
            if not known:
                advance(1)


def _parts(missing: Sequence[SourceEpisode], plan: ImportPlan) -> Generator[_Part, None, None]:
    """Of each episode what is said of it, its blocks as the store takes them, and its end.

    Runs in a thread of its own, which alone uses the source, while the other compresses and writes.
    """
    for episode in missing:
        yield _Begin({name: getattr(episode, name) for name in _DETAILS})
        try:
            for block in episode.blocks():
                frames = plan.mapping.apply(block, plan.specs, plan.images)
                yield EncodedBlock(frames, plan.mapping.kept_files(block, plan.specs))
        except UserError as error:
            yield _End(error)
        else:
            yield _End()


def _add(
    commits: BackgroundCommits, episode: SourceEpisode, parts: Iterator[_Part], advance: Callable[[int], None]
) -> None:
    """Write one episode; the store will have all of it or, when this raises EpisodeError, nothing."""
    begin = next(parts)
    assert isinstance(begin, _Begin), begin
    with commits.writer(**begin.details) as writer:
        while isinstance(block := next(parts), EncodedBlock):
            before = writer.length
            writer.write(block, encoded=block.files)
            advance(writer.length - before)
        assert isinstance(block, _End), block
        if block.error is not None:
            raise EpisodeError(f"{episode.origin}: {block.error}") from block.error
        if not writer.length:
            raise EpisodeError(f"{episode.origin} has no frames")
        if episode.length not in (None, writer.length):
            raise EpisodeError(f"{episode.origin} should have {episode.length} frames and has {writer.length}")
