"""Runners that do nothing but what the key of an item says, to try schedules and crews with."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from embodied.bench.launchers.crew import Done, perform
from embodied.core.errors import UserError


@dataclass(frozen=True)
class MakeToyRunner:
    """Implements `MakeRunner`; what was done is a line in `folder`/done, what was begun one in `folder`/begun."""

    folder: Path

    def __call__(self, worker):
        return ToyRunner(self.folder)


class ToyRunner:
    """`fine`, `slow` (a second), `error`, `bug`, `error-once`, `killed`, `killed-once`; a number may follow."""

    def __init__(self, folder):
        self._folder = folder

    def __call__(self, item):
        before = self._lines("begun").count(item.key)
        self._write("begun", item.key)
        word = item.key.rstrip("0123456789")
        if word == "slow":
            time.sleep(1.0)
        if word == "error" or (word == "error-once" and not before):
            raise UserError("this cannot\nwork")
        if word == "bug":
            raise ValueError("seven")
        if word == "killed" or (word == "killed-once" and not before):
            os.kill(os.getpid(), signal.SIGKILL)
        self._write("done", item.key)

    def close(self):
        pass

    def _lines(self, name):
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []

    def _write(self, name, key):
        with open(self._folder / name, "a") as file:
            file.write(f"{key}\n")


@dataclass(frozen=True)
class MakeToyTeamRunner(MakeToyRunner):
    """Makes runners that take several items at once; each team is a line in `folder`/teams."""

    def __call__(self, worker):
        return ToyTeamRunner(self.folder)


class ToyTeamRunner(ToyRunner):
    """Implements `TeamRunner`, one item after the other."""

    def together(self, items):
        self._write("teams", " ".join(item.key for item in items))
        for item in items:
            report = perform(self, item, 0)
            yield Done(key=item.key, seconds=report.seconds, error=UserError(report.error) if report.error else None)


class SilentWatcher:
    """Implements `Watcher`; keeps what it was told."""

    def __init__(self):
        self.told = []

    def begin(self, items, states, workers):
        self.told.append(("begin", len(items), workers))

    def started(self, item):
        self.told.append(("started", item.key))

    def ended(self, item, *, status, seconds, reason):
        self.told.append((status, item.key, reason))

    def tick(self):
        pass
