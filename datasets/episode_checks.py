"""What an episode store accepts: every check raises `UsageError` with the argument, what is expected and what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.datasets.episode_index import KeySpec


def checked_keys(keys: Mapping[str, KeySpec]) -> dict[str, KeySpec]:
    """A copy of the keys, after checking names, dtypes and shapes."""
    if not keys:
        raise UsageError("keys must name at least one array")
    for key, spec in keys.items():
        if not key or "/" in key or key.startswith(("_", ".")) or key in ("c", "zarr.json"):
            raise UsageError(f"keys: {key!r} cannot be the name of an array")
        try:
            dtype = np.dtype(spec.dtype)
        except TypeError as error:
            raise UsageError(f"keys[{key!r}].dtype: {spec.dtype!r} is no NumPy dtype") from error
        if dtype.kind not in "biuf" or dtype.name != spec.dtype:
            raise UsageError(f"keys[{key!r}].dtype must be like uint8, float32 or bool, got {spec.dtype!r}")
        if any(size < 1 for size in spec.shape):
            raise UsageError(f"keys[{key!r}].shape must have sizes of at least 1, got {spec.shape}")
    return {key: KeySpec(spec.dtype, tuple(int(size) for size in spec.shape)) for key, spec in keys.items()}


def checked_fps(fps: float) -> float:
    """The rate, which must be positive and finite."""
    if not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    return float(fps)


def checked_json(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The provenance, which must be JSON-able."""
    try:
        hash_json(dict(provenance))
    except (TypeError, ValueError) as error:
        raise UsageError(f"provenance must be JSON-able: {error}") from error
    return provenance


def checked_arrays(arrays: Mapping[str, np.ndarray], keys: Mapping[str, KeySpec]) -> int:
    """The common length of the arrays, after checking them against the keys."""
    if arrays.keys() != keys.keys():
        missing, extra = sorted(keys.keys() - arrays.keys()), sorted(arrays.keys() - keys.keys())
        raise UsageError(f"arrays: missing {missing or 'nothing'}, not in the store {extra or 'nothing'}")
    lengths = {}
    for key, spec in keys.items():
        array = arrays[key]
        found = KeySpec(str(array.dtype), array.shape[1:])
        if array.ndim == 0 or found != spec:
            got = found.describe(len(array)) if array.ndim else f"{array.dtype} []"
            raise UsageError(f'arrays["{key}"]: expected {spec.describe()}, got {got}')
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            frame = int(np.argwhere(~np.isfinite(array))[0][0])
            raise UsageError(f'arrays["{key}"]: expected finite values, got nan or infinity at frame {frame}')
        lengths[key] = len(array)
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UsageError(f"arrays: expected one common length of at least 1, got {lengths}")
    return next(iter(lengths.values()))
