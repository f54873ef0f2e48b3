"""The C library keeps what is freed: gigabytes, after tests of many simulators."""

import ctypes


def give_memory_back():
    """Have the C library return what was freed. Simulations are, without a collection of cycles, which takes longer."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
