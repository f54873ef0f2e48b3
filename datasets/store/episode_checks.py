"""What an episode store accepts: every check raises `UsageError` with the argument, what is expected and what came."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import hash_json
from embodied.datasets.store.episode_index import JPEG, ZSTD, KeySpec, may_lack_values
from embodied.datasets.store.planar_frames import Frames

_LARGEST_JPEG_SIDE = 65500  # what libjpeg writes
_LARGEST_FRAME_BYTES = 1 << 30


def checked_keys(keys: Mapping[str, KeySpec]) -> dict[str, KeySpec]:
    """A copy of the keys, after checking names, dtypes, shapes and codecs."""
    if not keys:
        raise UsageError("keys must name at least one array")
    return {key: _checked_key(key, spec) for key, spec in keys.items()}


def _checked_key(key: str, spec: KeySpec) -> KeySpec:
    if not key or "/" in key or "\\" in key or key.startswith(("_", ".")) or key in ("c", "zarr.json"):
        raise UsageError(f"keys: {key!r} cannot be the name of an array")
    try:
        dtype = np.dtype(str(spec.dtype))
    except (TypeError, ValueError, SyntaxError) as error:
        raise UsageError(f"keys[{key!r}].dtype: {spec.dtype!r} is no NumPy dtype") from error
    if dtype.kind not in "biuf" or dtype.name != spec.dtype or dtype.itemsize > 8:
        raise UsageError(f"keys[{key!r}].dtype must be like uint8, float32 or bool, got {spec.dtype!r}")
    if any(size < 1 for size in spec.shape):
        raise UsageError(f"keys[{key!r}].shape must have sizes of at least 1, got {spec.shape}")
    shape = tuple(int(size) for size in spec.shape)
    if dtype.itemsize * prod(shape) > _LARGEST_FRAME_BYTES or len(shape) > 16:
        raise UsageError(f"keys[{key!r}].shape must give frames of at most 1 GiB, got {shape}")
    if spec.codec not in (ZSTD, JPEG):
        raise unknown_name(f"keys[{key!r}].codec", str(spec.codec), (ZSTD, JPEG))
    if spec.codec == JPEG and not _fits_jpeg(spec.dtype, shape):
        raise UsageError(f"keys[{key!r}].codec: jpeg needs uint8 [T, H, W, 3], got {spec.describe()}: use codec zstd")
    names = tuple(str(name) for name in spec.names)
    if names and len(names) != prod(shape):
        raise UsageError(f"keys[{key!r}].names: expected {prod(shape)} names or none, got {len(names)}")
    return KeySpec(spec.dtype, shape, spec.codec, names)


def _fits_jpeg(dtype: str, shape: tuple[int, ...]) -> bool:
    return dtype == "uint8" and len(shape) == 3 and shape[2] == 3 and max(shape[:2]) <= _LARGEST_JPEG_SIDE


def checked_fps(fps: float) -> float:
    """The rate, which must be positive and finite."""
    if not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    return float(fps)


def checked_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the mapping, which must be JSON-able; `name` is the argument's."""
    try:
        copy = dict(value)
        hash_json(copy)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be JSON-able: {error}") from error
    return copy


def checked_seed(seed: int | None) -> int | None:
    """The seed as a Python integer."""
    if seed is None:
        return None
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise UsageError(f"seed must be an integer or None, got {seed!r}")
    return int(seed)


def checked_success(success: bool | None) -> bool | None:
    """The outcome as a Python bool."""
    if success is None:
        return None
    if not isinstance(success, (bool, np.bool_)):
        raise UsageError(f"success must be True, False or None, got {success!r}")
    return bool(success)


def checked_arrays(arrays: Mapping[str, Frames], keys: Mapping[str, KeySpec], *, first: int = 0) -> int:
    """The common length of the arrays, after checking them against the keys; they start at frame `first`."""
    if arrays.keys() != keys.keys():
        missing, extra = sorted(keys.keys() - arrays.keys()), sorted(arrays.keys() - keys.keys())
        raise UsageError(f"arrays: missing {missing or 'nothing'}, not in the store {extra or 'nothing'}")
    lengths = {}
    for key, spec in keys.items():
        array = arrays[key]
        found = KeySpec(str(array.dtype), array.shape[1:])
        if array.ndim == 0 or (found.dtype, found.shape) != (spec.dtype, spec.shape):
            got = found.describe(len(array)) if array.ndim else f"{array.dtype} []"
            raise UsageError(f'arrays["{key}"]: expected {spec.describe()}, got {got}')
        if array.dtype.kind == "f" and not may_lack_values(key) and not np.isfinite(values := np.asarray(array)).all():
            frame = first + int(np.argwhere(~np.isfinite(values))[0][0])
            raise UsageError(f'arrays["{key}"]: expected finite values, got nan or infinity at frame {frame}')
        lengths[key] = len(array)
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UsageError(f"arrays: expected one common length of at least 1, got {lengths}")
    return next(iter(lengths.values()))
