"""JSON that others wrote: read without trust, and made fit for a store's provenance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UserError

_LARGEST_FILE = 256 << 20  # bytes; the spaces of a dataset of images alone take several megabytes
_LARGEST_ARRAY = 256  # elements: what is larger is data, not a remark


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object in `text`; `where` names the place in messages.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{where} is not JSON ({error}): the file is damaged, copy or download it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} must hold a JSON object, got {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: there is no such file, it cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for a file of metadata")
        return parse_object(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def plain_json(value: Any, *, depth: int = 12) -> Any:
    """`value` as standard JSON: NumPy becomes numbers and lists, nan and infinity None, the rest of it its text.

    Arrays of more than 256 elements and what lies deeper than `depth` become a short text.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= _LARGEST_ARRAY else f"{value.dtype} {list(value.shape)}"
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list | tuple) and depth == 0:
        return "..."
    if isinstance(value, dict):
        return {plain_json(str(key)): plain_json(item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, depth=depth - 1) for item in value]
    return plain_json(str(value))
