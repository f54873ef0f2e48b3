"""Some rows of an array or a memory map, read only when asked for. Legend: F rows there, N rows picked."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.datasets.loading.npy_rows import Rows


class PickedRows:
    """Rows [N, ...] of a larger array, or of rows that were picked already, which are not copied.

    Args:
        rows: [F, ...].
        numbers: of the rows, int64 [N].
    """

    def __init__(self, rows: np.ndarray | Rows | PickedRows, numbers: np.ndarray) -> None:
        self._rows, self._numbers = rows, numbers
        self.dtype: np.dtype[Any] = rows.dtype
        self.shape: tuple[int, ...] = (len(numbers), *rows.shape[1:])

    def __len__(self) -> int:
        """N."""
        return len(self._numbers)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """As of an array, in memory of its own."""
        found: np.ndarray = self._rows[self._numbers[index]]
        return found
