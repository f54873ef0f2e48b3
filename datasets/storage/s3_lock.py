"""The lock of an episode store in an object store: one object that is only ever replaced conditionally.

The holder renews it every quarter of a lease; a lock that nobody renewed for a whole lease is abandoned, and whoever
waits may replace it. No two machines' clocks are compared: how old a lock is when a waiter first sees it is the
difference of two times of the server, and from then on the waiter counts by its own stopwatch. What is left to trust:
a second takes about as long everywhere, and a request that a frozen holder sent before its lease ran out does not
arrive after it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from embodied.core.errors import UserError
from embodied.datasets.storage.s3_client import import_obstore, s3_errors

LOCK = ".lock"
CLOCK = ".clock"
LEASE_S = 60.0
_RESOLUTION_S = 1.0  # of a server's times
_POLL_S = 0.05
_POLL_MOST_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """The lock as the server shows it."""

    body: bytes
    tag: str | None
    modified: datetime

    @property
    def record(self) -> dict[str, Any]:
        try:
            record = json.loads(self.body)
        except ValueError:
            record = None
        return record if isinstance(record, dict) else {}

    @property
    def held(self) -> bool:
        return self.record.get("held") is not False  # somebody else's object in this place counts as a lock

    def holder(self) -> str:
        record = self.record
        if "host" not in record or "pid" not in record:
            return "another writer"
        return f"process {record['pid']} on {record['host']}"


class ObjectLock:
    """Held by one `ObjectLock` at a time, in whatever process and on whatever machine.

    Args:
        store: the `obstore` store that has the lock.
        location: of the episode store, for messages.
        lease_s: after so many seconds without renewal the lock is free.
        name: of the object that is the lock.
    """

    def __init__(self, store: Any, location: str, *, lease_s: float = LEASE_S, name: str = LOCK) -> None:
        self.location = location
        self.name = name
        self.lease_s = lease_s
        self._store = store
        self._who = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._renewals = 0
        self._body = b""
        self._tag: str | None = None
        self._until = 0.0
        self._watched: tuple[str | None, float] | None = None  # a foreign lock, and when it was last renewed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, *, wait_s: float) -> None:
        """Take the lock, waiting for `wait_s` seconds at most.

        Raises:
            UserError: it is still held, with the holder; or the server fails.
        """
        end, pause_s = _now() + wait_s, _POLL_S
        while True:
            seen = self._look()
            if self._take(seen):
                break
            if _now() >= end:
                raise UserError(
                    f"{seen.holder() if seen else 'another writer'} is writing to {self.location}: wait until it is "
                    f"done, or stop it (waited {wait_s:g} s). If it was killed, its lock ends {self.lease_s:g} s "
                    f"after its last sign of life; to end it now, delete {self.location}/{self.name}"
                )
            time.sleep(min(pause_s, max(0.0, end - _now())))
            pause_s = min(2 * pause_s, _POLL_MOST_S)
        self._thread = threading.Thread(target=self._renew, name="episode store lock", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Check that the lock is still ours; to be called before each write.

        Raises:
            UserError: it could not be renewed in time, so somebody else may hold it.
        """
        if _now() >= self._until:
            raise UserError(
                f"lost the lock of {self.location}: it was deleted, or could not be renewed for {self.lease_s:g} s, so "
                "another writer may be at work; nothing more was written"
            )

    def require_conditions(self) -> None:
        """Check, while the lock is held, that the server replaces conditionally: if not, it lets everybody in.

        Raises:
            UserError: it does not.
        """
        obstore = import_obstore()
        for mode in ("create", {"e_tag": '"0"'}):
            with s3_errors(self.location, "trying its lock"):
                try:
                    obstore.put(self._store, self.name, self._body, mode=mode)  # must fail; harmless if it does not
                except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                    continue
            raise UserError(
                f"{self.location}: the server ignores conditional writes (If-None-Match, If-Match), without which two "
                "writers cannot be kept apart: write to a local folder and copy it there"
            )

    def release(self) -> None:
        """Let others have the lock at once."""
        if self._thread is None or os.getpid() != self._who["pid"]:  # a forked child owns nothing
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        if _now() >= self._until:
            return
        try:
            self._put({"e_tag": self._tag}, held=False)
        except UserError as error:  # raised here it would hide why the block ended
            _log.warning("%s; others can write after %g s", error, self.lease_s)
        self._until = 0.0

    def _take(self, seen: _Seen | None) -> bool:
        if seen is None:
            return self._put("create", held=True)
        if seen.held and not self._is_abandoned(seen):
            return False
        return self._put({"e_tag": seen.tag}, held=True)

    def _look(self) -> _Seen | None:
        try:
            with s3_errors(self.location, "looking at its lock"):
                found = import_obstore().get(self._store, self.name)
                return _Seen(bytes(found.bytes()), found.meta["e_tag"], found.meta["last_modified"])
        except FileNotFoundError:
            return None

    def _put(self, mode: Any, *, held: bool) -> bool:
        """Write the lock unless somebody else did; the tag of an object is a hash, so each body is another one."""
        obstore = import_obstore()
        self._renewals += 1
        body = self._body = json.dumps({**self._who, "renewals": self._renewals, "held": held}).encode()
        start = _now()
        with s3_errors(self.location, "writing its lock"):
            try:
                self._tag = obstore.put(self._store, self.name, body, mode=mode)["e_tag"]
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                seen = self._look()
                if seen is None or seen.body != body:
                    return False
                self._tag = seen.tag  # the first try went through, and only its answer was lost
        self._until = start + self.lease_s
        return True

    def _is_abandoned(self, seen: _Seen) -> bool:
        if self._watched is None:
            age_s = self._age_s(seen)
            if age_s is None:
                return False
            self._watched = (seen.tag, _now() - age_s)
        elif self._watched[0] != seen.tag:
            self._watched = (seen.tag, _now())
        return _now() - self._watched[1] > self.lease_s + _RESOLUTION_S

    def _age_s(self, seen: _Seen) -> float | None:
        # The server tells its time only as that of an object: write one.
        obstore = import_obstore()
        try:
            with s3_errors(self.location, "asking for the time"):
                obstore.put(self._store, CLOCK, b"")
                server = obstore.head(self._store, CLOCK)["last_modified"]
                obstore.delete(self._store, CLOCK)
        except FileNotFoundError:  # another waiter was faster with deleting
            return None
        return max(0.0, (server - seen.modified).total_seconds())

    def _renew(self) -> None:
        while not self._stop.wait(self.lease_s / 4):
            try:
                if not self._put({"e_tag": self._tag}, held=True):
                    self._until = 0.0
                    return
            except UserError as error:  # the lease may outlast it
                _log.warning("%s; trying again", error)


def _now() -> float:
    # Goes on while a machine sleeps, where there is such a clock.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
