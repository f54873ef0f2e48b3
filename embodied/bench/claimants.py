"""Whoever claims items of a work list: its name, and whether it is still there."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

LEASE_S = 60.0  # after so long without a heartbeat a claimant on another host is taken for dead


def process_name() -> str:
    """`<host>/<process id>/<when it started>`: a number that is used again is not taken for the same process."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def is_gone(owner: str | None, beat: float | None) -> bool:
    """Whether a claimant has ended, on this host, or has been silent for too long, on another; `beat`: its last."""
    if owner is None or beat is None:
        return True
    host, process, started = owner.rsplit("/", 2)
    if host == socket.gethostname() and process.isdecimal():
        return _started(int(process)) != started
    return time.time() - beat > LEASE_S


def _started(process: int) -> str:
    """When a process started, in the kernel's ticks; empty where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    values = text.rpartition(")")[2].split()
    return "" if values[0] in "ZX" else values[19]
