"""Simulators hold each other in cycles, and Python, which sees little of what they take, leaves them lying for long."""

import ctypes
import gc


def give_memory_back():
    """Collect cycles, and have the C library return what that freed: gigabytes, after tests of many simulators."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
