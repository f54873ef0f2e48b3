"""An episode store at `s3://bucket/prefix`, in Amazon S3 or any object store that speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from embodied.core.errors import UsageError
from embodied.datasets.storage.s3_client import REQUEST_S, TRANSFER_S, connect, import_obstore, s3_errors
from embodied.datasets.storage.s3_lock import LEASE_S, ObjectLock

SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_OURS = re.compile(r"\.(\w+\.)?lock|\.clock")  # objects of locks: not part of the store


class S3Storage:
    """The objects below a prefix of a bucket; credentials and endpoint come from the AWS_* environment variables.

    An object is whole or absent, and durable once written, so that there is nothing to sync or to sweep.

    Args:
        url: `s3://bucket/prefix`.
        lease_s: a writer that was killed blocks others for so long.

    Raises:
        UsageError: the URL or an AWS_* variable makes no sense.
        MissingExtraError: obstore is not installed.
    """

    writable = True

    def __init__(self, url: str, *, lease_s: float = LEASE_S) -> None:
        bucket, _, prefix = url.removeprefix(SCHEME).rstrip("/").partition("/")
        if not url.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
            raise UsageError(
                f"{url}: expected s3://bucket/prefix, the bucket named by 3 to 63 letters, digits, . _ or -"
            )
        _check_name(prefix or "-", url)
        self.location = SCHEME + bucket + (f"/{prefix}" if prefix else "")
        self._lease_s = lease_s
        self._small = connect(bucket, prefix, timeout_s=REQUEST_S)
        self._large = connect(bucket, prefix, timeout_s=TRANSFER_S)
        self._lock: ObjectLock | None = None
        self._conditional = False  # whether the server was seen to honour conditional writes

    def zarr_store(self, *, writable: bool) -> Store:
        return _ZarrObjects(self, read_only=not writable)

    def read(self, name: str) -> bytes:
        _check_name(name, self.location)
        try:
            with s3_errors(self.location, f"reading {name}"):
                return bytes(import_obstore().get(self._large, name).bytes())
        except FileNotFoundError as error:
            raise KeyError(name) from error

    def write(self, name: str, data: bytes) -> None:
        _check_name(name, self.location)
        self.require_lock()
        with s3_errors(self.location, f"writing {name}"):
            import_obstore().put(self._large, name, data, use_multipart=False)

    def list(self, prefix: str) -> list[str]:
        with s3_errors(self.location, "listing"):
            found = import_obstore().list(self._small, prefix=prefix.rstrip("/") or None).collect()
            return sorted(entry["path"] for entry in found if entry["path"] and not _OURS.fullmatch(entry["path"]))

    def size(self, name: str) -> int | None:
        _check_name(name, self.location)
        try:
            with s3_errors(self.location, f"looking at {name}"):
                return int(import_obstore().head(self._small, name)["size"])
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        _check_name(name, self.location)
        self.require_lock()
        try:
            with s3_errors(self.location, f"deleting {name}"):
                import_obstore().delete(self._small, name)
        except FileNotFoundError:
            return

    def sync(self, names: Iterable[str]) -> None:
        return None

    def sweep(self) -> None:
        return None

    @contextmanager
    def lock(self, *, wait_s: float) -> Iterator[None]:
        lock = ObjectLock(self._small, self.location, lease_s=self._lease_s)
        lock.acquire(wait_s=wait_s)
        self._lock = lock
        try:
            if not self._conditional:
                lock.require_conditions()
                self._conditional = True
            yield
        finally:
            self._lock = None
            lock.release()

    @contextmanager
    def filling(self, part: str) -> Iterator[None]:
        """Be the one who fills the store over many `lock` blocks, as an import does.

        Raises:
            UserError: somebody else did for longer than a killed one would keep others out; names the holder.
        """
        lock = ObjectLock(self._small, self.location, lease_s=self._lease_s, name=f".{part}.lock")
        lock.acquire(wait_s=self._lease_s + 2)
        try:
            yield
        finally:
            lock.release()

    def require_lock(self) -> None:
        """Check, inside a `lock` block, that nobody else can have taken the lock; without effect outside.

        Raises:
            UserError: somebody may have.
        """
        if self._lock is not None:
            self._lock.require()

    def exists(self) -> bool:
        with s3_errors(self.location, "looking for an episode store"):
            for batch in import_obstore().list(self._small, chunk_size=8):
                if any(entry["path"] and not _OURS.fullmatch(entry["path"]) for entry in batch):
                    return True
        return False


class _ZarrObjects(ObjectStore[Any]):
    """zarr's own store, with our messages, the check of the lock before each write, and without our lock's objects."""

    def __init__(self, place: S3Storage, *, read_only: bool) -> None:
        super().__init__(place._large, read_only=read_only)
        self.place = place

    def with_read_only(self, read_only: bool = False) -> _ZarrObjects:
        return _ZarrObjects(self.place, read_only=read_only)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.place.location, self.read_only)  # each process has connections, and a lock, of its own

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with s3_errors(self.place.location, f"reading {key}"):
            try:
                return await super().get(key, prototype, byte_range)
            except import_obstore().exceptions.GenericError as error:
                if "416 " not in str(error):
                    raise
                return prototype.buffer.from_bytes(b"")  # it ends before the part: as little as a short file gives

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        with s3_errors(self.place.location, f"looking at {key}"):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self.place.require_lock()
        with s3_errors(self.place.location, f"writing {key}"):
            # At once: parts of an upload that was cut short would stay in the bucket, invisible but paid for.
            await import_obstore().put_async(self.store, key, value.as_buffer_like(), use_multipart=False)

    async def delete(self, key: str) -> None:
        self.place.require_lock()
        with s3_errors(self.place.location, f"deleting {key}"):
            await super().delete(key)

    async def list(self) -> AsyncGenerator[str, None]:
        async for name in self.list_prefix(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        with s3_errors(self.place.location, "listing"):
            async for name in super().list_prefix(prefix):
                if name and not _OURS.fullmatch(name):
                    yield name

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        with s3_errors(self.place.location, "listing"):
            async for name in super().list_dir(prefix):
                if prefix or not _OURS.fullmatch(name):
                    yield name


def _opened(location: str, read_only: bool) -> _ZarrObjects:
    return _ZarrObjects(S3Storage(location), read_only=read_only)


def _check_name(name: str, location: str) -> None:
    if any(part in ("", ".", "..") for part in name.split("/")) or not name.isprintable():
        raise UsageError(f"{name!r} cannot be a name in {location}: expected one like action/zarr.json")
