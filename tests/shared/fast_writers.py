"""A process that writes to a seqlock without pause."""

import mmap

from embodied.real_robot.control.seqlock import Seqlock

CAPACITY = 4096


def memory_at(path):
    """The memory of a file."""
    with open(path, "r+b") as handle:
        return memoryview(mmap.mmap(handle.fileno(), Seqlock.size(CAPACITY)))


def write_for_ever(path):
    """Each value is one byte repeated, of a length that changes with it, so that a torn value is seen at once."""
    lock = Seqlock(memory_at(path), CAPACITY)
    number = 0
    while True:
        byte = number % 251
        lock.write(bytes([byte]) * (CAPACITY - byte))
        number += 1
