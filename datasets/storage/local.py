"""An episode store in a local folder, and temporary folders that disappear with their owner."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath

from zarr.storage import LocalStore

from embodied.core.errors import UsageError, UserError
from embodied.core.files import atomic_path, cache_folder
from embodied.datasets.storage.disk import FileLock, disk_errors

_POLL_S = 0.02
_POLL_MOST_S = 0.5


class LocalStorage:
    """A folder; its lock is the file `.<name>.lock` beside it, which the kernel frees when the holder dies."""

    writable = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)

    def zarr_store(self, *, writable: bool) -> LocalStore:
        return LocalStore(self.folder, read_only=not writable)

    def read(self, name: str) -> bytes:
        try:
            with disk_errors(self.folder, f"reading {name}"):
                return self._path(name).read_bytes()
        except UserError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                raise KeyError(name) from error
            raise

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with disk_errors(self.folder, f"writing {name}"):
            made = list(takewhile(lambda parent: not parent.exists(), path.parents))
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
            for folder in made:  # its entry is in the folder above it
                _sync(folder.parent)

    def list(self, prefix: str) -> list[str]:
        found = []
        with disk_errors(self.folder, "listing"):
            for parent, _, files in os.walk(self._path(prefix) if prefix else self.folder, onerror=_raise_if_readable):
                names = [PurePosixPath(Path(parent, file).relative_to(self.folder)) for file in files]
                found += [str(name) for name in names if not _is_unfinished(name.name)]
        return sorted(found)

    def size(self, name: str) -> int | None:
        with disk_errors(self.folder, f"looking at {name}"):
            path = self._path(name)
            return path.stat().st_size if path.is_file() else None

    def delete(self, name: str) -> None:
        with disk_errors(self.folder, f"deleting {name}"):
            self._path(name).unlink(missing_ok=True)

    def sync(self, names: Iterable[str]) -> None:
        with disk_errors(self.folder, "bringing files to the disk"):
            paths = dict.fromkeys(self._path(name) for name in names)
            root = self.folder.parent
            folders = {parent for path in paths for parent in path.parents if parent.is_relative_to(root)}
            for path in (*paths, *folders):
                _sync(path)

    def sweep(self) -> None:
        with disk_errors(self.folder, "deleting what a killed writer left"):
            for parent, _, files in os.walk(self.folder):
                for name in filter(_is_unfinished, files):
                    Path(parent, name).unlink(missing_ok=True)

    @contextmanager
    def lock(self, *, wait_s: float) -> Iterator[None]:
        folder = self.folder.resolve()  # one lock, by whatever path the folder was named
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        end, pause_s = time.monotonic() + wait_s, _POLL_S
        with disk_errors(self.folder, "taking the lock"):
            while not lock.acquire(wait=False):
                if time.monotonic() >= end:
                    raise UserError(
                        f"{lock.holder()} is writing to {self.folder}: wait until it is done, or stop it "
                        f"(waited {wait_s:g} s)"
                    )
                time.sleep(min(pause_s, max(0.0, end - time.monotonic())))
                pause_s = min(2 * pause_s, _POLL_MOST_S)
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        with disk_errors(self.folder, "looking for an episode store"):
            # A writer that was killed while it made the store left nothing but what it had not finished.
            there = self.folder.iterdir() if self.folder.is_dir() else ()
            return self.folder.is_file() or not all(_is_unfinished(path.name) for path in there)

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise UsageError(f"{name!r} cannot be a name in {self.folder}: expected one like action/zarr.json")
        return self.folder.joinpath(*parts)


@contextmanager
def local_staging(folder: Path | None = None) -> Iterator[Path]:
    """An empty temporary folder, deleted at the end of the block or, if its owner is killed, by the next caller.

    Args:
        folder: where such folders are kept; in the user's cache folder by default.

    Raises:
        UserError: the disk fails.
    """
    root = folder or cache_folder() / "staging"
    name = uuid.uuid4().hex[:12]
    mine, owner = root / name, FileLock(root / f"{name}.lock")
    with disk_errors(root, "making a temporary folder"):
        entrance = _enter(root)
        try:
            _delete_orphans(root)
            owner.acquire()
            mine.mkdir()
        finally:
            entrance.release()
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        owner.path.unlink(missing_ok=True)
        owner.release()
        _delete_empty(root)


def _enter(root: Path) -> FileLock:
    """The lock of a folder of temporary folders, which `_delete_empty` may delete at any moment before it is held."""
    while True:
        entrance = FileLock(root / ".lock")
        with suppress(FileNotFoundError):  # deleted after it was made
            entrance.acquire()
            if entrance.in_place:
                return entrance
            entrance.release()  # deleted while we waited


def _delete_empty(root: Path) -> None:
    """Leave nothing beside a store when nobody is writing to it."""
    entrance = FileLock(root / ".lock")
    with suppress(FileNotFoundError):  # another was faster, here and below
        if not root.is_dir() or not entrance.acquire(wait=False):
            return
    try:
        with suppress(FileNotFoundError):
            if entrance.in_place and [path.name for path in root.iterdir()] == [entrance.path.name]:
                shutil.rmtree(root, ignore_errors=True)
    finally:
        entrance.release()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_orphans(root: Path) -> None:
    for path in root.glob("[!.]*.lock"):
        lock = FileLock(path)
        if lock.acquire(wait=False):  # the owner is dead, or it would hold this
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            lock.release()


def _is_unfinished(name: str) -> bool:
    # What core.files.atomic_path and zarr's LocalStore write to before they rename.
    return (name.startswith(".") and name.endswith(".tmp")) or name.endswith(".partial")


def _raise_if_readable(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
