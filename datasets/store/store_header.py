"""What does not change in an episode store: keys and their layout, rate, robot, provenance.

It is the attributes of the zarr group, so any zarr reader sees it. Beside it, per key, stand zarr's own description of
the array, which this package writes but reads only to check it: what is committed is the index's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json
from embodied.datasets.storage.location import Storage
from embodied.datasets.store.episode_checks import checked_fps, checked_keys
from embodied.datasets.store.episode_index import FILE_NAME, JPEG, KeySpec, damaged_index

FORMAT = "embodied-episode-store"
SCHEMA = 2
OLDEST_SCHEMA = 1
ATTRIBUTE = "embodied"
ZSTD_LEVEL = 3  # levels above cost more time than the few per cent they save
JPEG_CODEC = "embodied.jpeg"

CHUNK_BYTES = 1 << 20
SHARD_BYTES = 32 << 20
JPEG_SHARD_BYTES = 64 << 20  # of pixels, about 8 MiB of JPEG
MOST_FRAMES_PER_CHUNK = 1024
MOST_CHUNKS_PER_SHARD = 64
MOST_FRAMES_PER_SHARD = 16384  # an append writes the last shard again
_MOST_CHUNK_BYTES = 2 << 30  # a header that asks for more memory is damaged


@dataclass(frozen=True)
class Layout:
    """Frames per chunk (compressed and checksummed together) and per shard (one file of chunks)."""

    chunk: int
    shard: int


def layout(spec: KeySpec) -> Layout:
    """The layout of new stores, in powers of two."""
    frame = max(1, np.dtype(spec.dtype).itemsize * prod(spec.shape))
    chunk = min(_power_of_two(CHUNK_BYTES // frame), MOST_FRAMES_PER_CHUNK)
    room = JPEG_SHARD_BYTES if spec.codec == JPEG else SHARD_BYTES
    shard = chunk * min(_power_of_two(room // (chunk * frame)), MOST_CHUNKS_PER_SHARD)
    return Layout(chunk, max(chunk, min(shard, MOST_FRAMES_PER_SHARD)))


def _power_of_two(limit: int) -> int:
    return 1 << max(0, limit.bit_length() - 1)


@dataclass(frozen=True)
class StoreHeader:
    """The unchanging part of a store."""

    keys: Mapping[str, KeySpec]
    layouts: Mapping[str, Layout]
    fps: float
    robot: str
    provenance: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """The zarr group's metadata."""
        keys = {
            key: {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "codec": spec.codec,
                "names": list(spec.names),
                "chunk": self.layouts[key].chunk,
                "shard": self.layouts[key].shard,
            }
            for key, spec in self.keys.items()
        }
        content = {"keys": keys, "fps": self.fps, "robot": self.robot, "provenance": dict(self.provenance)}
        head = {"format": FORMAT, "schema": SCHEMA, "checksum": hash_json(content)}
        return {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: {**head, **content}}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], location: str) -> StoreHeader:
        """The header in the attribute of a store with this schema.

        Raises:
            UserError: it is damaged.
        """
        content = checked_content(record, location)
        try:
            found = {key: _key_from_json(value) for key, value in content["keys"].items()}
            keys = checked_keys({key: spec for key, (spec, _) in found.items()})
            layouts = {key: place for key, (_, place) in found.items()}
            fps, robot, provenance = checked_fps(content["fps"]), content["robot"], content["provenance"]
        except (UsageError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise damaged_index(f"{location}/{FILE_NAME}", str(error) or type(error).__name__) from error
        if not isinstance(robot, str) or not isinstance(provenance, dict):
            raise damaged_index(f"{location}/{FILE_NAME}", "robot or provenance is of the wrong type")
        for key, place in layouts.items():
            check_layout(key, keys[key], place, location)
        return cls(keys, layouts, fps, robot, provenance)


def _key_from_json(record: Mapping[str, Any]) -> tuple[KeySpec, Layout]:
    spec = KeySpec(record["dtype"], tuple(record["shape"]), record["codec"], tuple(record["names"]))
    return spec, Layout(record["chunk"], record["shard"])


def check_layout(key: str, spec: KeySpec, place: Layout, location: str) -> None:
    """Refuse a layout that no store has, or that would take absurd memory to read.

    Raises:
        UserError: it is one.
    """
    sizes = (place.chunk, place.shard)
    sane = all(type(size) is int and size > 0 for size in sizes) and place.shard % place.chunk == 0
    frame = np.dtype(spec.dtype).itemsize * prod(spec.shape)
    if not sane or place.chunk * frame > max(_MOST_CHUNK_BYTES, CHUNK_BYTES) or place.shard // place.chunk > 1 << 16:
        raise damaged_index(f"{location}/{FILE_NAME}", f"key {key} has chunks of {str(sizes)[:80]} frames")


def load_record(storage: Storage) -> dict[str, Any]:
    """The attribute of the zarr group in `storage`, of any schema this package reads.

    Raises:
        UserError: there is no store, it is damaged, or a newer embodied wrote it.
    """
    try:
        data = storage.read(FILE_NAME)
    except KeyError:
        if not storage.exists():
            raise UserError(
                f"no episode store at {storage.location}: there is nothing; check the path, or make one by embodied "
                "data import or embodied collect"
            ) from None
        raise UserError(f"{storage.location} is not an episode store: it has no {FILE_NAME}") from None
    try:
        record = json.loads(data)["attributes"].get(ATTRIBUTE)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{storage.location}/{FILE_NAME} is damaged ({error}): restore it from a copy") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{storage.location} is a zarr group, but not an episode store written by embodied")
    schema = record.get("schema")
    if type(schema) is not int or not OLDEST_SCHEMA <= schema <= SCHEMA:
        raise UserError(
            f"the episode store {storage.location} has schema {str(schema)[:80]}, and this embodied reads up to "
            f"{SCHEMA}: upgrade embodied (pip install -U embodied-learning)"
        )
    return record


def checked_content(record: Mapping[str, Any], location: str) -> dict[str, Any]:
    """The record without its head, after comparing the checksum.

    Raises:
        UserError: it does not match.
    """
    content = {key: value for key, value in record.items() if key not in ("format", "schema", "checksum")}
    try:
        found = hash_json(content)
    except ValueError as error:  # not-a-number, which JSON readers let through
        raise damaged_index(f"{location}/{FILE_NAME}", str(error)) from error
    if found != record.get("checksum"):
        raise damaged_index(f"{location}/{FILE_NAME}", "it does not match its checksum")
    return content


def array_document(spec: KeySpec, place: Layout, frames: int) -> dict[str, Any]:
    """zarr's metadata of one key's array of `frames` frames."""
    kind = np.dtype(spec.dtype).kind
    endian = {"configuration": {"endian": "little"}}
    wide = np.dtype(spec.dtype).itemsize > 1
    packed = [{"name": "bytes", **(endian if wide else {})}]
    packed += [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}]
    pictures = [{"name": JPEG_CODEC}]
    sharding = {
        "chunk_shape": [place.chunk, *spec.shape],
        "codecs": [*(pictures if spec.codec == JPEG else packed), {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", **endian}, {"name": "crc32c"}],
        "index_location": "end",
    }
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [frames, *spec.shape],
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [place.shard, *spec.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": {"b": False, "f": 0.0}.get(kind, 0),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "storage_transformers": [],
    }
    return {**document, "attributes": {"checksum": hash_json(document)}}


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """JSON without blanks, so that any flipped bit breaks it or says something else."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def array_files(header: StoreHeader, frames: int) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of zarr's metadata of all arrays."""
    for key, spec in header.keys.items():
        yield f"{key}/{FILE_NAME}", to_bytes(array_document(spec, header.layouts[key], frames))
