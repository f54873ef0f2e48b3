"""Finished benchmarks on disk: finding them, reading them together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embodied.bench.cells import CellResult
from embodied.bench.plan import PLAN, load_plan
from embodied.bench.result_files import RESULTS, load_results
from embodied.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class BenchFolder:
    """A benchmark's folder with its results, and its protocol's content by its hash as far as it is kept there."""

    path: Path
    results: Sequence[CellResult]
    protocols: Mapping[str, Mapping[str, Any]]


def read_folder(path: Path) -> BenchFolder:
    """The benchmark in a folder.

    Raises:
        UserError: there is none, it is empty, damaged, or of a newer version.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder: give the folder of a benchmark, as embodied bench prints it")
    results = load_results(path)
    if not results:
        raise UserError(f"{path} holds no results yet: run embodied bench first")
    plan = load_plan(path)
    protocols = {} if plan is None else {plan.protocol_hash: plan.protocol}
    return BenchFolder(path=path, results=results, protocols=protocols)


def find_folders(root: Path) -> list[BenchFolder]:
    """All benchmarks in a folder and below.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give one that holds benchmarks")
    found = {path.parent for path in root.rglob(PLAN) if (path.parent / RESULTS).is_dir()}
    if (root / RESULTS).is_dir():
        found.add(root)
    folders = [read_folder(path) for path in sorted(found) if any((path / RESULTS).glob("*.json"))]
    if not folders:
        raise UserError(f"{root} holds no results of benchmarks: run embodied bench root={root}")
    return folders


def seen_from(folder: Path, benchmark: BenchFolder) -> list[CellResult]:
    """The results with their runs relative to another folder, so that a page there finds videos."""
    start = os.path.relpath(benchmark.path, folder)
    return [
        replace(result, run=os.path.normpath(os.path.join(start, result.run))) if result.run else result
        for result in benchmark.results
    ]
