"""Frames of 4:2:0 video on their way into a store, which a JPEG can be made of without a detour over RGB."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Y uint8 [H, W], Cb and Cr uint8 [ceil(H / 2), ceil(W / 2)]: BT.601 in full range, as JPEG files (JFIF) have them.

Pixels of a row lie side by side, rows need not.
"""


class PlanarFrames(ABC):
    """uint8 frames [T, H, W, 3], T at least 1, that are kept as planes; `np.asarray` converts them to RGB.

    Attributes:
        shape: [T, H, W, 3].
        dtype: uint8.
    """

    shape: tuple[int, ...]
    dtype = np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def planes(self, number: int) -> Planes:
        """One frame, for a JPEG; any thread may ask, several at once too."""

    @abstractmethod
    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """The frames as RGB, in memory of their own."""


Frames = np.ndarray | PlanarFrames
"""Consecutive frames [T, ...] of one key."""
