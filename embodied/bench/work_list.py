"""The work list of a benchmark: what is to be done, by whom, and what has become of it.

The list is a SQLite file on a disk of this host; several processes may work from it at once. Whoever claims an item
beats its heart while working; an item whose claimant is gone is taken up again. Results are one JSON file per cell,
written whole or not at all: they, and not the list, are the record, and a lost list is made again from them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embodied.bench.claimants import is_gone, process_name
from embodied.bench.result_files import RESULTS
from embodied.core.errors import UserError

LIST = "work.sqlite"
FAILURES = 2  # one retry
LOSSES = 3  # workers that an item may take with it
BUSY_S = 30.0  # how long others are waited for
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
CELL, COLLECT = "cell", "collect"  # kinds of items

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  key TEXT PRIMARY KEY, position INTEGER NOT NULL, kind TEXT NOT NULL, needs TEXT, encoder TEXT NOT NULL,
  store TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'waiting', owner TEXT, beat REAL,
  failures INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
  seconds REAL NOT NULL DEFAULT 0, team TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_status ON items (status, position);
"""
# Demonstrations before what learns from them; then what shares encoder and store with the item before it, whose
# features and simulators are at hand; then an encoder that nobody else is at, since two would encode the same.
CLAIM = """
SELECT key FROM items AS item
WHERE status = 'waiting' AND key IN (SELECT key FROM wanted)
  AND (needs IS NULL OR (SELECT status FROM items WHERE key = item.needs) = 'done')
ORDER BY kind != 'collect', NOT (encoder = :encoder AND store = :store), encoder != :encoder,
  encoder IN (SELECT encoder FROM items WHERE status = 'running'), position
LIMIT 1
"""
# What can be done together with an item; what a worker was lost with is done alone, so that it takes nothing with it.
CLAIM_BESIDE = """
SELECT key FROM items AS item
WHERE status = 'waiting' AND key IN (SELECT key FROM wanted) AND team = :team AND team != '' AND losses = 0
  AND (needs IS NULL OR (SELECT status FROM items WHERE key = item.needs) = 'done')
ORDER BY position LIMIT 1
"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something to be done.

    Args:
        key: unique; of a cell its own.
        kind: `cell` or `collect`.
        needs: key of the item that has to be done before.
        encoder, store: what items next to each other should have in common.
        failures: how often it has failed.
        losses: how many workers were lost with it.
        team: name that it shares with what a worker may do together with it; empty: it is done alone.
    """

    key: str
    kind: str = CELL
    needs: str | None = None
    encoder: str = ""
    store: str = ""
    failures: int = 0
    losses: int = 0
    team: str = ""


class WorkList:
    """Items and their states; a context manager.

    Args:
        folder: of the benchmark.
        owner: who claims; None: this process.
    """

    def __init__(self, folder: Path, *, owner: str | None = None) -> None:
        self.owner = owner or process_name()
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / LIST, timeout=BUSY_S, isolation_level=None)
        try:
            self._log_ahead()
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(SCHEMA)
            self._add_what_older_lists_lack()
            self._connection.execute("CREATE TEMP TABLE wanted (key TEXT PRIMARY KEY)")  # this process's own
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if is_busy(error):
                raise UserError(
                    f"another program has held {folder / LIST} for {BUSY_S:g} s: end it, or try again when it is done"
                ) from error
            raise UserError(
                f"{folder / LIST} cannot be read ({error}): delete it; the results are in {folder / RESULTS}"
            ) from error

    def __enter__(self) -> WorkList:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def _log_ahead(self) -> None:
        """Write-ahead logging, waiting for another process that is about to set it: SQLite itself may not."""
        until = time.monotonic() + BUSY_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _add_what_older_lists_lack(self) -> None:
        with self._writing() as connection:
            if "team" not in {row[1] for row in connection.execute("PRAGMA table_info(items)")}:
                connection.execute("ALTER TABLE items ADD COLUMN team TEXT NOT NULL DEFAULT ''")

    def add(self, items: Sequence[Item]) -> None:
        """Add the items that are not there yet; only those that this process has added are claimed by it.

        Of those that are there, what they need is brought up to date: after `bench.json` was deleted and the suite
        changed, cells would wait for demonstrations that nobody collects.
        """
        with self._writing() as connection:
            (after,) = connection.execute("SELECT COALESCE(MAX(position), 0) FROM items").fetchone()
            connection.executemany(
                "INSERT INTO items (key, position, kind, needs, encoder, store, team) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET needs = excluded.needs, encoder = excluded.encoder, "
                "store = excluded.store, team = excluded.team",
                [
                    (item.key, after + number, item.kind, item.needs, item.encoder, item.store, item.team)
                    for number, item in enumerate(items, start=1)
                ],
            )
            connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(item.key,) for item in items])

    def claim(self, *, after: Item | None = None, beside: Item | None = None) -> Item | None:
        """Take an item whose need is met; None when there is none at present.

        Args:
            after: what the worker did before, to go on with what is like it.
            beside: take only what may be done together with this one.
        """
        preference = {"encoder": after.encoder if after else "", "store": after.store if after else ""}
        statement, values = (CLAIM, preference) if beside is None else (CLAIM_BESIDE, {"team": beside.team})
        with self._writing() as connection:
            row = connection.execute(statement, values).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE items SET status = 'running', owner = ?, beat = ? WHERE key = ?",
                (self.owner, time.time(), row[0]),
            )
            return self._item(connection, row[0])

    def finish(self, key: str, seconds: float) -> None:
        """An item is done."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE items SET status = 'done', owner = NULL, reason = '', seconds = ? WHERE key = ?", (seconds, key)
            )

    def fail(self, key: str, reason: str, *, lost: bool = False) -> list[str]:
        """An item went wrong, or its worker was lost: it waits again, or has failed for good.

        Returns:
            What has failed for good now: the item, and all that needed it.
        """
        counter, limit = ("losses", LOSSES) if lost else ("failures", FAILURES)
        with self._writing() as connection:
            connection.execute(f"UPDATE items SET {counter} = {counter} + 1, reason = ? WHERE key = ?", (reason, key))
            (count,) = connection.execute(f"SELECT {counter} FROM items WHERE key = ?", (key,)).fetchone()
            if count < limit:
                connection.execute("UPDATE items SET status = 'waiting', owner = NULL WHERE key = ?", (key,))
                return []
            connection.execute("UPDATE items SET status = 'failed', owner = NULL WHERE key = ?", (key,))
            return [key, *self._fail_dependents(connection, key, reason)]

    def _fail_dependents(self, connection: sqlite3.Connection, key: str, reason: str) -> list[str]:
        rows = connection.execute("SELECT key FROM items WHERE needs = ? AND status != 'done'", (key,)).fetchall()
        found = []
        for (name,) in rows:
            connection.execute("UPDATE items SET status = 'failed', reason = ? WHERE key = ?", (reason, name))
            found += [name, *self._fail_dependents(connection, name, reason)]
        return found

    def give_back(self, keys: Iterable[str]) -> None:
        """Items that were claimed and not finished, for no fault of theirs: they wait again."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE items SET status = 'waiting', owner = NULL WHERE key = ? AND status = 'running'",
                [(key,) for key in keys],
            )

    def beat(self) -> None:
        """Say that the owner of this list is alive."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE items SET beat = ? WHERE owner = ? AND status = 'running'", (time.time(), self.owner)
            )

    def take_up_lost(self) -> list[str]:
        """Let items wait again whose claimants are gone: ended on this host, or silent for too long on another."""
        with self._writing() as connection:
            rows = connection.execute("SELECT key, owner, beat FROM items WHERE status = 'running'").fetchall()
            lost = [key for key, owner, beat in rows if is_gone(owner, beat)]
            connection.executemany(
                "UPDATE items SET status = 'waiting', owner = NULL WHERE key = ?", [(key,) for key in lost]
            )
        return lost

    def agree_with(self, done: Iterable[str], failed: Mapping[str, str]) -> None:
        """Follow the record: results decide what is done or has failed; `failed` has the reasons by key.

        What has no result waits again. What needs something that had failed gives that another try.
        """
        done = set(done)
        with self._writing() as connection:
            rows = connection.execute(
                "SELECT key, status FROM items WHERE kind = 'cell' AND key IN (SELECT key FROM wanted)"
            ).fetchall()
            for key, status in rows:
                recorded = DONE if key in done else FAILED if key in failed else WAITING
                if recorded != status and (status != RUNNING or recorded == DONE):
                    connection.execute(
                        "UPDATE items SET status = ?, owner = NULL, reason = ? WHERE key = ?",
                        (recorded, failed.get(key, ""), key),
                    )
            for _ in range(2):  # demonstrations that a policy needs that a shifted cell needs
                connection.execute(
                    "UPDATE items SET status = 'waiting', failures = 0, losses = 0 WHERE status = 'failed' AND key IN "
                    "(SELECT needs FROM items WHERE status = 'waiting' AND key IN (SELECT key FROM wanted))"
                )

    def states(self) -> dict[str, tuple[str, str]]:
        """Status and reason of every item that this process has added, by key."""
        rows = self._connection.execute("SELECT key, status, reason FROM items WHERE key IN (SELECT key FROM wanted)")
        return {key: (status, reason) for key, status, reason in rows}

    def waiting(self) -> int:
        """How many items that this process has added are to be claimed yet."""
        statement = "SELECT COUNT(*) FROM items WHERE status = 'waiting' AND key IN (SELECT key FROM wanted)"
        return int(self._connection.execute(statement).fetchone()[0])

    def seconds(self) -> dict[str, float]:
        """How long each item took that is done, by key."""
        return dict(self._connection.execute("SELECT key, seconds FROM items WHERE status = 'done'"))

    @staticmethod
    def _item(connection: sqlite3.Connection, key: str) -> Item:
        columns = "key, kind, needs, encoder, store, failures, losses, team"
        row = connection.execute(f"SELECT {columns} FROM items WHERE key = ?", (key,)).fetchone()
        return Item(**dict(zip(columns.split(", "), row, strict=True)))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE takes the lock for writing before anything is read: two claims cannot see the same item waiting.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def is_busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another connection was in the way."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY  # the lowest byte; the rest says why
