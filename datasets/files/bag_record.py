"""What an exported ROS bag says of its episode, so that importing it gives back what was exported.

It is one JSON text under the name `embodied` in the bag's custom data, where any ROS tool shows or ignores it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np

from embodied.datasets.store.episode_index import KeySpec

NAME = "embodied"
_VERSION = 1


@dataclass(frozen=True)
class KeyRecord:
    """Where a key is: a topic, a field of its message (empty for the whole), and what the key was."""

    topic: str
    field: str
    spec: KeySpec


@dataclass(frozen=True, kw_only=True)
class BagRecord:
    """One exported episode; the fields are those of a store and its `EpisodeInfo`."""

    fps: float
    robot: str
    task: str
    seed: int | None
    success: bool | None
    origin: str
    notes: Mapping[str, Any]
    keys: Mapping[str, KeyRecord] = field(default_factory=dict)

    def to_text(self) -> str:
        """The JSON text."""
        return json.dumps({"version": _VERSION, **asdict(self)}, allow_nan=False)


def read_record(custom: Mapping[str, str]) -> BagRecord | None:
    """The record in a bag's custom data; None where there is none, or one of a newer version.

    Raises:
        ValueError: it is damaged.
    """
    if NAME not in custom:
        return None
    try:
        values = json.loads(custom[NAME])
        if values.pop("version") != _VERSION:
            return None
        keys = {key: _read_key(entry) for key, entry in values.pop("keys").items()}
        record = BagRecord(**values, keys=keys)
        well_formed = (
            isinstance(record.fps, int | float)
            and all(isinstance(text, str) for text in (record.robot, record.task, record.origin))
            and (record.seed is None or isinstance(record.seed, int))
            and (record.success is None or isinstance(record.success, bool))
            and isinstance(record.notes, dict)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its record {NAME!r} cannot be read ({type(error).__name__})") from error
    if not well_formed:
        raise ValueError(f"its record {NAME!r} has fields of other types than expected")
    return record


def _read_key(entry: Mapping[str, Any]) -> KeyRecord:
    spec = entry["spec"]
    shape = tuple(int(size) for size in spec["shape"])
    if np.dtype(spec["dtype"]).name != spec["dtype"] or prod(shape) < 1:
        raise ValueError(f"{spec['dtype']} {shape}")
    return KeyRecord(
        str(entry["topic"]),
        str(entry["field"]),
        KeySpec(spec["dtype"], shape, "jpeg" if spec["codec"] == "jpeg" else "zstd", tuple(map(str, spec["names"]))),
    )
