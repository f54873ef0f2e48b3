"""Several environments on two workers against as many on one and against one alone, in slices of half a second.

python benchmarks/envs_workers.py SUITE [SLOTS ...]    # other numbers of slots than the eight of benchmarks/envs.py

All sides live all the time, so the machine's drift meets all. What other processes take in a slice is read from
/proc (Linux), and slices in which that is more than a few hundredths of a core do not count: two workers need both
cores, where one environment leaves a core to others.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from envs_sides import SIZE

SLOTS = 8
SLICES, SECONDS = 20, 0.5  # slices of each side that count
FEWEST, MOST_SECONDS = 6, 150.0  # slices that do when the time is over
FOREIGN = 0.06  # cores that others may have taken

Step = Callable[[], int]  # returns the frames it gave


def compare_workers(suite: str, quality: str, *, slots: Sequence[int] = (SLOTS,)) -> dict[str, dict[str, float]]:
    """Medians over slices: of "1" environment, of "8 on one" worker, and of "8" on two with their ratios to both.

    Environments that take turns on a core have its caches less to themselves than one alone.

    Args:
        suite, quality: of the environments, with the suite's default task.
        slots: environments on two workers.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)  # before any worker starts
    made = [(1, 0), *((count, workers) for count in slots for workers in (1, 2))]
    sides = {side: open_side(suite, quality, *side) for side in made}
    pids = [os.getpid(), *(pid for _, found in sides.values() for pid in found)]
    slices: dict[tuple[int, int], list[tuple[float, float]]] = {side: [] for side in sides}
    begin = perf_counter()
    while min(map(len, slices.values())) < SLICES and perf_counter() - begin < MOST_SECONDS:
        for side, (step, _) in sides.items():
            os.sched_setaffinity(0, cores if side[1] == 2 else cores[:1])
            rate, parent, foreign = slice_of(step, pids)
            if foreign <= FOREIGN:
                slices[side].append((rate, parent))
    if min(map(len, slices.values())) < FEWEST:
        sys.exit(f"{suite}: other processes had the cores all the time, leave the machine alone")
    medians = {}
    for (count, workers), found in slices.items():
        fps, parent = (statistics.median(values) for values in zip(*found, strict=True))
        name = f"{count} on one" if workers == 1 else str(count)
        medians[name] = {"fps": fps, "parent ms": parent, "slices": float(len(found))}
    for name, found in medians.items():
        found["ratio"] = found["fps"] / medians["1"]["fps"]
        if f"{name} on one" in medians:
            found["ratio to one worker"] = found["fps"] / medians[f"{name} on one"]["fps"]
    return medians


def open_side(suite: str, quality: str, count: int, workers: int) -> tuple[Step, list[int]]:
    """A step of `count` environments, a vector environment if there are workers, and their process ids."""
    options: dict[str, Any] = {"suite": suite, "render": quality, "image_size": SIZE}
    step, pids = several_side(options, count, workers) if workers else one_side(options)
    for _ in range(5):
        step()
    return step, pids


def one_side(options: dict[str, Any]) -> tuple[Step, list[int]]:
    from embodied.envs.task_env import TaskEnv

    env = TaskEnv(**options)
    env.action_space.seed(0)
    env.reset(seed=0)

    def step() -> int:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        return 1

    return step, []


def several_side(options: dict[str, Any], count: int, workers: int) -> tuple[Step, list[int]]:
    from embodied.envs.vector import make_vector_env

    environment: Any = make_vector_env(options, num_envs=count, workers=workers, autoreset="same_step")
    environment.action_space.seed(0)
    environment.reset(seed=0)

    def step() -> int:
        environment.step(environment.action_space.sample())
        return count

    return step, [group.worker.process.pid for group in environment.groups if hasattr(group, "worker")]  # one: its own


def slice_of(step: Step, pids: list[int]) -> tuple[float, float, float]:
    """Frames per second, milliseconds of this process per step, and the cores that other processes took meanwhile."""
    step()
    busy, own, mine = busy_seconds(), own_seconds(pids), own_seconds(pids[:1])
    frames, steps, start = 0, 0, perf_counter()
    while perf_counter() - start < SECONDS:
        frames += step()
        steps += 1
    seconds = perf_counter() - start
    foreign = (busy_seconds() - busy - (own_seconds(pids) - own)) / seconds
    return frames / seconds, (own_seconds(pids[:1]) - mine) / steps * 1e3, foreign


def busy_seconds() -> float:
    """Of all cores, by anyone, those that the machine's host took included."""
    with open("/proc/stat") as handle:
        user, nice, system, _, _, irq, softirq, steal, *_ = map(int, handle.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds(pids: list[int]) -> float:
    """Of these processes, to the nanosecond."""
    seconds = 0.0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as handle:
                seconds += int(handle.read().split()[0]) / 1e9
    return seconds


if __name__ == "__main__":
    results = compare_workers(sys.argv[1], "lean", slots=tuple(map(int, sys.argv[2:])) or (SLOTS,))
    for number, values in results.items():
        print(sys.argv[1], number, {name: round(value, 3) for name, value in values.items()})
