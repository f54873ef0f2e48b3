"""Real time that is granted, refused and given back; deadlines; no torch."""

import gc
import logging
import os
import subprocess
import sys

import pytest

from embodied.real_robot.control.pacing import Lateness, SystemPacer, next_deadline
from embodied.real_robot.control.realtime import RealTime, real_time

MODULES = ("control.loop", "control.mailbox", "safety.chain", "safety.frozen_images", "description.reading")


@pytest.mark.parametrize("module", MODULES)
def test_the_command_process_does_not_import_torch(module):
    code = f"import sys, embodied.real_robot.{module}; sys.exit(any(m.split('.')[0] == 'torch' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_not_granted_is_said_and_done_without(monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    before = os.sched_getscheduler(0)
    with caplog.at_level(logging.WARNING), real_time(RealTime(priority=50, cpu=0)) as refused:
        assert len(refused) == 2
    assert "SCHED_FIFO 50 was not granted" in caplog.text and "CPU 0 was not granted" in caplog.text
    assert os.sched_getscheduler(0) == before


def test_all_is_as_before_after_the_block():
    before = os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled()
    with real_time(RealTime(priority=1, cpu=min(before[1]), freeze_garbage=True)) as refused:
        assert not gc.isenabled()
        if not refused:
            assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled()) == before
    assert gc.get_freeze_count() == 0


def test_a_cycle_begins_at_its_deadline_never_before():
    pacer = SystemPacer()
    for _ in range(5):
        deadline = pacer.wait(0) + 2_000_000
        assert pacer.wait(deadline) >= deadline


@pytest.mark.parametrize(("now", "expected"), [(0, 10), (9, 10), (10, 20), (19, 20), (35, 40), (40, 50)])
def test_missed_cycles_are_left_out(now, expected):
    assert next_deadline(0, now, 10) == expected


def test_lateness_in_percentiles_of_the_recent_past():
    lateness = Lateness()
    assert lateness.percentiles(50) == [0]
    for late in [9_000_000] + [1_000_000] * 4096:
        lateness.add(late)
    assert lateness.percentiles(50, 100) == [1, 1] and lateness.longest_ns == 9_000_000 and lateness.count == 4097
