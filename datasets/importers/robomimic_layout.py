"""What is where in robomimic's HDF5 files, beside the frames: names of demonstrations, filter keys, JSON attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.core.errors import UserError, unknown_name
from embodied.datasets.files.foreign_json import parse_object
from embodied.datasets.files.hdf5_files import child, require_stored, subgroup, tree

_NAME = re.compile(r"[A-Za-z]+_([0-9]{1,18})")
_LARGEST_MASK = 1 << 22  # demonstrations in a filter key


def is_demonstration(name: str) -> bool:
    """Whether a child of `data` is one: `demo_17`."""
    return _NAME.fullmatch(name) is not None


def demonstrations(file: Any, masks: Mapping[str, frozenset[str]], filter_key: str | None) -> list[str]:
    """The names of the demonstrations in the order robomimic gives them: by number.

    Args:
        file: opened with h5py.
        masks: from `filter_keys`.
        filter_key: only those it lists.

    Raises:
        UsageError: no such filter key.
        UserError: there are no demonstrations, or not all that the filter key lists.
    """
    names = sorted(filter(is_demonstration, subgroup(file, "data")), key=lambda name: (int(name.split("_")[1]), name))
    if filter_key is not None:
        if filter_key not in masks:
            raise unknown_name(f"filter key of {file.filename}", filter_key, masks)
        absent = sorted(masks[filter_key] - set(names))
        if absent:
            raise UserError(f"{file.filename}: mask/{filter_key} lists {absent[0]}, which is not in the file")
        names = [name for name in names if name in masks[filter_key]]
    if not names:
        raise UserError(f"{file.filename} holds no demonstrations (data/demo_0, ...): it is empty or of another format")
    return names


def filter_keys(file: Any) -> dict[str, frozenset[str]]:
    """The names of the demonstrations that each filter key (`mask/<name>`) lists."""
    if child(file, "mask") is None:
        return {}
    masks = {}
    for name, dataset in tree(subgroup(file, "mask")).items():
        require_stored(dataset)
        if dataset.size > _LARGEST_MASK:
            raise UserError(f"{file.filename}: mask/{name} has {dataset.size:,} entries, too many to be true")
        entries = np.atleast_1d(dataset[()]).ravel().tolist()
        masks[name] = frozenset(e.decode() if isinstance(e, bytes) else str(e) for e in entries)
    return masks


def json_attribute(group: Any, name: str) -> dict[str, Any]:
    """The JSON object in an attribute; empty if there is none."""
    if name not in group.attrs:
        return {}
    return parse_object(group.attrs[name], f"{group.file.filename}: {name} of {group.name}")
