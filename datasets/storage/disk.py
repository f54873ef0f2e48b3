"""What every file format here needs of a disk: locks that die with their holder, room, and readable errors."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embodied.core.errors import UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class FileLock:
    """An advisory lock, exclusive or shared, that the kernel frees when its holder dies, however it dies.

    Two locks on one path exclude each other inside one process too. The file itself stays behind, empty or with the
    last exclusive holder's process id, and means nothing while nobody holds it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock, or change the kind that is held; False when somebody has it and `wait` is off."""
        descriptor = self._descriptor
        if descriptor is None:
            with suppress(FileExistsError):  # another made it and has deleted it again: opening says so
                self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self._descriptor = None  # a failed change of kind may have lost the old one: hold nothing then
            os.close(descriptor)
            return False
        except BaseException:
            self._descriptor = None
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)
        if not shared:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return True

    @property
    def in_place(self) -> bool:
        """Whether the path still names the file that is locked: a holder may have deleted it meanwhile."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str:
        """`process 123` for messages, from what the last exclusive holder left."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        return f"process {text}" if text.isdecimal() else "another process"

    def __del__(self) -> None:
        self.release()


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_after_fork() -> None:
    # A forked child shares the parent's lock: if it kept the descriptor, the lock would outlive a killed parent.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn a failing disk into one message: `doing` reads like `"writing episode 3"`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise UserError(
                f"no space left on the disk of {path} while {doing}: free some space and run again; what was completed "
                "before is kept"
            ) from error
        raise UserError(f"{path}: {doing} failed: {error.strerror or error}") from error


_CACHE_REMEDY = "free some space, or put the cache elsewhere with EMBODIED_CACHE=<folder>"


def require_free(folder: Path, wanted: int, *, remedy: str = _CACHE_REMEDY) -> None:
    """Check that `wanted` bytes fit on the disk of `folder`, which may not exist yet.

    Raises:
        UserError: they do not.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if wanted > free:
        raise UserError(
            f"no space left on the disk of {folder}: {wanted / 1e9:.2f} GB wanted, {free / 1e9:.2f} GB free; {remedy}"
        )
