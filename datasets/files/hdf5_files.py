"""HDF5 files of others: every failure is one message, and nothing outside the file is ever opened.

Arrays are named by their path with dots for slashes. External links, virtual datasets and external storage, by which
an HDF5 file can name any other file of the machine, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import MissingExtraError, UserError
from embodied.datasets.episode_source import Block
from embodied.datasets.files.foreign_json import plain_json
from embodied.datasets.importers.foreign_keys import DTYPES, LARGEST_FRAME, frames_per_block
from embodied.datasets.store.episode_index import KeySpec

MAGIC = b"\x89HDF\r\n\x1a\n"
_LARGEST_ATTRIBUTE = 4096  # characters
_LARGEST_TREE = 4096  # objects below one episode: links can form circles
_DEEPEST = 8
# What h5py raises on damaged bytes depends on where they are; a damaged header can claim any size, hence MemoryError.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def import_h5py() -> Any:
    """The h5py module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "hdf5") from error
    return h5py


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


@contextmanager
def hdf5_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn what h5py raises into one message: `doing` reads like `"reading demo_3"`."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).strip("'\"").split()) or type(error).__name__
        if "unable to lock file" in reason:
            raise UserError(f"{path} is being written by another process: wait until it is done") from error
        raise UserError(
            f"{path}: {doing} failed ({reason}): the file is damaged or not whole, copy or download it again"
        ) from error


def open_hdf5(path: Path) -> Any:
    """The file, opened for reading.

    Raises:
        UserError: there is none, or it is no HDF5 file, or not whole.
        MissingExtraError: h5py is not installed.
    """
    h5py = import_h5py()
    if not path.is_file():
        raise UserError(f"no file at {path}")
    try:
        if not is_hdf5(path):
            raise UserError(f"{path} is not an HDF5 file")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    with hdf5_errors(path, "opening it"):
        return h5py.File(path, "r")


def child(group: Any, name: str) -> Any:
    """The group or dataset `name` of a group; None if there is none. Call it and what follows in `hdf5_errors`.

    Raises:
        UserError: it is a link to another file or place.
    """
    links, link = group.id.links, name.encode()
    if not links.exists(link):
        return None
    if links.get_info(link).type != import_h5py().h5l.TYPE_HARD:
        raise UserError(
            f"{group.file.filename}: {group.name}/{name} is a link to another place: copy what it stands for into the "
            "file (h5copy, or h5py's Group.copy with expand_external=True)"
        )
    return group[name]


def subgroup(group: Any, name: str) -> Any:
    """The group `name` of a group.

    Raises:
        UserError: there is none.
    """
    found = child(group, name)
    if not isinstance(found, import_h5py().Group):
        raise UserError(
            f"{group.file.filename} has no group {name} in {group.name}: it is of another format, or damaged"
        )
    return found


def tree(group: Any, *, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The datasets in a group and below it, by dotted name; `skip` names children to leave out.

    Raises:
        UserError: a link leads elsewhere, or there are too many or too deep groups.
    """
    h5py = import_h5py()
    found: dict[str, Any] = {}
    waiting = [("", group)]
    visited = 0
    while waiting:
        prefix, parent = waiting.pop()
        for name in parent:
            visited += 1
            if visited > _LARGEST_TREE or prefix.count(".") >= _DEEPEST:
                raise UserError(f"{group.file.filename}: {group.name} holds too many or too deep groups")
            name.encode()  # UnicodeEncodeError, a ValueError: damaged
            if not prefix and name in skip:
                continue
            item = child(parent, name)
            if isinstance(item, h5py.Dataset):
                if prefix + name in found:
                    raise UserError(f"{item.file.filename}: {item.name} and another array would both be {prefix}{name}")
                found[prefix + name] = item
            elif isinstance(item, h5py.Group):
                waiting.append((f"{prefix}{name}.", item))
    return dict(sorted(found.items()))


def attributes(item: Any, *, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The attributes of a group as JSON, without long ones."""
    found = {name: plain_json(item.attrs[name]) for name in item.attrs if name not in skip}
    return {name: value for name, value in found.items() if len(str(value)) <= _LARGEST_ATTRIBUTE}


def frame_spec(dataset: Any) -> KeySpec | str:
    """What a frame of a dataset [T, ...] is, or why it cannot be frames."""
    dtype, shape = dataset.dtype, dataset.shape
    if dtype.name not in DTYPES:
        return f"{dtype.name} is no number"
    if not shape or 0 in shape[1:]:
        return f"{list(shape or ())} has no frames"
    return KeySpec(dtype.name, tuple(int(size) for size in shape[1:]))


def require_stored(dataset: Any) -> None:
    """Check that all values of a dataset are in this file, in pieces that fit into memory.

    Raises:
        UserError: they are not.
    """
    where = f"{dataset.file.filename}: {dataset.name}"
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{where} has its values in other files: copy them into this one (h5repack)")
    for piece in (dataset.shape[1:], dataset.chunks or ()):
        if dataset.dtype.itemsize * prod(piece) > LARGEST_FRAME:
            raise UserError(f"{where} has frames or chunks of {list(piece)}, more than {LARGEST_FRAME:,} bytes")
    if dataset.chunks:
        wanted = prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() >= wanted
    else:
        complete = dataset.id.get_storage_size() >= dataset.dtype.itemsize * prod(dataset.shape)
    if not complete:
        raise UserError(f"{where} has frames that were never written: the file is not whole")


def read_blocks(path: Path, datasets: Mapping[str, Any], keys: Mapping[str, KeySpec], length: int) -> Iterator[Block]:
    """The first `length` frames of datasets [T, ...], in the byte order of this machine, about 32 MB at a time.

    Raises:
        UserError: the file is damaged.
    """
    step = frames_per_block(keys)
    for start in range(0, length, step):
        stop = min(start + step, length)
        with hdf5_errors(path, "reading frames"):
            block = {key: np.asarray(datasets[key][start:stop], dtype=spec.dtype) for key, spec in keys.items()}
        yield block
