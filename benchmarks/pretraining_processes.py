"""Processes of pretraining_table.py: one thread each, some side by side, none left over, their output in files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import IO, Protocol

from rich.console import Console

POLL_S = 2.0
Advance = Callable[[int, int], None]
"""Told how many jobs of how many have ended."""


class Job(Protocol):
    """Something to do that may first wait for jobs before it, by their names; gives the reason of a failure."""

    @property
    def name(self) -> str: ...

    def __call__(self, earlier: dict[str, Future[str | None]]) -> str | None: ...


class Crew:
    """Runs `embodied` in processes, and keeps a folder for itself while any of them lives.

    The lock on the folder is inherited by every process: if this one is killed, what it had started goes on, and the
    next run waits for its end instead of writing into the same files.

    Args:
        folder: made if need be; logs are in `logs/`.
        console: for a line if the folder is in use.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: set[subprocess.Popen[bytes]] = set()
        self._guard, self._closed = Lock(), False
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waiting for another run, or what a killed one left working, in {folder}", highlight=False)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def run(
        self, name: str, arguments: Iterable[str], *, watch: Callable[[], None] | None = None, shown: bool = False
    ) -> str | None:
        """`embodied <arguments>` to its end.

        Args:
            name: of the log.
            arguments: the verb and its settings.
            watch: called every few seconds meanwhile.
            shown: the process writes to this one's output, not to the log.

        Returns:
            Why it failed, one line; None if it has not.
        """
        log = self._logs / f"{name}.log"
        with nullcontext() if shown else open(log, "wb") as output:
            child = self._start([sys.executable, "-m", "embodied", *arguments], output)
        try:
            while True:
                try:
                    code = child.wait(timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if watch is not None:
                        watch()
        except BaseException:  # the one that is shown is waited for by the main thread, which signals reach
            child.terminate()
            raise
        finally:
            self._children.discard(child)
        if not code:
            return None
        if shown or code < 0:
            return f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        return f"{_last_words(log) or f'exit code {code}'} (see {log})"

    def end(self) -> None:
        """End all processes; no new one is started."""
        with self._guard:
            self._closed = True
            for child in list(self._children):
                child.terminate()

    def side_by_side(self, jobs: Sequence[Job], workers: int, advance: Advance) -> dict[str, str]:
        """Do jobs in their order, `workers` at a time; returns the reasons of those that failed, by name."""
        futures: dict[str, Future[str | None]] = {}
        found: dict[str, str] = {}
        advance(0, len(jobs))
        with ThreadPoolExecutor(workers) as pool:
            try:
                for job in jobs:  # who waits for another stands after it, so it never keeps the other's worker
                    futures[job.name] = pool.submit(job, dict(futures))
                names = {future: name for name, future in futures.items()}
                for done, future in enumerate(as_completed(names), 1):
                    advance(done, len(jobs))
                    reason = future.result()
                    if reason is not None:
                        found[names[future]] = reason
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.end()
                raise
        return found

    def _start(self, command: list[str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._guard:
            if self._closed:
                raise KeyboardInterrupt
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[self._lock],
            )
            self._children.add(child)
        return child


def _last_words(log: Path) -> str:
    """What a process said last, its error if it said one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    if errors:
        return " ".join(lines[errors[-1] :]).removeprefix("error:").strip()
    return lines[-1] if lines else ""
