"""Which results may stand in one table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from embodied.bench.cells import Cell, CellResult
from embodied.bench.suite import owned_by_seed, owned_by_task
from embodied.core.errors import UserError

SHOWN_DIFFERENCES = 8


def check_results(
    results: Sequence[CellResult],
    protocols: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    same_encoders: bool = True,
) -> None:
    """Refuse what would make a table compare unlike things.

    Args:
        results: of one table.
        protocols: content of protocols by their hash, as far as known: then the error says what differs.
        same_encoders: refuse one name for several weights; a comparison of two folders may be about just that.

    Raises:
        UserError: there are no results, several protocols, evaluations that stop early beside ones that do not,
            demonstrations that differ within one task, or one name for several encoders.
    """
    if not results:
        raise UserError("there are no results: run embodied bench first")
    _check_protocols(results, protocols or {})
    _check_stopping(results)
    _check_demonstrations(results)
    if same_encoders:
        _check_encoders(results)


def _check_protocols(results: Sequence[CellResult], protocols: Mapping[str, Mapping[str, Any]]) -> None:
    found: dict[str, list[CellResult]] = defaultdict(list)
    for result in results:
        found[result.protocol].append(result)
    if len(found) < 2:
        return
    (first, ours), (second, theirs), *_ = found.items()
    described = [
        f"{name} (suite {', '.join(sorted({result.suite for result in group}))}, {len(group)} cells)"
        for name, group in found.items()
    ]
    if first in protocols and second in protocols:
        differences = list(_differences(protocols[first], protocols[second]))
        more = f", and {len(differences) - SHOWN_DIFFERENCES} more" if len(differences) > SHOWN_DIFFERENCES else ""
        what = f"they differ in {'; '.join(differences[:SHOWN_DIFFERENCES])}{more}"
    elif ours[0].suite != theirs[0].suite:
        what = "they are of different suites"
    else:
        what = "the suite's settings were changed between them (what exactly, their protocol files would say)"
    raise UserError(
        f"one table cannot mix protocols {' and '.join(described)}: {what}. Numbers of different protocols differ by "
        "more than encoders do; make one table of each"
    )


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """`controllers.mlp.steps (2000, 4000)` for every leaf that differs."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*ours, *theirs}, key=str):
            yield from _differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else str(name))
    elif ours != theirs:
        yield f"{path} ({ours!r}, {theirs!r})"


def _check_stopping(results: Sequence[CellResult]) -> None:
    """Of one protocol all cells stop early or none: what else is there was put together by hand."""
    first: dict[bool, Cell] = {}
    for result in results:
        if result.episodes:
            first.setdefault(bool(result.sequential), result.cell)
    if len(first) > 1:
        raise UserError(
            f"the evaluation of {first[True].key} may stop early, that of {first[False].key} has a fixed number of "
            "episodes: their scores and intervals cannot stand in one mean"
        )


def _check_demonstrations(results: Sequence[CellResult]) -> None:
    found: dict[tuple[str, str, str, int], dict[str, Cell]] = defaultdict(dict)
    for result in results:
        if result.demos_fingerprint:
            found[result.cell.group].setdefault(result.demos_fingerprint, result.cell)
    for (_, task, variant, demos), fingerprints in found.items():
        if len(fingerprints) > 1:
            (first, one), (second, other), *_ = fingerprints.items()
            raise UserError(
                f"{task} ({variant}, {demos} demonstrations): {one.key} learned from the demonstrations {first[:12]}, "
                f"{other.key} from {second[:12]}; a table compares encoders on the same demonstrations, so run one "
                "of the two again on the other's"
            )


def _check_encoders(results: Sequence[CellResult]) -> None:
    for (encoder, _), fingerprints in _weights(results).items():
        if len(fingerprints) > 1:
            names = ", ".join(name[:12] for name in sorted(fingerprints))
            raise UserError(
                f"encoder {encoder} stands for several weights ({names}): it changed between the runs; bench the newer "
                "one under a name of its own"
            )


def _weights(results: Iterable[CellResult]) -> dict[tuple[str, str], set[str]]:
    """Fingerprints that one encoder should have one of, by its name, and by the task where each has its own."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for result in results:
        encoder = result.cell.encoder
        if result.encoder_fingerprint and not owned_by_seed(encoder):
            task = f"{result.cell.env}/{result.cell.task}" if owned_by_task(encoder) else ""
            found[encoder, task].add(result.encoder_fingerprint)
    return found


def merge_results(
    sources: Mapping[str, Sequence[CellResult]], protocols: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[CellResult], list[str]]:
    """Results of several folders as one list.

    Encoders of one name and different weights become `name@fingerprint`. A cell that several folders have counts
    once: a done one before a failed one, the first folder before the second.

    Args:
        sources: results by the folder that they are from.
        protocols: see `check_results`.

    Returns:
        The results, and notes that tell the reader what was done.

    Raises:
        UserError: they are of several protocols or learned from different demonstrations.
    """
    # Before any cell is left out: one of another protocol must not vanish behind its twin.
    check_results([result for results in sources.values() for result in results], protocols, same_encoders=False)
    weights = _weights(result for results in sources.values() for result in results)
    shared = {name: len(fingerprints) for (name, _), fingerprints in weights.items() if len(fingerprints) > 1}
    chosen: dict[Cell, CellResult] = {}
    twice = differ = 0
    for results in sources.values():
        for result in results:
            named = _renamed(result) if result.cell.encoder in shared else result
            known = chosen.get(named.cell)
            if known is None or (known.status != "done" and named.status == "done"):
                chosen[named.cell] = named
            elif named.status == "done":
                twice += 1
                differ += known.episodes != named.episodes
    notes = [
        f"the name {name} stands for {shared[name]} encoders: told apart by @fingerprint" for name in sorted(shared)
    ]
    if twice:
        notes.append(
            f"{twice} cells are in several folders and count once, as the first folder has them"
            + (f"; in {differ} of them the episodes differ" if differ else "")
        )
    return list(chosen.values()), notes


def _renamed(result: CellResult) -> CellResult:
    """With its weights in its name; a cell that failed before it had any keeps its name."""
    if not result.encoder_fingerprint:
        return result
    name = f"{result.cell.encoder}@{result.encoder_fingerprint[:8]}"
    return replace(result, cell=replace(result.cell, encoder=name))


def version_notes(results: Sequence[CellResult]) -> list[str]:
    """What a reader must know about packages and devices that differ within a table."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        for name, version in result.versions.items():
            found[name].add(version)
    notes = [
        f"cells ran under several versions of {name}: {', '.join(sorted(versions))}"
        for name, versions in sorted(found.items())
        if len(versions) > 1
    ]
    devices = sorted({result.device for result in results if result.device})
    if len(devices) > 1:
        notes.append(f"cells ran on several devices ({', '.join(devices)}): their seconds do not compare")
    return notes
