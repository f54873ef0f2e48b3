"""bfloat16 in NumPy, which has no such type: the upper 16 bits of a float32, kept as uint16."""

from __future__ import annotations

import numpy as np

BFLOAT16 = "bfloat16"
_ROUNDING = 0x7FFF  # a little less than half a unit in the last place that stays


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 [...] to bits uint16 [...], rounded to nearest, ties to even, as torch does; nan stays nan."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(np.shape(values))
    rounded = ((bits + (((bits >> 16) & 1) + _ROUNDING)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Bits uint16 [...] to float32 [...], exactly."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)
