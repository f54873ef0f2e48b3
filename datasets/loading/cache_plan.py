"""What a cache of arrays holds and where it lies, known before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied.core.files import hash_json
from embodied.datasets.loading.cache_space import PROGRESS
from embodied.datasets.loading.npy_rows import ArraySpec, Rows

FORMAT = 1


@dataclass(frozen=True)
class CachePlan:
    """What a cache holds and where, before anything is on the disk.

    Args:
        root: the folder of all caches.
        identity: JSON-able; everything the rows depend on.
        outputs: what a row of each output is.
        num_rows: N, at least 1.
        file_bytes: about the largest size of a file; by default an output is one file, whatever its size.
    """

    root: Path
    identity: Mapping[str, Any]
    outputs: Mapping[str, ArraySpec]
    num_rows: int
    file_bytes: int | None = None

    @property
    def record(self) -> dict[str, Any]:
        """JSON-able: all of the above that names the folder."""
        record = {
            "format": FORMAT,
            "identity": dict(self.identity),
            "outputs": {name: [spec.dtype, list(spec.shape)] for name, spec in self.outputs.items()},
            "rows": self.num_rows,
        }
        several = {name: rows for name, rows in self._rows_per_file().items() if rows < self.num_rows}
        return {**record, "rows_per_file": several} if several else record

    @property
    def path(self) -> Path:
        return self.root / hash_json(self.record)[:32]

    @property
    def size_bytes(self) -> int:
        return self.num_rows * sum(spec.row_bytes for spec in self.outputs.values())

    def rows(self) -> dict[str, Rows]:
        """The files of each output, which need not exist."""
        per_file = self._rows_per_file()
        return {
            name: Rows(self.path, name, spec, num_rows=self.num_rows, rows_per_file=per_file[name])
            for name, spec in self.outputs.items()
        }

    def is_there(self) -> bool:
        """Whether the cache was completed; only opening it tells whether it is sound."""
        try:
            return json.loads((self.path / PROGRESS).read_bytes())["done"] == self.num_rows
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _rows_per_file(self) -> dict[str, int]:
        limit = self.file_bytes or max(1, self.size_bytes)
        return {
            name: min(self.num_rows, max(1, limit // max(1, spec.row_bytes))) for name, spec in self.outputs.items()
        }
