"""Asking the system for punctuality, and going on without what it does not grant."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_logger = logging.getLogger(__name__)
_MCL_CURRENT, _MCL_FUTURE = 1, 2


@dataclass(frozen=True, kw_only=True)
class RealTime:
    """What to ask for.

    Attributes:
        priority: of SCHED_FIFO, 1 .. 99; None = as every other program.
        cpu: to stay on; None = any.
        lock_memory: keep all pages in memory.
        freeze_garbage: no garbage collection while the loop runs; what it makes is freed by reference counts.
    """

    priority: int | None = None
    cpu: int | None = None
    lock_memory: bool = False
    freeze_garbage: bool = True


@contextmanager
def real_time(wanted: RealTime) -> Iterator[tuple[str, ...]]:
    """Within the block this thread has what was granted; yields what was not, which is also logged as a warning.

    Children do not inherit the priority (SCHED_RESET_ON_FORK); after the block all is as before, but for locked pages
    of this process, which are unlocked whoever locked them.
    """
    refused: list[str] = []
    collecting = gc.isenabled()
    if wanted.freeze_garbage:
        gc.collect()
        gc.freeze()
        gc.disable()
    locked = wanted.lock_memory and _lock_memory(refused)
    cpus = _pin(wanted.cpu, refused) if wanted.cpu is not None else None
    # Last: what is started before must not inherit it, and nothing may starve while this is set up.
    before = _set_fifo(wanted.priority, refused) if wanted.priority is not None else None
    for what in refused:
        _logger.warning("real time: %s; going on without", what)
    try:
        yield tuple(refused)
    finally:
        if before is not None:
            _restore(*before)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        if locked:
            ctypes.CDLL(None).munlockall()
        if wanted.freeze_garbage:
            gc.unfreeze()
            if collecting:
                gc.enable()


def _pin(cpu: int, refused: list[str]) -> set[int] | None:
    """The CPUs before, or None where it was refused."""
    if sys.platform != "linux":
        refused.append("pinning to a CPU is Linux only")
        return None
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        refused.append(f"CPU {cpu} was not granted ({error})")
        return None
    return before


def _set_fifo(priority: int, refused: list[str]) -> tuple[int, int] | None:
    """Policy and priority before, or None where it was refused."""
    if sys.platform != "linux":
        refused.append("SCHED_FIFO is Linux only")
        return None
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, ValueError) as error:
        refused.append(f"SCHED_FIFO {priority} was not granted ({error}): allow rtprio in limits.conf or CAP_SYS_NICE")
        return None
    return before


def _restore(policy: int, priority: int) -> None:
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:  # only the privileged may let children inherit again
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))


def _lock_memory(refused: list[str]) -> bool:
    if sys.platform != "linux":
        refused.append("mlockall is Linux only")
        return False
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE):
        reason = os.strerror(ctypes.get_errno())
        refused.append(f"memory was not locked ({reason}): allow memlock in limits.conf or CAP_IPC_LOCK")
        return False
    return True
