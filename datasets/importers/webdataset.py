"""WebDataset shards: tar files, in which consecutive files with one key are a sample.

    train-000000.tar: walk/0001.jpg, walk/0001.action.npy, walk/0001.json, walk/0002.jpg, ...

What makes an episode is said by an option: each sample, each shard, or all samples whose keys are alike up to the last
`/`. `webdataset_fields` has the kinds of files. Nothing is extracted to disk, and nothing is unpickled.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.datasets.episode_source import EpisodeSource, Format, SourceEpisode
from embodied.datasets.files.tar_files import TarFile
from embodied.datasets.importers.webdataset_fields import (
    TASK_NAMES,
    fields_of,
    texts_of,
)
from embodied.datasets.importers.webdataset_reader import SampleReader
from embodied.datasets.importers.webdataset_shards import Sample, common_folder, is_shards, samples_of, shard_files
from embodied.datasets.store.episode_index import KeySpec

EPISODES = ("sample", "shard", "key")
_log = logging.getLogger(__name__)

FORMAT = Format("webdataset", "WebDataset shards (.tar, .tar.gz), a folder or a pattern of them", is_shards)


def open_source(
    path: Path,
    *,
    episodes: str = "sample",
    fps: float | None = None,
    size: int | None = None,
    exclude: Sequence[str] = (),
) -> EpisodeSource:
    """Open shards.

    Args:
        path: a shard, a folder of them, or a pattern such as `train-{000000..000003}.tar`.
        episodes: what an episode is: `sample`, `shard`, or `key`, all that stands before the last `/` of the keys (it
            may go on in the next shard).
        fps: frames per second. By default that of the first video; samples that are single frames have no clock, each
            counts as a second.
        size: pixels; colour pictures and videos are resized to it (short side) and their centre kept.
        exclude: fields to leave out, by ending (`npy`, `wrist.jpg`) or by name.

    Raises:
        UsageError: an option is wrong.
        UserError: there are no samples, a shard is damaged, or holds pickles.
    """
    if episodes not in EPISODES:
        raise unknown_name("episodes", episodes, EPISODES)
    if size is not None and size < 1:
        raise UsageError(f"options.size must be at least 1 pixel, got {size}")
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    exclude = [exclude] if isinstance(exclude, str) else exclude
    return WebDatasetSource(shard_files(Path(path)), episodes=episodes, fps=fps, size=size, exclude=exclude)


class WebDatasetSource:
    """Implements `EpisodeSource`; keeps the shard open that was read last."""

    def __init__(
        self, files: list[Path], *, episodes: str, fps: float | None, size: int | None, exclude: Sequence[str]
    ) -> None:
        self.robot = ""
        self._files, self._root = files, common_folder(files)
        self._by, self._exclude = episodes, exclude
        self._length: int | None = None
        number, sample = next(self._samples(), (0, None))
        if sample is None:
            raise UserError(f"the {len(files)} shards in {self._root} hold no samples (files such as 0001.jpg)")
        where = f"sample {sample.key} of {files[number]}"
        fields, left_out = fields_of(list(sample.members), exclude, where=where)
        clips = any(field.kind == "video" for field in fields)
        if clips and episodes != "sample":
            raise UsageError(f"{where} holds a video, which is an episode of its own: options.episodes=sample")
        posters = [field for field in fields if clips and field.kind == "image"]
        left_out += [field.ending for field in posters]
        fields = [field for field in fields if field not in posters]
        self._texts = [field for field in fields if field.kind in ("text", "json")]
        self._reader = SampleReader(files, fields, size=size)
        try:
            rate, found = self._reader.specs(self._reader.row(number, sample), where)
        finally:
            self.close()
        self.keys: Mapping[str, KeySpec] = self._wanted(found, sample, where)
        self.fps = float(fps or rate or 1.0)
        if left_out:
            _log.warning("left out files ending in %s: they are not read", ", ".join(left_out))
        self.provenance: Mapping[str, Any] = {
            "format": "webdataset",
            "shards": len(files),
            "episodes": episodes,
            "size": size,
            "left_out": sorted(left_out),
        }

    def __len__(self) -> int:
        """Counted in the shards' headers at the first call."""
        if self._length is None:
            self._length = sum(1 for _ in self._groups())
        return self._length

    def episodes(self) -> Iterator[SourceEpisode]:
        """In the order of the shards; only the headers and texts in them are read here."""
        endings = [field.ending for field in self._texts]
        for name, group in self._groups(read=endings):
            texts = self._texts_of(name, group)
            task = next((texts[key] for key in TASK_NAMES if key in texts), "")
            rows = np.stack([self._reader.row(number, sample) for number, sample in group])
            yield SourceEpisode(
                origin=name,
                task=task,
                blocks=partial(self._reader.blocks, name, rows, self.keys, self.fps),
                length=None if self._reader.clips else len(rows),
                notes={key: text for key, text in texts.items() if text != task},
            )

    def close(self) -> None:
        """Close the shard that was read last."""
        self._reader.close()

    def _samples(self, read: Collection[str] = ()) -> Iterator[tuple[int, Sample]]:
        for number, file in enumerate(self._files):
            shard = TarFile(file)
            try:
                for sample in samples_of(shard, read=read):
                    yield number, sample
            finally:
                shard.close()

    def _groups(self, read: Collection[str] = ()) -> Iterator[tuple[str, list[tuple[int, Sample]]]]:
        """Name and samples of every episode."""
        seen = set[str]()
        current, group = "", list[tuple[int, Sample]]()
        for number, sample in self._samples(read):
            name = self._name(number, sample)
            if group and name != current:
                yield current, group
                group = []
            if not group:
                if name in seen:
                    raise UserError(f"the samples of {name} are not together in the shards of {self._root}: sort them")
                seen.add(name)
            current = name
            group.append((number, sample))
        if group:
            yield current, group

    def _name(self, number: int, sample: Sample) -> str:
        if self._by == "key":
            folder, slash, _ = sample.key.rpartition("/")
            if not slash:
                raise UsageError(
                    f"options.episodes=key takes what stands before the last / of keys, but {sample.key} has none"
                )
            return folder
        shard = self._files[number].absolute().relative_to(self._root).as_posix()
        return shard if self._by == "shard" else f"{shard}:{sample.key}"

    def _texts_of(self, name: str, group: list[tuple[int, Sample]]) -> dict[str, str]:
        """The texts of the first sample; those of text files the most common of all samples."""
        texts: dict[str, str] = {}
        for field in self._texts:
            samples = [sample for _, sample in (group if field.kind == "text" else group[:1])]
            counts = Counter[tuple[str, str]]()
            for data in (sample.small[field.ending] for sample in samples if field.ending in sample.small):
                try:
                    counts.update(item for item in texts_of(field, data, where=name).items() if item[1])
                except UserError:  # reading the blocks will say it, to whoever skips or stops then
                    continue
            for (key, text), _ in counts.most_common():
                texts.setdefault(key, text)
        return texts

    def _wanted(self, found: Mapping[str, KeySpec], sample: Sample, where: str) -> dict[str, KeySpec]:
        for name in self._exclude:
            if name not in found and name not in sample.members:
                raise unknown_name("field to exclude", name, {*found, *sample.members})
        keys = {name: spec for name, spec in found.items() if name not in self._exclude}
        if not keys:
            raise UserError(f"{where} holds nothing that can be imported: {', '.join(sample.members)}")
        return keys
