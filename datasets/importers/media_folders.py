"""Folders of pictures and films: which files, in which order, and what an episode made of them is called."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from embodied.core.errors import UserError, unknown_name

TASKS = ("none", "folder", "file")
_MOST_LOOKED_AT = 2000  # files, to recognise a folder
_DIGITS = re.compile(r"(\d+)")
# Files that say a folder is of a format that has pictures or films inside.
_TELLING = frozenset(
    {"info.json", "episodes.jsonl", "zarr.json", ".zgroup", "metadata.yaml", "metadata.json", "features.json"}
)
_TELLING_SUFFIXES = (".parquet", ".hdf5", ".h5", ".tar", ".tgz", ".tar.gz", ".mcap", ".bag", ".db3", ".arrow")


def natural_order(name: str) -> tuple[tuple[str | int, ...], str]:
    """A sort key under which `frame10` comes after `frame9`."""
    parts = _DIGITS.split(name.lower())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def list_files(path: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of the suffixes (lower case) at `path` or below it; hidden ones and links to folders are not.

    Sorted naturally, the files of a folder before those below it.

    Raises:
        UserError: there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder at {path}")
    found = [file for file in _walk(path) if file.suffix.lower() in suffixes]
    if not found:
        raise UserError(f"{path} holds no {', '.join(sorted(suffixes))} files")
    return found


def holds_only(path: Path, suffixes: Collection[str], others: Collection[str]) -> bool:
    """Whether a folder (or file) looks like a collection of these files: some of them, none of `others`."""
    if path.is_file():
        return path.suffix.lower() in suffixes
    some = False
    for count, file in enumerate(_walk(path) if path.is_dir() else ()):
        suffix = file.suffix.lower()
        if suffix in others or file.name in _TELLING or file.name.endswith(_TELLING_SUFFIXES):
            return False
        if count >= _MOST_LOOKED_AT:
            break
        some = some or suffix in suffixes
    return some


def name_of(file: Path, root: Path) -> str:
    """The path of a file below `root`, with `/`; bytes that are no UTF-8 as `?`."""
    return file.relative_to(root).as_posix().encode("utf-8", "replace").decode()


def task_of(file: Path, task: str) -> str:
    """The task as the file or the folder it is in is called, `pick_up-cup` as `pick up cup`; empty for `none`.

    Raises:
        UsageError: `task` is none of the three.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    name = {"none": "", "folder": file.absolute().parent.name, "file": file.stem}[task]
    return re.sub(r"[_\-\s]+", " ", name).strip().encode("utf-8", "replace").decode()


def _walk(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not _hidden(name)), key=natural_order)
        for name in sorted((name for name in files if not _hidden(name)), key=natural_order):
            yield Path(current, name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
