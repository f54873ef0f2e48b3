"""Frames per second of every suite, beside its own library and beside bare physics and bare rendering, from one run.

python benchmarks/envs.py [SUITE ...]           # all suites, or these; docs/results/envs.json
python benchmarks/envs.py workers [SUITE ...]   # only eight environments on two workers against one worker, and one
python benchmarks/envs.py pictures [SUITE ...]  # full, lean and lean+ side by side; docs/results/render_<suite>.png
python benchmarks/envs.py table                 # the results as the table of docs/rendering.md

Every side runs in a process of its own, pinned to one core, all sides in turns, three times over; the medians count.
Leave the machine alone meanwhile; on a busy one, time on the core says more than the clock. How two workers on two
cores are compared with one on one is told in envs_workers.py.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from envs_sides import LIBRARIES, SIZE
from envs_workers import SLOTS, compare_workers

from embodied.core.errors import MissingExtraError
from embodied.envs.gl import select_gl_backend
from embodied.envs.registry import load_suite, suite_names

RESULTS = Path(__file__).parent.parent / "docs" / "results"
REPEATS, WARM_UP, SECONDS = 3, 20, 3.0
SIDES = ("library", "full", "lean", "lean+", "limits lean", "limits lean+")
MISSING = 77  # exit code of a side whose library is not installed


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["side"]:
        run_side(words[1], words[2], [int(core) for core in words[3].split(",")])
    elif words == ["table"]:
        show_table()
    elif words[:1] == ["pictures"]:
        from envs_pictures import draw_pictures

        update({suite: {"pictures": draw_pictures(suite, RESULTS)} for suite in chosen(words[1:])})
    else:
        only_workers = words[:1] == ["workers"]
        for suite in chosen(words[only_workers:]):
            if not only_workers:
                update({suite: compare(suite)})
            update({suite: {"two workers": two_workers(suite)}})


def chosen(words: list[str]) -> list[str]:
    return [name for name in suite_names() if not words or name in words]


def update(found: dict[str, dict[str, Any]]) -> None:
    """Add what was found of each suite to the file of results."""
    path = RESULTS / "envs.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for suite, values in found.items():
        results.setdefault(suite, {}).update(values)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def compare(suite: str) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(REPEATS):
        for side in SIDES:
            if (answer := ask(suite, side, cores[:1])) is None:
                print(f"{suite}: not installed")
                return {"missing": True}
            runs[side].append(answer)
    values = {
        side: {key: statistics.median(run[key] for run in answers) for key in answers[0]}
        for side, answers in runs.items()
    }
    ratios = ratios_of({side: value["fps"] for side, value in values.items()})
    by_core = ratios_of({side: value["fps per core second"] for side, value in values.items()})
    found = load_suite(suite)
    print(f"{suite} {found.default_task}: " + ", ".join(f"{side} {values[side]['fps']:.1f}/s" for side in SIDES))
    print("  by the clock: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    print("  by core seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in by_core.items()), flush=True)
    return {"task": found.default_task, "camera": found.default_camera, "machine": machine(), "runs": runs} | {
        "medians": values,
        "ratios": ratios,
        "ratios by core seconds": by_core,
    }


def two_workers(suite: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for quality in ("lean", "lean+"):
        if (answer := ask(suite, f"two {quality}", sorted(os.sched_getaffinity(0))[:2])) is not None:
            found[quality] = {"environments": SLOTS, **answer}
            ratios = f"{answer['ratio to one worker']:.2f} times {SLOTS} on one, {answer['ratio']:.2f} times one alone"
            print(f"{suite}, {SLOTS} on two workers, {quality}: {ratios}", flush=True)
    return found


def ratios_of(fps: dict[str, float]) -> dict[str, float]:
    ratios = {}
    for quality in ("lean", "lean+"):
        ratios[f"{quality} / library"] = fps[quality] / fps["library"]
        ratios[f"{quality} / full"] = fps[quality] / fps["full"]
        ratios[f"{quality} / limit"] = fps[quality] / fps[f"limits {quality}"]
    return ratios


def show_table() -> None:
    columns = ("library", "full", "lean", "lean+")
    shares = ("lean / library", "lean+ / library", "lean / limit", "lean+ / limit")
    workers = {"ratio to one worker": f"{SLOTS} on two workers / on one, lean", "ratio": "/ one environment alone"}
    titles = ("suite, task", *columns, *shares, *workers.values())
    print("| " + " | ".join(titles) + " |\n" + "| --- " * len(titles) + "|")
    for suite, found in json.loads((RESULTS / "envs.json").read_text()).items():
        if "medians" in found:
            cells = [f"{found['medians'][side]['fps']:.1f}" for side in columns]
            cells += [f"{found['ratios'][share]:.2f}" for share in shares]
            measured = found.get("two workers", {}).get("lean", {})
            cells += [f"{measured[ratio]:.2f}" if ratio in measured else "" for ratio in workers]
            print(f"| {suite}, {found['task']} | " + " | ".join(cells) + " |")


def machine() -> dict[str, Any]:
    import mujoco

    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "gl": select_gl_backend(),
        "mujoco": mujoco.__version__,
    }


def ask(suite: str, side: str, cores: list[int]) -> dict[str, float] | None:
    """The numbers of one side from a process of its own; None when its library is missing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MUJOCO_GL": select_gl_backend()}
    environment.pop("LP_NUM_THREADS", None)  # the library's side renders as it would without us
    command = [sys.executable, __file__, "side", suite, side, ",".join(map(str, cores))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode == MISSING:
        return None
    if result.returncode:
        sys.exit(f"{suite}, {side}: {result.stderr}")
    answer: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer


def run_side(suite: str, side: str, cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)
    try:
        print(json.dumps(measure(suite, side)))
    except (MissingExtraError, ModuleNotFoundError):
        sys.exit(MISSING)


def measure(suite: str, side: str) -> dict[str, float]:
    task = load_suite(suite).default_task
    kind, _, quality = side.rpartition(" ")
    if side == "library":
        return rate(*LIBRARIES[suite](task))
    if kind == "limits":
        return limits(suite, quality)
    if kind == "two":
        return compare_workers(suite, quality)[str(SLOTS)]
    return rate(*one_environment(suite, quality))


def rate(step: Callable[[], bool], reset: Callable[[], Any]) -> dict[str, float]:
    """Frames per second of steps with the resets they need, by the clock and by this process's time on a core."""
    reset()
    begin = perf_counter()
    for _ in range(WARM_UP):
        step()
        if perf_counter() - begin > SECONDS:
            break
    count, start, used = 0, perf_counter(), process_time()
    while perf_counter() - start < SECONDS:
        if step():
            reset()
        count += 1
    return {"fps": count / (perf_counter() - start), "fps per core second": count / (process_time() - used)}


def one_environment(suite: str, quality: str) -> tuple[Callable[[], bool], Callable[[], Any]]:
    from embodied.envs.task_env import TaskEnv

    env = TaskEnv(suite=suite, render=quality, image_size=SIZE)  # type: ignore[arg-type]
    env.action_space.seed(0)

    def step() -> bool:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        return terminated or truncated

    return step, lambda: env.reset()


def limits(suite: str, quality: str) -> dict[str, float]:
    """What there would be if nothing but physics and the renderer took time; a step of each in turns."""
    from embodied.envs.rendering import FrameRenderer
    from embodied.envs.task_env import TaskEnv

    env = TaskEnv(suite=suite, images=False)  # places the cameras
    env.reset(seed=0)
    simulation, spec = env.simulation, env.simulation.spec
    camera = spec.cameras[env.cameras[0]]
    renderer = FrameRenderer(simulation.model, height=SIZE, width=SIZE, quality=quality)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    seconds = {"physics": 0.0, "render": 0.0}
    count, begin, used = 0, perf_counter(), process_time()
    while perf_counter() - begin < SECONDS + 1:
        if count == WARM_UP:
            used = process_time()
        if count % spec.horizon_limit == spec.horizon_limit - 1:
            simulation.reset(count)
        action = rng.uniform(spec.action_low, spec.action_high).astype(np.float32)
        start = perf_counter()
        simulation.step(action)
        between = perf_counter()
        renderer.render(simulation.data, camera)
        if count >= WARM_UP:
            seconds["physics"] += between - start
            seconds["render"] += perf_counter() - between
        count += 1
    count -= WARM_UP
    return {
        "physics": count / seconds["physics"],
        "render": count / seconds["render"],
        "fps": count / sum(seconds.values()),
        "fps per core second": count / (process_time() - used),
    }


if __name__ == "__main__":
    main()
