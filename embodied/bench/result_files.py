"""Results of cells as files: one JSON file each, written whole or not at all. They are a benchmark's record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from embodied.bench.cells import CellResult, read_result
from embodied.core.errors import UserError
from embodied.core.files import write_json

RESULTS, RUNS = "results", "runs"  # folders of a benchmark


def file_name(key: str) -> str:
    """A cell's name in files: readable, and as unique as its key."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in key)
    return f"{plain[-100:].lstrip('-.')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def result_path(folder: Path, key: str) -> Path:
    """Where the result of a cell lies."""
    return folder / RESULTS / f"{file_name(key)}.json"


def save_result(folder: Path, result: CellResult) -> None:
    """Write a cell's result, all or nothing."""
    write_json(result_path(folder, result.cell.key), result.record())


def load_result(path: Path) -> CellResult:
    """The result in a file.

    Raises:
        UserError: it is damaged, no result, or of a newer version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise UserError("no benchmark result: expected a group of values")
        return read_result(record)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and its cell runs again") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_results(folder: Path) -> list[CellResult]:
    """The results of all cells that are done or have failed, in the order of cells.

    Raises:
        UserError: there is no benchmark in the folder, or one of its files is damaged or of a newer version.
    """
    if not (folder / RESULTS).is_dir():
        raise UserError(f"{folder} holds no results of a benchmark: it has no folder {RESULTS}/")
    return sorted((load_result(path) for path in (folder / RESULTS).glob("*.json")), key=lambda result: result.cell)
