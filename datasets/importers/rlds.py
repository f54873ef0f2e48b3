"""RLDS and Open-X Embodiment: a folder written by TensorFlow Datasets, read without TensorFlow.

    <name>/<version>/{dataset_info.json, features.json, <name>-train.tfrecord-00000-of-00016, ...}

One record is one episode. The values of its steps keep TFDS's names without `steps/` (`observation/image`, `action`,
`is_last`); the instruction becomes the task, `episode_metadata` and other texts become notes. What has no array of a
fixed shape is left out and named in the provenance.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EncodedBlock, EpisodeSource, Format, SourceEpisode
from embodied.datasets.files.tf_example import FeatureList, parse_example
from embodied.datasets.files.tfrecord_files import RecordSpan, read_record, record_spans
from embodied.datasets.importers.tfds_features import FILE_NAME, TfdsFeature, load_features
from embodied.datasets.importers.tfds_folders import dataset_folder, described, has_dataset, record_counts, split_files
from embodied.datasets.importers.tfds_notes import is_codes, is_notable, noted, text_of
from embodied.datasets.importers.tfds_steps import RAGGED_VALUES, NotStorableError, StepValues, step_count
from embodied.datasets.store.episode_index import KeySpec

_STEPS = "steps/"
# Where Open-X keeps the instruction, most usual first; `instruction` may be a vector of character codes.
_TASKS = ("language_instruction", "natural_language_instruction", "instruction", "language", "task", "text")
_MOST_TRIED = 16  # records, in search of one that says what the values are
_log = logging.getLogger(__name__)


FORMAT = Format("rlds", "RLDS and Open X-Embodiment: TFDS folders of TFRecords, read without TensorFlow", has_dataset)


def open_source(
    path: Path,
    *,
    split: str = "train",
    fps: float | None = None,
    exclude: Sequence[str] = (),
    task_key: str | None = None,
) -> EpisodeSource:
    """Open a TFDS folder: the one with features.json, or one above it (the newest version is taken).

    Args:
        path: the folder.
        split: as TFDS has it, or `all`.
        fps: steps per second. The format does not have it: the data set's paper does.
        exclude: names of values to leave out, such as `observation/image`.
        task_key: name of the value that is the instruction, where it is not found by its usual names.

    Raises:
        UsageError: an unknown split or name, or no rate.
        UserError: there is no such folder, or it is damaged.
    """
    if fps is None:
        raise UsageError(
            "RLDS does not say how many steps a second has: give fps (bridge 5, fractal 3, DROID 15; the table of "
            "the Open X-Embodiment data sets has it for the others)"
        )
    if not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    exclude = [exclude] if isinstance(exclude, str) else exclude
    return RldsSource(dataset_folder(Path(path)), split=split, fps=float(fps), exclude=exclude, task_key=task_key)


class RldsSource:
    """An `EpisodeSource` over the shards of one split; holds no file open."""

    def __init__(self, folder: Path, *, split: str, fps: float, exclude: Sequence[str], task_key: str | None) -> None:
        self.fps, self.robot = fps, ""
        self._files, missing = split_files(folder, split)
        self._counts = record_counts(folder)
        features = load_features(folder)
        self._steps = {f.name.removeprefix(_STEPS): f for f in features.known.values() if f.name.startswith(_STEPS)}
        self._others = [f for f in features.known.values() if not f.name.startswith(_STEPS) and is_notable(f)]
        if not any(name.startswith(_STEPS) for name in (*features.known, *features.unknown)):
            raise UserError(f"{folder / FILE_NAME} names no steps: this is a TFDS folder, but not RLDS")
        for name in exclude:
            if name not in self._steps:
                raise unknown_name("key to exclude", name, self._steps)
        self._task = self._find_task(task_key)
        left_out = {name.removeprefix(_STEPS): why for name, why in features.unknown.items()}
        arrays = {n: f for n, f in self._steps.items() if f.kind != "text" and n not in exclude}
        self.keys: Mapping[str, KeySpec] = self._keys(arrays, left_out)
        self._arrays = {name: arrays[name] for name in self.keys}
        if left_out:
            _log.warning("left out: %s", "; ".join(f"{name} ({why})" for name, why in left_out.items()))
        self.provenance: Mapping[str, Any] = {
            "format": "rlds",
            **described(folder),
            "split": split,
            "shards": len(self._files),
            "missing_shards": missing,
            "left_out": left_out,
        }
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 for _ in self._spans())
        return self._length

    def episodes(self) -> Iterator[SourceEpisode]:
        """Every record, in the order of the shards; only its texts and metadata are read here."""
        counts = Counter[str]()
        for span in self._spans():
            counts[span.path.name] += 1
            episode = self._episode(span)
            if episode.length == 0:
                _log.warning("%s has no steps and is passed over", span)
            else:
                yield episode
        for name, count in self._counts.items():
            if name in {file.name for file in self._files} and counts[name] != count:
                _log.warning("%s has %d records, but its dataset_info.json says %d", name, counts[name], count)

    def close(self) -> None:
        """Nothing is held open."""

    def _episode(self, span: RecordSpan) -> SourceEpisode:
        flag = next((f for f in self._arrays.values() if f.dtype == "bool" and not f.shape and f.levels == 1), None)
        texts = [feature for feature in self._steps.values() if feature.kind == "text"]
        small = [*texts, *self._others, *(f for f in (flag, self._task) if f)]
        only = {name for f in small for name in (f.name, f"{f.name}/{RAGGED_VALUES}")}
        try:
            with span.path.open("rb") as handle:
                example = parse_example(handle, span, start=span.start, only=only)
        except UserError:
            example = {}  # reading its blocks will say what is damaged, to whoever skips or stops then
        metadata = {f.name.removeprefix("episode_metadata/"): noted(f, example) for f in self._others}
        notes = {name: value for name, value in metadata.items() if value is not None}
        notes |= {f.name.removeprefix(_STEPS): text for f in texts if f != self._task and (text := text_of(f, example))}
        success = metadata.get("success")
        return SourceEpisode(
            origin=f"{span.path.name}:{span.index}",
            task=text_of(self._task, example) if self._task else "",
            blocks=partial(self._blocks, span),
            success=bool(success) if isinstance(success, bool | int) else None,
            length=len(example[flag.name]) if flag and flag.name in example else None,
            notes=notes,
        )

    def _blocks(self, span: RecordSpan) -> Iterator[Block]:
        example = parse_example(BytesIO(read_record(span)), span, start=0)
        steps = step_count(self._arrays.values(), example, span)
        if not steps:
            raise span.damaged("it has no steps")
        values = {name: self._values(name, example, steps, span) for name in self.keys}
        frame = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in self.keys.values())
        for start in range(0, steps, most := max(1, BLOCK_BYTES // frame)):
            found = {name: value.read(start, min(start + most, steps)) for name, value in values.items()}
            for name, (array, _) in found.items():
                if array.shape[1:] != self.keys[name].shape:
                    got, want = list(array.shape[1:]), list(self.keys[name].shape)
                    raise _unlike(name, span, f"is {got} per step, not {want}")
            yield EncodedBlock(
                {name: array for name, (array, _) in found.items()}, {name: files for name, (_, files) in found.items()}
            )

    def _values(self, name: str, example: Mapping[str, FeatureList], steps: int, span: RecordSpan) -> StepValues:
        try:
            return StepValues(self._arrays[name], example, steps, span)
        except NotStorableError as error:
            raise _unlike(name, span, f"has {error}") from error

    def _keys(self, arrays: Mapping[str, TfdsFeature], left_out: dict[str, str]) -> dict[str, KeySpec]:
        """The specs, from the first record that can be read and has steps; what is not storable goes to `left_out`."""
        folder, damage = self._files[0].parent, None
        for span in islice(self._spans() if arrays else (), _MOST_TRIED):
            try:
                keys = _record_keys(arrays, span)
            except UserError as error:  # the next one may be whole, and who skips damage wants the others
                damage = damage or error
                continue
            left_out |= {name: why for name, why in keys.items() if isinstance(why, str)}
            specs = {name: spec for name, spec in keys.items() if isinstance(spec, KeySpec)}
            if specs:
                return specs
        raise damage or UserError(f"{folder} holds no steps with a value that can be stored; left out: {left_out}")

    def _spans(self) -> Iterator[RecordSpan]:
        for file in self._files:
            yield from record_spans(file)

    def _find_task(self, task_key: str | None) -> TfdsFeature | None:
        texts = {n: f for n, f in self._steps.items() if f.kind == "text" or is_codes(f)}
        texts |= {f.name: f for f in self._others if f.kind == "text"}
        if task_key is not None:
            if task_key not in texts:
                raise unknown_name("task_key", task_key, texts)
            return texts[task_key]
        matching = (texts[name] for wanted in _TASKS for name in texts if name.rpartition("/")[2] == wanted)
        return next(matching, None)


def _record_keys(arrays: Mapping[str, TfdsFeature], span: RecordSpan) -> dict[str, KeySpec | str]:
    """What each value is in one record, or why it is left out; empty where the record has no steps."""
    example = parse_example(BytesIO(read_record(span)), span, start=0)
    steps = step_count(arrays.values(), example, span)
    found: dict[str, KeySpec | str] = {}
    for name, feature in arrays.items() if steps else ():
        try:
            found[name] = StepValues(feature, example, steps, span).spec()
        except NotStorableError as error:
            found[name] = str(error)
    return found


def _unlike(name: str, span: RecordSpan, what: str) -> UserError:
    return UserError(f"{name} of {span} {what}, unlike in the first record: leave it out (options.exclude=[{name}])")
