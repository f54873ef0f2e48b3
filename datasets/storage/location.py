"""Where an episode store lives: a local folder, a .zip file that is only read, or `s3://bucket/prefix`.

    storage = open_storage("s3://robots/demos")
    with storage.lock(wait_s=30):
        storage.write("zarr.json", data)

A store is a set of named byte strings, `zarr.json` and `action/c/0/0` for example. Adding a kind of place is one file
`storage_<kind>.py` with a class that has the members of `Storage`, and a line in `open_storage`.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from zarr.abc.store import Store

from embodied.core.errors import UsageError
from embodied.core.files import atomic_path
from embodied.core.protocols import Reporter
from embodied.core.reporting import SilentReporter
from embodied.datasets.storage.disk import disk_errors, require_free
from embodied.datasets.storage.local import LocalStorage
from embodied.datasets.storage.s3 import SCHEME as S3_SCHEME
from embodied.datasets.storage.s3 import S3Storage
from embodied.datasets.storage.zip_file import ZipStorage

_ENTRY_BYTES = 512  # of a zip file's own, per file, generously
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/]|$)")


class Storage(Protocol):
    """A place of named byte strings; nothing in it need exist yet.

    Names are relative, with `/` between folders. A failing disk or server raises `UserError`, from the methods and
    through zarr alike.

    Attributes:
        location: for messages.
        writable: False for places that are only read, whose `write`, `delete` and `lock` raise `UserError`.
    """

    location: str
    writable: bool

    def zarr_store(self, *, writable: bool) -> Store:
        """The same names as zarr sees them; open a storage again after a fork rather than pass this on."""
        ...

    def read(self, name: str) -> bytes:
        """Everything under `name`.

        Raises:
            KeyError: there is no such name.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, whole or not at all, in place of what was there; durable on return."""
        ...

    def list(self, prefix: str) -> list[str]:
        """The names in the folder `prefix` and the folders below it, sorted; all names for the empty prefix."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes under `name`; None if there is no such name."""
        ...

    def delete(self, name: str) -> None:
        """Forget `name`, which need not exist."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Make durable what zarr wrote under `names`."""
        ...

    def sweep(self) -> None:
        """Delete the unfinished files of killed writers; only for the holder of the lock, when nobody else writes."""
        ...

    def lock(self, *, wait_s: float) -> AbstractContextManager[None]:
        """Be the one writer for the length of a `with` block; a holder that dies loses the lock.

        Raises:
            UserError: somebody else held it for `wait_s` seconds; names the holder.
        """
        ...

    def exists(self) -> bool:
        """Whether anything is there."""
        ...


def open_storage(path: str | Path) -> Storage:
    """The place that `path` names: a folder, a file that ends in .zip, or `s3://bucket/prefix`.

    Nothing is created, and nothing need exist.

    Raises:
        UsageError: `path` names no place of these kinds.
        MissingExtraError: `s3://` needs obstore.
    """
    text = str(path)
    if scheme := _SCHEME.match(text):  # a Path has lost one of the slashes
        if scheme[1].lower() != "s3":
            raise UsageError(f"{text}: an episode store is a folder, a .zip file or s3://bucket/prefix")
        return S3Storage(S3_SCHEME + text[scheme.end() :])
    local = Path(path)
    if local.suffix.lower() == ".zip" and not local.is_dir():
        return ZipStorage(local)
    return LocalStorage(local)


def pack(source: str | Path, zip_path: str | Path, *, wait_s: float = 30.0, reporter: Reporter | None = None) -> None:
    """Write the episode store at `source` to one .zip file, uncompressed, whole or not at all.

    Args:
        source: a folder or `s3://bucket/prefix`; nobody writes to it meanwhile, and it is left as it is.
        zip_path: ends in .zip; nothing may be there yet.
        wait_s: for whoever is writing to the store to be done.
        reporter: shows progress.

    Raises:
        UsageError: there is nothing at `source`, or something at `zip_path`, or it does not end in .zip.
        UserError: the disk fails or is too full, or somebody is writing.
    """
    place, target = open_storage(source), Path(zip_path)
    if target.suffix.lower() != ".zip":
        raise UsageError(f"{target} must end in .zip")
    if target.exists():
        raise UsageError(f"{target} exists already: delete it, or choose another name")
    if not place.writable or not place.exists():
        raise UsageError(f"{place.location}: expected a folder or s3://bucket/prefix with an episode store to pack")
    with place.lock(wait_s=wait_s), disk_errors(target, "packing"):
        names = place.list("")
        if "zarr.json" not in names:
            raise UsageError(f"{place.location} is not an episode store: it has no zarr.json")
        if isinstance(place, LocalStorage):  # elsewhere it would take one request for each size
            wanted = sum((place.size(name) or 0) + _ENTRY_BYTES for name in names)
            require_free(target.parent, wanted, remedy="free some space, or pack to another disk")
        with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            shown = (reporter or SilentReporter()).track(names, total=len(names), description="packing")
            for name in shown:
                _add(archive, place, name)


def _add(archive: zipfile.ZipFile, place: Storage, name: str) -> None:
    entry = zipfile.ZipInfo(name)  # of no date, so that the same store gives the same file
    if isinstance(place, LocalStorage):
        path = place.folder / name
        entry.file_size = path.stat().st_size
        with open(path, "rb") as source, archive.open(entry, "w") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    else:
        archive.writestr(entry, place.read(name))
