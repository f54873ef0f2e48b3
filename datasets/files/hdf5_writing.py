"""HDF5 files written so that a full disk is an exception.

The HDF5 library crashes the process when a write fails in the middle of a file (seen with 2.0: the disk full, then a
segmentation fault while closing). So it writes through a Python file that keeps the first error to itself and takes all
that follows as written; whoever fills the HDF5 file asks for that error, and the half file is thrown away.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embodied.datasets.files.hdf5_files import import_h5py


class PatientFile(io.RawIOBase):
    """A file for h5py whose writes never fail; `check` raises what went wrong."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._position = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first OSError of a write, if there was one."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._descriptor, len(view), self._position)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))  # beyond the end, or never written after an error
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._error is None:
            try:
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
            except OSError as error:
                self._error = error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._error = self._error or error
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextmanager
def create_hdf5(path: Path) -> Iterator[tuple[Any, PatientFile]]:
    """A new HDF5 file and what it is written through, to `check` now and then; closing checks too.

    Raises:
        OSError: the disk fails.
        MissingExtraError: h5py is not installed.
    """
    h5py = import_h5py()
    patient = PatientFile(path)
    try:
        with h5py.File(patient, "w") as file:
            yield file, patient
        patient.check()
    finally:
        patient.close()
