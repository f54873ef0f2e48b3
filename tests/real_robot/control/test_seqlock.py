"""Values in shared memory are whole or not there, with a writer that is fast, killed, or replaced."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from fast_writers import CAPACITY, memory_at, write_for_ever

from embodied.real_robot.control.seqlock import Seqlock


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "memory"
    place.write_bytes(bytes(Seqlock.size(CAPACITY)))
    return place


def running(path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=write_for_ever, args=(path,), daemon=True)
    process.start()
    return process


def test_what_is_written_is_read():
    lock = Seqlock(memoryview(bytearray(Seqlock.size(CAPACITY))), CAPACITY)
    assert lock.read() is None
    for number, data in enumerate([b"one", b"", b"x" * CAPACITY, b"two"], 1):
        assert lock.write(data) == number
        assert lock.read() == (number, data)
    with pytest.raises(ValueError, match="does not fit"):
        lock.write(b"x" * (CAPACITY + 1))


def test_no_value_is_torn_or_goes_back_while_another_process_writes(path):
    process = running(path)
    lock = Seqlock(memory_at(path), CAPACITY)
    seen, last, end = 0, 0, time.monotonic() + 60
    try:
        while seen < 3000 and time.monotonic() < end:
            value = lock.read()
            if value is None:
                continue
            assert value.number >= last
            byte = value.data[0]
            assert value.data == bytes([byte]) * (CAPACITY - byte)
            seen += value.number != last
            last = value.number
    finally:
        process.kill()
        process.join()
    assert seen == 3000


def test_a_writer_that_is_killed_leaves_a_value_and_another_goes_on(path):
    lock = Seqlock(memory_at(path), CAPACITY)
    for _ in range(3):
        process = running(path)
        start = lock.read()
        end = time.monotonic() + 60
        while lock.read() == start and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        value = lock.read()
        assert value is not None and set(value.data) == {value.data[0]}
    number = lock.write(b"after")
    assert lock.read() == (number, b"after") and number > value.number


@pytest.mark.parametrize("seed", range(3))
def test_damaged_memory_is_never_taken_for_a_value(seed):
    memory = bytearray(Seqlock.size(256))
    lock = Seqlock(memoryview(memory), 256)
    lock.write(b"first" * 10)
    lock.write(b"second" * 10)
    whole, random = bytes(memory), np.random.default_rng(seed)
    for _ in range(500):
        memory[:] = whole
        for place in random.integers(0, len(memory), 3):
            memory[place] ^= int(random.integers(1, 256))
        value = lock.read(tries=1)
        assert value is None or value.data in (b"first" * 10, b"second" * 10)


def test_a_value_that_is_being_written_gives_the_one_before():
    memory = bytearray(Seqlock.size(64))
    lock = Seqlock(memoryview(memory), 64)
    for data in (b"one", b"two", b"three"):
        lock.write(data)
    memory[0] |= 1  # the counter of even numbers: whoever wrote the fourth value died
    assert lock.read() == (3, b"three")
    assert Seqlock(memoryview(memory), 64).write(b"four") == 4
    assert lock.read() == (4, b"four")
