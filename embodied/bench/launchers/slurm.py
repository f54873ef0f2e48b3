"""`launcher=slurm`: Slurm jobs through submitit, several cells each.

All nodes see the folder of the benchmark and the cache under the same paths. The work list stays here, with the process
that submits: what the jobs leave are results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.bench.launchers.crew import MakeRunner, Report, perform_all
from embodied.bench.work_list import Item
from embodied.core.errors import MissingExtraError, UsageError, UserError

JOBS = 8  # at once, where nothing else is said
CELLS_PER_JOB = 4
POLL_S = 0.5


class SlurmCrew:
    """Implements `Crew` by jobs: a worker's items are one job.

    Args:
        make_runner: see `MakeRunner`.
        size: jobs at once.
        folder: for submitit's scripts and logs.
        options: `cluster` (`slurm`; `local` runs jobs as processes here, `debug` in this one), `cells_per_job`, and
            anything that submitit's executor takes: `timeout_min`, `cpus_per_task`, `mem_gb`, `slurm_partition`, ...

    Raises:
        MissingExtraError: submitit is not installed.
        UsageError: an option makes no sense.
        UserError: there is no Slurm here.
    """

    mixed = True

    def __init__(self, make_runner: MakeRunner, *, size: int | None, folder: Path, options: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise MissingExtraError("submitit", "slurm") from error
        settings = dict(options)
        cluster = str(settings.pop("cluster", "slurm"))
        self.size, self.batch = size or JOBS, int(settings.pop("cells_per_job", CELLS_PER_JOB))
        if self.batch < 1:
            raise UsageError(f"launcher_options.cells_per_job must be at least 1, got {self.batch}")
        self._make_runner = make_runner
        self._jobs: dict[int, tuple[Any, list[Item]]] = {}
        self._errors = (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError, OSError)
        try:
            self._executor: Any = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(name="embodied-bench", **settings)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"launcher=slurm: {error}") from error
        except (TypeError, NameError) as error:
            raise UsageError(f"launcher_options: {error}") from error

    def ready(self, worker: int) -> bool:
        return True

    def send(self, worker: int, items: Sequence[Item]) -> None:
        job = self._executor.submit(run_items, self._make_runner, worker, list(items))
        self._jobs[worker] = (job, list(items))

    def wait(self, timeout_s: float) -> list[Report]:
        end = time.monotonic() + timeout_s
        while True:
            found = [report for worker in list(self._jobs) for report in self._ended(worker)]
            if found or time.monotonic() > end:
                return found
            time.sleep(POLL_S)

    def _ended(self, worker: int) -> list[Report]:
        job, items = self._jobs[worker]
        if not job.done():
            return []
        del self._jobs[worker]
        try:
            return list(job.result())
        except self._errors as error:
            reason = f"its Slurm job {job.job_id} was lost ({job.state}): {' '.join(str(error).split())[:200]}"
            return [Report(worker=worker, key=item.key, lost=reason) for item in items]

    def close(self, *, at_once: bool) -> None:
        for job, _ in self._jobs.values():
            job.cancel(check=False)
        self._jobs.clear()


def run_items(make_runner: MakeRunner, worker: int, items: Sequence[Item]) -> list[Report]:
    """A job: do items one after the other, or together where they share an encoder and the runner may."""
    runner = make_runner(worker)
    try:
        return list(perform_all(runner, items, worker))
    finally:
        runner.close()
