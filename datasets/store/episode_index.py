"""What an episode store says of its keys and episodes; the words that importers, engine and store have in common."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError

FILE_NAME = "zarr.json"
JPEG, ZSTD = "jpeg", "zstd"
REMEDY = "restore the store from a copy, or collect it again"
_LACKING_PREFIXES = ("observation.depth.", "observation.raw.")
_CHECKSUM = ',"crc32":"%08x"}'
_LONGEST = 1 << 48  # frames; keeps arithmetic on what a damaged file says in range


@dataclass(frozen=True)
class KeySpec:
    """What one frame of a key is: a NumPy dtype name (bool, integers, floats) and the shape without time.

    Args:
        codec: how frames are kept: `zstd` (lossless) or `jpeg` (uint8 [H, W, 3] only, quality 96, lossy).
        names: of the elements of a vector, such as joint names; empty if unknown.
    """

    dtype: str
    shape: tuple[int, ...]
    codec: str = ZSTD
    names: tuple[str, ...] = ()

    def describe(self, length: int | None = None) -> str:
        """`float32 [T, 4]`, or with the length in place of T."""
        sizes = ", ".join(str(size) for size in ("T" if length is None else length, *self.shape))
        return f"{self.dtype} [{sizes}]"


@dataclass(frozen=True)
class EpisodeInfo:
    """One committed episode: frames `start` to `start + length` of the store, and how it came about.

    Args:
        index: its number, from 0.
        start, length: frames.
        task: the instruction.
        seed, success: None where unknown.
        hashes: per key the SHA-256 (hex) of its frames: of the values in C order or, with the `jpeg` codec, of every
            frame's length (4 bytes, little-endian) and JPEG bytes.
        origin: names the episode inside the source it was imported from.
        notes: JSON-able; whatever else was worth keeping.
    """

    index: int
    start: int
    length: int
    task: str
    seed: int | None
    success: bool | None
    hashes: Mapping[str, str] = field(repr=False)
    origin: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        return self.start + self.length


def may_lack_values(key: str) -> bool:
    """Whether floats of a key may be nan or infinite: depth maps and sensor values keep their bits."""
    return key.startswith(_LACKING_PREFIXES)


def is_store(folder: str | Path) -> bool:
    """Whether `folder` holds a zarr group: an episode store, or at least something meant to be one."""
    return (Path(folder) / FILE_NAME).is_file()


class DamagedLineError(Exception):
    """A line of the index is not what was written."""


def to_line(kind: str, record: Mapping[str, Any]) -> bytes:
    """`{"<kind>":{...},"crc32":"..."}` and a line break; the checksum is that of the line without itself."""
    text = json.dumps({kind: record}, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return text + (_CHECKSUM % zlib.crc32(text)).encode() + b"\n"


def from_line(kind: str, line: bytes) -> Any:
    """The record of a line without its line break.

    Raises:
        DamagedLineError: it does not match its checksum, or is of another kind.
    """
    text = line[: -len(_CHECKSUM % 0)]
    if line != text + (_CHECKSUM % zlib.crc32(text)).encode():
        raise DamagedLineError("it does not match its checksum")
    try:
        record = json.loads(text + b"}")
    except (ValueError, RecursionError) as error:
        raise DamagedLineError(f"it is not JSON: {error}") from error
    if not isinstance(record, dict) or list(record) != [kind]:
        raise DamagedLineError(f"it is not a line of kind {kind}")
    return record[kind]


def episode_to_json(episode: EpisodeInfo) -> dict[str, Any]:
    """The record of an episode in the index."""
    return {
        "episode": episode.index,
        "start": episode.start,
        "length": episode.length,
        "task": episode.task,
        "seed": episode.seed,
        "success": episode.success,
        "origin": episode.origin,
        "notes": dict(episode.notes),
        "hashes": dict(episode.hashes),
    }


def episode_from_json(record: Any, keys: Mapping[str, KeySpec]) -> EpisodeInfo:
    """The episode of a record.

    Raises:
        DamagedLineError: the record is not one, or not of these keys.
    """
    if not isinstance(record, dict):
        raise DamagedLineError("it is not an episode's record")
    for name in ("episode", "start", "length"):
        if type(record.get(name)) is not int or not int(name == "length") <= record[name] <= _LONGEST:
            raise DamagedLineError(f"{name} is {str(record.get(name))[:80]}")
    for name, kinds in _KINDS.items():
        if not isinstance(record.get(name), kinds) or (name == "seed" and isinstance(record[name], bool)):
            raise DamagedLineError(f"{name} is {str(record.get(name))[:80]}")
    hashes = record["hashes"]
    if hashes.keys() != keys.keys() or not all(isinstance(value, str) for value in hashes.values()):
        raise DamagedLineError("its hashes are not those of the store's keys")
    rest = {name: record[name] for name in ("start", "length", *_KINDS)}
    return EpisodeInfo(index=record["episode"], **rest)


_KINDS: dict[str, Any] = {
    "task": str,
    "seed": (int, type(None)),
    "success": (bool, type(None)),
    "hashes": dict,
    "origin": str,
    "notes": dict,
}


def damaged_index(path: str, what: str) -> UserError:
    """The error for a file of the index."""
    return UserError(f"the index of the episode store, {path}, is damaged: {what}; restore it from a copy")
