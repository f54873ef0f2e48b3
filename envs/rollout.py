"""Episodes of a behaviour in an environment, one after the other or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import parent_process
from threading import Thread
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.core.protocols import ACTION, DONE, REWARD, SUCCESS, Expert
from embodied.core.seeding import numpy_generator
from embodied.envs.experts.behaviours import check_expert, make_expert
from embodied.envs.gl import select_gl_backend
from embodied.envs.registry import load_suite
from embodied.envs.task_env import TaskEnv


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Arrays [T, ...] named as in `core.protocols`: the observation before each action, the action, what came of it."""

    arrays: dict[str, np.ndarray]
    task: str
    seed: int
    success: bool


def collect_episode(env: TaskEnv, expert: Expert, *, seed: int, noise_std: float = 0.0) -> Episode:
    """One episode; `action` holds what the expert wanted, although noise was added to what was executed.

    Noise takes the arm to states off the expert's path and the recorded action leads back: DART (Laskey et al. 2017,
    arXiv 1703.09327). Departure: constant isotropic noise instead of noise fitted to a learner, none on the gripper.

    Args:
        env: the simulator.
        expert: the behaviour.
        seed: of the placement, the behaviour and the noise.
        noise_std: of the Gaussian, in half ranges of the action.
    """
    noise = numpy_generator(seed, "action noise")
    spec = env.spec_of_task
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    rows: dict[str, list[Any]] = {name: [] for name in (*observation, ACTION, REWARD, SUCCESS, DONE)}
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert.act(observation)
        for name, value in observation.items():
            rows[name].append(value)
        kick = noise.normal(size=action.shape) * noise_std
        kick[list(spec.gripper)] = 0.0  # noise there drops what is held instead of pushing it off course
        half_range = (spec.action_high - spec.action_low) / 2
        executed = np.clip(action + kick * half_range, spec.action_low, spec.action_high).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(executed)
        rows[ACTION].append(action)
        rows[REWARD].append(reward)
        rows[SUCCESS].append(info["success"])
        rows[DONE].append(terminated or truncated)
    arrays = {name: np.stack(values) for name, values in rows.items()}
    arrays[REWARD] = arrays[REWARD].astype(np.float32)
    return Episode(arrays=arrays, task=env.task_description, seed=seed, success=bool(rows[SUCCESS][-1]))


def collect_episodes(
    env_options: Mapping[str, Any],
    expert_kind: str,
    seeds: Iterable[int],
    *,
    noise_std: float = 0.0,
    num_workers: int = 0,
) -> Generator[Episode, None, None]:
    """One episode per seed, in the order of the seeds whatever worker is first; the same for any number of workers.

    Args:
        env_options: arguments of `TaskEnv`.
        expert_kind: see `envs.experts.EXPERTS`.
        seeds: may be endless; at most two per worker are worked on ahead of what has been taken.
        noise_std: see `collect_episode`.
        num_workers: processes; 0 runs here.

    Raises:
        UserError: a worker process died.
    """
    # Here, so that a misspelling shows before any process starts, and workers inherit the choice.
    select_gl_backend()
    check_expert(expert_kind, load_suite(str(env_options.get("suite", "metaworld"))))
    if num_workers == 0:
        worker = _Worker(dict(env_options), expert_kind, noise_std)
        try:
            yield from map(worker.collect, seeds)
        finally:
            worker.env.close()
        return
    context = multiprocessing.get_context("spawn")
    arguments = (dict(env_options), expert_kind, noise_std)
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker, initargs=arguments)
    waiting: deque[Future[Episode]] = deque()
    remaining = iter(seeds)
    try:
        waiting.extend(pool.submit(_collect_in_worker, seed) for seed in islice(remaining, 2 * num_workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_collect_in_worker, seed) for seed in islice(remaining, 1))
    except BrokenProcessPool as error:
        raise UserError(
            "a simulator process died, most often for lack of memory or a broken GL library: try workers=1, or see "
            "embodied doctor"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """A simulator and a behaviour that live for many episodes."""

    def __init__(self, env_options: dict[str, Any], expert_kind: str, noise_std: float) -> None:
        self.env = TaskEnv(**env_options)
        self.expert = make_expert(expert_kind, self.env.simulation)
        self.noise_std = noise_std

    def collect(self, seed: int) -> Episode:
        return collect_episode(self.env, self.expert, seed=seed, noise_std=self.noise_std)


_worker: _Worker | None = None  # of this process, set by `_start_worker`


def die_with_parent() -> None:
    """End this process when the one that started it is gone, SIGKILL included."""
    parent = parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        Thread(target=wait, daemon=True).start()


def _start_worker(env_options: dict[str, Any], expert_kind: str, noise_std: float) -> None:
    global _worker
    die_with_parent()
    _worker = _Worker(env_options, expert_kind, noise_std)


def _collect_in_worker(seed: int) -> Episode:
    assert _worker is not None
    return _worker.collect(seed)
