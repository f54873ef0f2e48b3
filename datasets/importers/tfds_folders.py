"""Where TensorFlow Datasets puts things: `<name>[/<config>]/<version>/<name>-<split>.tfrecord-00000-of-00016`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.datasets.files.foreign_json import read_object
from embodied.datasets.importers.tfds_features import FILE_NAME

INFO_NAME = "dataset_info.json"
ALL_SPLITS = "all"
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>\w+)\.tfrecord-(?P<index>\d{5,9})-of-(?P<count>\d{5,9})")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NUMBER = re.compile(r"[0-9]{1,18}")
_LONGEST_DESCRIPTION = 500  # characters
_log = logging.getLogger(__name__)


def has_dataset(path: Path) -> bool:
    """Whether `path` is a folder of TFRecords with features.json, or one above it."""
    return any(_shards(folder) for folder in _candidates(path))


def dataset_folder(path: Path) -> Path:
    """The folder with features.json at `path`, or the newest version below it.

    Raises:
        UserError: there is none.
        UsageError: there are several data sets.
    """
    if not path.is_dir():
        raise UserError(f"there is no folder {path}")
    found = list(_candidates(path))
    if not found:
        raise UserError(
            f"{path} holds no {FILE_NAME}, which says what is in its TFRecords: get it too (TensorFlow Datasets writes "
            "it beside the records)"
        )
    if len({folder.parent for folder in found}) > 1 or (len(found) > 1 and not all(map(_version, found))):
        names = ", ".join(str(folder.relative_to(path)) for folder in found[:6])
        raise UsageError(f"{path} holds {len(found)} data sets: give the path of one of {names}")
    return max(found, key=_version)


def split_files(folder: Path, split: str) -> tuple[list[Path], int]:
    """The shards of a split (or of `all`) in order, and how many are missing.

    Raises:
        UsageError: there is no such split.
        UserError: the folder holds no TFRecords.
    """
    shards = _shards(folder)
    if not shards:
        formats = _info(folder).get("fileFormat", "no files")
        raise UserError(f"{folder} holds no .tfrecord shards (its {INFO_NAME} says {formats}): only TFRecord is read")
    splits = sorted({found["split"] for _, found in shards})
    if split != ALL_SPLITS and split not in splits:
        raise unknown_name("split", split, [*splits, ALL_SPLITS])
    wanted = [(path, found) for path, found in shards if split in (ALL_SPLITS, found["split"])]
    expected: dict[tuple[str, str], int] = {}
    for path, found in wanted:
        count = expected.setdefault((found["name"], found["split"]), int(found["count"]))
        if count != int(found["count"]):
            raise UserError(f"{wanted[0][0]} and {path.name} are not of one download: keep the shards of one")
    missing = sum(expected.values()) - len(wanted)
    if missing > 0:
        _log.warning("%s: %d of %d shards are not there; the others are read", folder, missing, sum(expected.values()))
    return [path for path, _ in wanted], max(0, missing)


def record_counts(folder: Path) -> dict[str, int]:
    """How many records each shard should have, by file name, as far as dataset_info.json says so."""
    lengths: dict[tuple[str, int], int] = {}
    for split in _list(_info(folder).get("splits")):
        if isinstance(split, dict):
            counts = [str(count) for count in _list(split.get("shardLengths"))]
            lengths |= {(str(split.get("name")), i): int(n) for i, n in enumerate(counts) if _NUMBER.fullmatch(n)}
    named = {path.name: (found["split"], int(found["index"])) for path, found in _shards(folder)}
    return {name: lengths[key] for name, key in named.items() if key in lengths}


def described(folder: Path) -> dict[str, Any]:
    """What dataset_info.json says of the data: name, version, the start of the description."""
    info = _info(folder)
    texts = {key: str(info[key])[:_LONGEST_DESCRIPTION] for key in ("name", "version", "description") if info.get(key)}
    return {"name": folder.parent.name, "version": folder.name, **texts}


def _info(folder: Path) -> dict[str, Any]:
    path = folder / INFO_NAME
    return read_object(path) if path.is_file() else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _candidates(path: Path) -> Iterator[Path]:
    for pattern in (FILE_NAME, f"*/{FILE_NAME}", f"*/*/{FILE_NAME}"):
        found = sorted(path.glob(pattern)) if path.is_dir() else []
        if found:
            yield from (file.parent for file in found)
            return


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, folder.name.split("."))) if _VERSION.fullmatch(folder.name) else ()


def _shards(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    matches = ((path, _SHARD.fullmatch(path.name)) for path in folder.iterdir())
    found = [(path, match) for path, match in matches if match and path.is_file()]
    return sorted(found, key=lambda item: (item[1]["name"], item[1]["split"], int(item[1]["index"])))
