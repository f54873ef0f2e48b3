"""WebDataset shards as a list of files, and their samples in order."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.tar_files import TarFile, TarMember
from embodied.datasets.importers.media_folders import list_files, natural_order
from embodied.datasets.importers.webdataset_fields import split_name

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 100_000
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """The files of one sample, consecutive members of a shard with one key: by their endings.

    `small` has the bytes of those that `samples_of` was told to read.
    """

    key: str
    members: dict[str, TarMember]
    small: dict[str, bytes]


def is_shards(path: Path) -> bool:
    """Whether `path` is a shard, a pattern of shards or a folder with shards in it."""
    if path.is_dir():
        return any(file.name.endswith(SUFFIXES) for file in path.iterdir())
    return path.name.endswith(SUFFIXES)


def shard_files(path: Path) -> list[Path]:
    """The shards at `path`: a file, a folder, or a pattern such as `train-{000000..000003}.tar`.

    Raises:
        UsageError: the pattern is wrong.
        UserError: there are none, or one of a pattern is missing.
    """
    if _BRACES.search(str(path)) and not path.exists():
        files = [Path(name) for name in _expanded(str(path))]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise UserError(f"{len(missing)} of the {len(files)} shards {path} are missing, the first is {missing[0]}")
        return files
    if path.is_dir():
        shards = [file for file in list_files(path, (".tar", ".gz", ".tgz")) if file.name.endswith(SUFFIXES)]
        if not shards:
            raise UserError(f"{path} holds no {', '.join(SUFFIXES)} files")
        return sorted(shards, key=lambda file: natural_order(file.relative_to(path).as_posix()))
    if not path.is_file():
        raise UserError(f"there is no file or folder at {path}")
    return [path]


def common_folder(files: list[Path]) -> Path:
    """The folder that all are in or below."""
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def samples_of(shard: TarFile, *, read: Collection[str] = ()) -> Iterator[Sample]:
    """The samples of a shard in order; files with an ending in `read` are read on the way, if they are small.

    Raises:
        UserError: the shard is damaged, or a sample has two files of one ending.
    """
    sample = Sample("", {}, {})
    for member in shard.members():
        parts = split_name(member.name)
        if parts is None:
            continue
        key, ending = parts
        if key != sample.key:
            if sample.members:
                yield sample
            sample = Sample(key, {}, {})
        if ending in sample.members:
            raise UserError(f"sample {key} of {shard.path} has two files .{ending}: its keys are not unique")
        sample.members[ending] = member
        if ending in read and member.size <= _SMALL_BYTES:
            sample.small[ending] = shard.read(member)
    if sample.members:
        yield sample


def _expanded(pattern: str) -> list[str]:
    """Every string of a pattern with `{3..12}` and `{a,b}`, zeros in front kept, as a shell does it."""
    parts = _BRACES.split(pattern)  # text, choice, text, ...
    choices = [_choices(part, pattern) if index % 2 else [part] for index, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST_SHARDS:
        raise UsageError(f"{pattern} names {count} shards; at most {_MOST_SHARDS} can be read")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(text: str, pattern: str) -> list[str]:
    match = _RANGE.fullmatch(text)
    if match is None:
        if "," not in text:
            raise UsageError(f"{{{text}}} in {pattern} must be like {{000000..000003}} or {{a,b}}")
        return text.split(",")
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MOST_SHARDS:
        raise UsageError(f"{{{text}}} in {pattern} must count upwards, by at most {_MOST_SHARDS} shards")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
