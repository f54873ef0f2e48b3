"""`launcher=local`: worker processes on this machine, sized to its cores and memory."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from embodied.bench.launchers.crew import MakeRunner, Report, Runner, perform_all
from embodied.bench.work_list import Item
from embodied.core.errors import UserError
from embodied.envs.worker_processes import Worker, end_workers, usable_cores

MEMORY_GB = 2.0  # of a worker: torch, two sets of four simulators at 130 MB each, the features of one store
TEAM_GB = 0.6  # of each further cell that a worker evaluates at once: four more simulators, and a policy
GPU_GB = 4.0  # of a worker, by default


class LocalCrew:
    """Implements `Crew` by processes that end with this one and leave Ctrl-C to it.

    Args:
        make_runner: see `MakeRunner`.
        size: processes.
        batch: cells that a worker evaluates at once, at most, where they share an encoder.
    """

    mixed = False

    def __init__(self, make_runner: MakeRunner, *, size: int, batch: int = 1) -> None:
        self.size, self.batch = size, batch
        self._make_runner = make_runner
        self._workers: dict[int, Worker] = {}
        self._items: dict[int, dict[str, Item]] = {}

    def ready(self, worker: int) -> bool:
        return True

    def send(self, worker: int, items: Sequence[Item]) -> None:
        message = pickle.dumps(list(items))
        self._items[worker] = {item.key: item for item in items}
        if worker in self._workers:
            try:
                self._workers[worker].send(message)
                return
            except UserError:  # it died between two items
                self._drop(worker)
        self._workers[worker] = Worker(
            _work, self._make_runner, worker, name=f"worker {worker}", gl_device=None, children=True
        )
        self._workers[worker].send(message)

    def wait(self, timeout_s: float) -> list[Report]:
        pipes = {self._workers[number].pipe: number for number in self._items}
        found = []
        for pipe in wait(list(pipes), timeout_s):
            number = pipes[pipe]  # type: ignore[index]
            try:
                report = self._workers[number].receive()
                del self._items[number][report.key]
                found.append(report)
            except UserError as error:
                self._drop(number)
                found += [Report(worker=number, key=key, lost=str(error)) for key in self._items[number]]
                self._items[number].clear()
            if not self._items[number]:
                del self._items[number]
        return found

    def close(self, *, at_once: bool) -> None:
        end_workers(list(self._workers.values()), at_once=at_once)
        self._workers.clear()
        self._items.clear()

    def _drop(self, worker: int) -> None:
        end_workers([self._workers.pop(worker)], at_once=True)


def _work(pipe: Connection, make_runner: MakeRunner, worker: int) -> None:
    """The life of a worker."""
    runner: Runner | None = None
    try:
        while True:
            items = pipe.recv()
            runner = runner or make_runner(worker)
            for report in perform_all(runner, items, worker):
                pipe.send(report)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the schedule wants no more
        pass
    finally:
        if runner is not None:
            runner.close()


def devices_of_workers(workers: int | None, device: str, *, gpu_gb: float = GPU_GB, batch: int = 1) -> list[str]:
    """The device of each worker process; its length is their number.

    Args:
        workers: processes; None: as many as cores, and as fit into the memory of this machine and of its GPUs.
        device: `auto`, `cpu`, `cuda`, `cuda:<n>`, checked before.
        gpu_gb: of a GPU's memory per worker.
        batch: cells that a worker evaluates at once, at most.
    """
    limit = max(1, min(usable_cores(), int(_free_memory_gb() / (MEMORY_GB + TEAM_GB * (batch - 1)))))
    if device == "cpu":
        return ["cpu"] * (workers or limit)
    import torch

    if not torch.cuda.is_available():
        return ["cpu"] * (workers or limit)
    gpus = [int(device[5:])] if device.startswith("cuda:") else list(range(torch.cuda.device_count()))
    room = {gpu: max(1, int(torch.cuda.mem_get_info(gpu)[0] / 1e9 / gpu_gb)) for gpu in gpus}
    count = workers or min(limit, sum(room.values()))
    in_turns = [gpu for turn in range(max(room.values())) for gpu in gpus if turn < room[gpu]]
    return [f"cuda:{in_turns[number % len(in_turns)]}" for number in range(count)]


def _free_memory_gb() -> float:
    """Memory that can be had without swapping; free pages alone where the kernel does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 1e9
