"""WebDataset shards as a source of pre-training frames: the images in tar files, decoded once, nothing extracted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.core.files import hash_json
from embodied.datasets.files.encoded_images import as_rgb, as_square, decode_image
from embodied.datasets.files.tar_files import TarFile, TarMember
from embodied.datasets.importers.webdataset_shards import Sample, common_folder, samples_of, shard_files
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.frame_parts import BLOCK, FrameCaches, FramePart, NamedLabels
from embodied.datasets.loading.npy_rows import ArraySpec
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"})
_CLASS = "cls"  # a file with the number of the sample's class
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """A sample: its shard, key, images by camera, and the number of its class if it has one."""

    shard: int
    key: str
    images: dict[str, TarMember]
    number: int | None


def shard_parts(path: Path, caches: FrameCaches, *, source: int, on_error: Literal["raise", "skip"]) -> list[FramePart]:
    """The images of WebDataset shards, a part for each camera (`0001.front.jpg` and `0001.wrist.jpg` have two).

    Classes are the numbers in `.cls` files or, where a sample has none, the first folders of the keys.

    Args:
        path: a tar file, a folder of them, or a pattern such as `train-{000000..000003}.tar`.
        caches: where frames are decoded to.
        source: the number of the source.
        on_error: `skip` leaves out samples with an image that cannot be read, with a warning.

    Raises:
        UsageError: the pattern is wrong.
        UserError: there are no images, a shard is damaged, or with `on_error="raise"` an image is.
    """
    shards = shard_files(path)
    entries, cameras = _entries(shards)
    size, root = caches.size, common_folder(shards)
    statuses = [(shard, shard.stat()) for shard in shards]
    files = [[shard.absolute().relative_to(root).as_posix(), s.st_size, s.st_mtime_ns] for shard, s in statuses]
    outputs = {f"frames{number}": ArraySpec("uint8", (size, size, 3)) for number in range(len(cameras))}
    cache = ArrayCache(
        caches.root,
        identity={"kind": "shards", "size": size, "files": files, "cameras": cameras},
        outputs={**outputs, "valid": ArraySpec("uint8", ())},
        num_rows=len(entries),
        max_bytes=caches.max_bytes,
    )
    decoder = _Decoder(shards, cameras, size, skip=on_error == "skip")

    def blocks(ranges: Sequence[Range]) -> Blocks:
        with closing(decoder):
            for rows in ranges:
                yield decoder.decode(entries[slice(*rows)])

    cache.fill(blocks, block=BLOCK, description=f"decode {path.name}", reporter=caches.reporter)
    valid = cache.array("valid")
    skipped = len(entries) - int(valid.sum())
    if skipped:
        first = entries[int(np.argmin(valid))]
        if on_error == "raise":  # an earlier run skipped them: say again what is wrong with the first
            with closing(_Decoder(shards, cameras, size, skip=False)) as strict:
                strict.decode([first])
        if skipped == len(entries):
            raise UserError(f"none of the {len(entries)} samples in {path} can be read")
        _log.warning("skipped %d of %d samples in %s, the first is %s", skipped, len(entries), path, first.key)
    labels = _labels(entries)
    return [
        FramePart(
            kind="shards",
            name=f"{path.name}/{camera}" if camera else path.name,
            frames=cache.rows(f"frames{number}"),
            valid=cache.rows("valid") if skipped else None,
            fingerprint=hash_json([cache.content_hash(), camera]),
            source=source,
            skipped=skipped,
            held=cache,
            labels=labels,
        )
        for number, camera in enumerate(cameras)
    ]


def _entries(shards: Sequence[Path]) -> tuple[list[_Entry], list[str]]:
    """The samples that have an image of every camera of the first one, and these cameras."""
    entries: list[_Entry] = []
    cameras: list[str] = []
    without = 0
    for number, file in enumerate(shards):
        with closing(TarFile(file)) as shard:
            for sample in samples_of(shard, read=[_CLASS]):
                images = _images(sample)
                cameras = cameras or sorted(images)
                if cameras and images.keys() >= set(cameras):
                    entries.append(_Entry(number, sample.key, images, _class_of(sample, file)))
                else:
                    without += 1
    if not entries:
        raise UserError(f"the {len(shards)} shards in {common_folder(list(shards))} hold no images such as 0001.jpg")
    if without:
        wanted = ", ".join(f"{camera}.jpg" if camera else "jpg" for camera in cameras)
        _log.warning("left out %d of %d samples without images (%s)", without, without + len(entries), wanted)
    return entries, cameras


def _images(sample: Sample) -> dict[str, TarMember]:
    """By camera: what stands before the last ending, `front` of `0001.front.jpg`, nothing of `0001.jpg`."""
    found: dict[str, TarMember] = {}
    for ending, member in sample.members.items():
        camera, _, last = ending.rpartition(".")
        if last in _IMAGES:
            found.setdefault(camera, member)
    return found


def _class_of(sample: Sample, file: Path) -> int | None:
    text = sample.small.get(_CLASS)
    if text is None:
        return None
    try:
        return int(text[:20])
    except ValueError as error:
        raise UserError(f"{sample.key}.cls of {file} holds {text[:20]!r}, which is no whole number") from error


def _labels(entries: Sequence[_Entry]) -> NamedLabels | None:
    numbers = [entry.number for entry in entries if entry.number is not None]
    if len(numbers) == len(entries):
        width = max(len(str(number)) for number in numbers)
        return NamedLabels.of([f"{number:0{width}d}" for number in numbers])  # so that names sort as numbers
    folders = [entry.key.partition("/") for entry in entries]
    return NamedLabels.of([folder for folder, _, _ in folders]) if all(slash for _, slash, _ in folders) else None


class _Decoder:
    """Reads samples in order from their shards, and decodes their images in threads."""

    def __init__(self, shards: Sequence[Path], cameras: Sequence[str], size: int, *, skip: bool) -> None:
        self._shards, self._cameras, self._size, self._skip = shards, cameras, size, skip
        self._open: tuple[int, TarFile] | None = None

    def close(self) -> None:
        """Close the shard that was read last."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def decode(self, entries: Sequence[_Entry]) -> dict[str, np.ndarray]:
        """What the cache holds of them."""
        found = list(read_ahead(self._frames, self._files(entries), threads=cpu_threads()))
        blank = np.zeros((len(self._cameras), self._size, self._size, 3), np.uint8)
        frames = np.stack([blank if each is None else each for each in found])  # (B, cameras, S, S, 3)
        columns = {f"frames{number}": frames[:, number] for number in range(len(self._cameras))}
        return {**columns, "valid": np.array([each is not None for each in found], np.uint8)}

    def _files(self, entries: Sequence[_Entry]) -> Iterator[tuple[str, list[bytes]]]:
        """Where each sample is, for messages, and the bytes of its images."""
        for entry in entries:
            if self._open is None or self._open[0] != entry.shard:
                self.close()
                self._open = (entry.shard, TarFile(self._shards[entry.shard]))
            where = f"{entry.key} of {self._shards[entry.shard]}"
            yield where, [self._open[1].read(entry.images[camera]) for camera in self._cameras]

    def _frames(self, item: tuple[str, list[bytes]]) -> np.ndarray | None:
        """uint8 [cameras, S, S, 3]; None where one cannot be read and such are skipped."""
        where, files = item
        try:
            return np.stack([self._frame(data, where) for data in files])
        except UserError:
            if not self._skip:
                raise
            return None

    def _frame(self, data: bytes, where: str) -> np.ndarray:
        image = decode_image(data, where=where, upright=True, enough=2 * self._size)
        if image.dtype != np.uint8:
            raise UserError(f"{where} is an image of {image.dtype}, not of 8 bits: convert it or leave it out")
        return as_square(as_rgb(image), self._size)
