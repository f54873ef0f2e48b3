"""Folders of videos as a source of pre-training frames: decoded once, every video an episode."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.encoded_images import as_square
from embodied.datasets.files.video_files import SUFFIXES, VideoFile, decoding_threads
from embodied.datasets.files.video_times import packet_times
from embodied.datasets.importers.media_folders import list_files
from embodied.datasets.importers.resampling import LONGEST_GAP_S, evenly_timed
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.frame_parts import BLOCK, FrameCaches, FramePart, NamedLabels, folder_labels
from embodied.datasets.loading.npy_rows import ArraySpec
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead

_BLOCK_BYTES = 16 << 20  # of frames as the file has them
_SLACK = 1e-6  # ticks, as in `importers.resampling`
Frames = Generator[np.ndarray, None, None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Film:
    """A video and the rows it gets: as many as frames are taken of it, if its packets tell the truth, or more."""

    path: Path
    rows: int


def video_part(
    path: Path, caches: FrameCaches, *, source: int, fps: float | None, on_error: Literal["raise", "skip"]
) -> FramePart:
    """The frames of a video or of all videos in a folder; those of folders in it have the folders' names as classes.

    Args:
        path: the file or folder.
        caches: where frames are decoded to.
        source: the number of the source.
        fps: frames that are taken per second, the nearest to an even clock; None: every frame.
        on_error: `skip` leaves out files that cannot be opened, and what comes after damage, with a warning.

    Raises:
        UserError: there are no videos, or with `on_error="raise"` one is damaged.
    """
    films = _films(path, caches, fps, skip=on_error == "skip")
    root = path if path.is_dir() else path.parent
    statuses = [(film, film.path.stat()) for film in films]
    files = [[str(film.path.relative_to(root)), film.rows, stat.st_size, stat.st_mtime_ns] for film, stat in statuses]
    flag = ArraySpec("uint8", ())
    cache = ArrayCache(
        caches.root,
        identity={"kind": "videos", "size": caches.size, "fps": fps, "files": files},
        outputs={"frames": ArraySpec("uint8", (caches.size, caches.size, 3)), "valid": flag, "damaged": flag},
        num_rows=sum(film.rows for film in films),
        max_bytes=caches.max_bytes,
    )
    reader = _FilmReader(films, caches.size, fps, skip=on_error == "skip")

    def blocks(ranges: Sequence[Range]) -> Blocks:
        with closing(reader):
            for rows in ranges:
                yield reader.read(*rows)

    cache.fill(blocks, block=BLOCK, description=f"decode {path.name}", reporter=caches.reporter)
    first_rows = np.cumsum([0, *(film.rows for film in films[:-1])])
    _report(films, np.add.reduceat(np.asarray(cache.array("damaged"), np.int64), first_rows), reader, on_error)
    valid = np.asarray(cache.array("valid"), np.int64)
    if not valid.any():
        raise UserError(f"none of the {len(films)} videos in {path} has a frame that can be decoded")
    missing = len(valid) - int(valid.sum())
    return FramePart(
        kind="videos",
        name=path.name,
        frames=cache.rows("frames"),
        valid=cache.rows("valid") if missing else None,
        fingerprint=cache.content_hash(),
        source=source,
        skipped=missing,
        held=cache,
        labels=_labels(films, root),
        lengths=np.add.reduceat(valid, first_rows),
    )


def _films(path: Path, caches: FrameCaches, fps: float | None, *, skip: bool) -> list[Film]:
    """The videos at `path`. How many frames each has is kept: finding it out reads all of the file."""
    paths = list_files(path, SUFFIXES)
    statuses = [(file.name, file.stat()) for file in paths]
    index = ArrayCache(
        caches.root,
        identity={"kind": "video rows", "fps": fps, "files": [[n, s.st_size, s.st_mtime_ns] for n, s in statuses]},
        outputs={"rows": ArraySpec("int64", ())},
        num_rows=len(paths),
    )

    def count(file: Path) -> int:
        try:
            return _rows(file, fps)
        except UserError:
            if not skip:
                raise
            return 0

    def blocks(ranges: Sequence[Range]) -> Blocks:
        for rows in ranges:
            found = list(read_ahead(count, paths[slice(*rows)], threads=cpu_threads()))
            yield {"rows": np.array(found, np.int64)}

    with index:
        index.fill(blocks, block=BLOCK, description=f"look into {path.name}", reporter=caches.reporter)
        films = [Film(file, int(rows)) for file, rows in zip(paths, index.array("rows"), strict=True)]
    broken = [film.path for film in films if not film.rows]
    if broken:
        reason = _reason(broken[0], fps)
        if not skip:  # an earlier run left it out
            raise reason
        if len(broken) == len(films):
            raise UserError(f"none of {len(paths)} videos can be opened, the first: {reason}")
        _log.warning("left out %d of %d videos, the first: %s", len(broken), len(films), reason)
    return [film for film in films if film.rows]


def _reason(path: Path, fps: float | None) -> UserError:
    """Why a video cannot be opened."""
    try:
        _rows(path, fps)
    except UserError as error:
        return error
    return UserError(f"{path} could not be opened before, and can be now: touch it, so that it is looked into again")


def _rows(path: Path, fps: float | None) -> int:
    times = packet_times(path)
    if fps is None:
        return len(times)
    if np.diff(times, append=times[-1]).max() > LONGEST_GAP_S:  # as `evenly_timed` will say, of times gone wrong
        raise UserError(f"{path} has no frame for more than {LONGEST_GAP_S:.0f} s: split it")
    return int((times[-1] - times[0]) * fps + _SLACK) + 1


def _labels(films: Sequence[Film], root: Path) -> NamedLabels | None:
    of_films = folder_labels([film.path for film in films], root)
    if of_films is None:
        return None
    return NamedLabels(of_films.names, np.repeat(of_films.numbers, [film.rows for film in films]))


def _report(films: Sequence[Film], damaged: np.ndarray, reader: _FilmReader, on_error: str) -> None:
    """Of damaged films, the number of rows each lacks: int64 [films]."""
    if not damaged.any():
        return
    first = films[int(np.flatnonzero(damaged)[0])]
    if on_error == "raise":  # an earlier run skipped it: say again what is wrong
        for _ in reader.frames(first):
            pass
    _log.warning(
        "left out %d frames after damage in %d of %d videos, the first is %s",
        *(int(damaged.sum()), int((damaged > 0).sum()), len(films), first.path),
    )


class _FilmReader:
    """Rows of films one after the other, decoded on from where the last ones ended."""

    def __init__(self, films: Sequence[Film], size: int, fps: float | None, *, skip: bool) -> None:
        self._films, self._size, self._fps, self._skip = films, size, fps, skip
        self._stops = np.cumsum([film.rows for film in films])
        self._open: tuple[int, int, Frames] | None = None  # film, its next row, its frames from there
        self._damaged = False  # the film that is open

    def read(self, first: int, last: int) -> dict[str, np.ndarray]:
        """What the cache holds of rows `first` to `last`."""
        frames = np.zeros((last - first, self._size, self._size, 3), np.uint8)
        valid, damaged = np.zeros(last - first, np.uint8), np.zeros(last - first, np.uint8)
        for row in range(first, last):
            frame = self._row(row)
            if frame is not None:
                frames[row - first], valid[row - first] = frame, 1
            damaged[row - first] = self._damaged
        return {"frames": frames, "valid": valid, "damaged": damaged}

    def frames(self, film: Film) -> Frames:
        """The frames uint8 [S, S, 3] of a film.

        Raises:
            UserError: it is damaged.
        """
        with VideoFile(film.path, upright=True, threads=decoding_threads()) as file:
            timed = file.blocks(block_bytes=_BLOCK_BYTES)
            blocks: Iterator[np.ndarray] = (block for _, block in timed)
            if self._fps is not None:
                blocks = evenly_timed(timed, self._fps, block_bytes=_BLOCK_BYTES, where=str(film.path))
            for block in blocks:
                for frame in block:
                    yield as_square(frame, self._size)

    def close(self) -> None:
        """Close the film that is open."""
        if self._open is not None:
            self._open[2].close()
            self._open = None

    def _row(self, row: int) -> np.ndarray | None:
        """The frame of a row; None where the film has ended before."""
        number = int(np.searchsorted(self._stops, row, side="right"))
        place = row - int(self._stops[number]) + self._films[number].rows
        if self._open is None or self._open[:2] != (number, place):
            self.close()
            self._damaged, frames = False, self.frames(self._films[number])
            for _ in range(place):  # an import that goes on in the middle of a film
                self._next(frames)
        else:
            frames = self._open[2]
        self._open = (number, place + 1, frames)
        return self._next(frames)

    def _next(self, frames: Frames) -> np.ndarray | None:
        try:
            return next(frames, None)
        except UserError:
            if not self._skip:
                raise
            self._damaged = True
            return None
