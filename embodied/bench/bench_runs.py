"""Running a benchmark: from a plan and cells to results, going on where an earlier run stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from embodied.bench.cells import Cell, CellResult
from embodied.bench.launchers.crew import Crew
from embodied.bench.plan import PLANNING, Plan, load_plan, require_same_protocol, save_plan
from embodied.bench.result_files import RESULTS, load_result, load_results, result_path, save_result
from embodied.bench.schedule import Schedule, Tally, Watcher
from embodied.bench.suite import LEARNS_ALONG, owned_by_seed, tries_static
from embodied.bench.work_list import COLLECT, DONE, FAILED, Item, WorkList
from embodied.core.errors import UserError
from embodied.core.files import write_text
from embodied.core.run_folder import environment_text, versions

Hire = Callable[[int], Crew]  # a crew for so many waiting items


def open_bench(folder: Path, plan: Plan) -> None:
    """Make the folder, or see that it holds results of the same protocol.

    Raises:
        UserError: it holds others, or cannot be written.
    """
    before = load_plan(folder)
    if before is not None:
        require_same_protocol(before, plan, folder)
        if before.source == plan.source:
            return
    try:
        (folder / RESULTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): choose another root=") from error
    save_plan(plan, folder)


def record_environment(folder: Path) -> None:
    """Append what cells are about to be run with to `environment.txt`, unless it is there; blank lines between.

    A report that is made again, later and with other versions, changes nothing of what its numbers came from.
    """
    path = folder / "environment.txt"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    now = environment_text()
    if now not in before:
        write_text(path, f"{before}\n{now}" if before else now)


def items_of(plan: Plan, cells: Sequence[Cell]) -> list[Item]:
    """What has to be done for these cells, in the order in which it had best be: demonstrations, then cells."""
    stores = dict.fromkeys(store for cell in cells if (store := plan.recipe(cell).store))
    items = [Item(key=f"{COLLECT}/{store}", kind=COLLECT, store=store) for store in stores]
    wanted = {cell.key: cell for cell in cells}
    for cell in cells:
        store = plan.recipe(cell).store
        needs = f"{COLLECT}/{store}" if store else None
        if tries_static(cell.variant):
            needs = static_key(cell)
            if needs not in wanted:
                raise UserError(f"{cell.key} needs the cell {needs}, whose policy it tries")
        scene = store or f"{cell.env}/{cell.task}"
        # A planner predicts a batch of its own: there is nothing to encode together.
        team = "" if plan.recipe(cell).kind == PLANNING else team_of(cell)
        item = Item(key=cell.key, needs=needs, encoder=cell.encoder, store=scene, team=team)
        items.append(item)
    return items


def team_of(cell: Cell) -> str:
    """Name of the cells that may be evaluated together: same task, look and weights; empty where the encoder learns."""
    if cell.encoder == LEARNS_ALONG:
        return ""
    weights = f"{cell.encoder}#{cell.seed}" if owned_by_seed(cell.encoder) else cell.encoder
    return "/".join((cell.env, cell.task, cell.variant, weights))


def static_key(cell: Cell) -> str:
    """The cell whose policy a shifted one tries."""
    return Cell(**{**vars(cell), "variant": "static"}).key


def run_bench(
    folder: Path, plan: Plan, cells: Sequence[Cell], *, hire: Hire, watcher: Watcher, retry: bool = False
) -> Tally:
    """Run the cells that have no result yet.

    Args:
        folder: of the benchmark, see `open_bench`.
        plan: of the suite.
        cells: that are wanted; those in the folder beside them stay as they are.
        hire: called with the number of waiting items if there are any; gives who does them.
        watcher: is told how it goes.
        retry: give cells that have failed another try.

    Raises:
        UserError: a result is damaged, of a newer version, or of another protocol.
    """
    with WorkList(folder) as work:
        items = items_of(plan, cells)
        work.add(items)
        work.take_up_lost()
        done, failed = _recorded(folder, plan, cells, retry=retry)
        work.agree_with(done, failed)
        waiting = sum(status not in (DONE, FAILED) for status, _ in work.states().values())
        if not waiting or len(done) + len(failed) == len(cells):
            return Tally()
        record_environment(folder)
        by_key = {cell.key: cell for cell in cells}
        schedule = Schedule(
            work,
            items,
            hire(waiting),
            survived=lambda key: _is_done(folder, key),
            failed=lambda keys, reason: _save_failures(folder, plan, by_key, keys, reason),
            watcher=watcher,
        )
        return schedule.run()


def _recorded(folder: Path, plan: Plan, cells: Sequence[Cell], *, retry: bool) -> tuple[list[str], dict[str, str]]:
    """Keys of the cells that are done, and reasons of those that have failed."""
    wanted = {cell.key for cell in cells}
    done: list[str] = []
    failed: dict[str, str] = {}
    for result in load_results(folder):
        key = result.cell.key
        if result.protocol != plan.protocol_hash:
            raise UserError(
                f"{result_path(folder, key)} is of protocol {result.protocol}, not {plan.protocol_hash}, and one table "
                "must not mix them: move it away, or choose another root="
            )
        if key not in wanted:
            continue
        if result.status == DONE:
            done.append(key)
        elif retry:
            result_path(folder, key).unlink()
        else:
            failed[key] = result.reason
    return done, failed


def _is_done(folder: Path, key: str) -> bool:
    path = result_path(folder, key)
    return path.is_file() and load_result(path).status == DONE


def _save_failures(folder: Path, plan: Plan, cells: dict[str, Cell], keys: Sequence[str], reason: str) -> None:
    """Results of what has failed for good: the first of the keys, for its own reason, and the others for its sake."""
    first, installed = keys[0], versions()
    for key in keys:
        if key not in cells:
            continue
        because = "" if key == first else "no demonstrations: " if first not in cells else "no policy to try: "
        failure = CellResult(
            cell=cells[key],
            protocol=plan.protocol_hash,
            suite=plan.name,
            status=FAILED,
            reason=because + reason,
            versions=installed,
        )
        save_result(folder, failure)


def seconds_left(durations: Sequence[float], waiting: int, workers: int) -> float | None:
    """An estimate of the time that waiting items take, from those that are done; None before the first."""
    return sum(durations) / len(durations) * waiting / max(1, min(workers, waiting)) if durations else None


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    return time.strftime("%-H:%M:%S" if seconds >= 3600 else "%-M:%S", time.gmtime(seconds))
