"""How the C library's allocator treats memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # the same in the environment
LARGEST = 2**30  # bytes; what is larger, a whole dataset say, goes back to the system when it is freed


def keep_freed_memory() -> bool:
    """Let this process use large freed blocks again, instead of asking the system for new ones.

    glibc gives a block of 32 MiB or more back to the system as soon as it is freed. What a training step computes
    between frames and loss is made of such blocks, and every step then pays for their pages again: in a conv net of
    256 frames nearly as much as for the arithmetic (`benchmarks/allocator.py`). No result depends on it. At most 2 GiB
    that are not in use stay with the process.

    Returns:
        Whether it is so now: false without glibc, whose settings these are, and where the environment has chosen
        (`CHOSEN`).
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    thresholds = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: 2**31 - 1}
    return all(library.mallopt(name, value) == 1 for name, value in thresholds.items())
