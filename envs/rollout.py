"""Episodes of a behaviour in an environment, one after the other or in worker processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from embodied.core.protocols import ACTION, DONE, REWARD, SUCCESS, Expert
from embodied.core.seeding import numpy_generator
from embodied.envs.experts.behaviours import check_expert, make_expert
from embodied.envs.gl import select_gl_backend, spread_over_gpus
from embodied.envs.registry import load_suite
from embodied.envs.task_env import TaskEnv
from embodied.envs.worker_jobs import map_in_workers


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
    gl_devices: Sequence[int] | None = None,
) -> Generator[Episode, None, None]:
    """One episode per seed, in the order of the seeds whatever worker is first; the same for any number of workers.

    Args:
        env_options: arguments of `TaskEnv`.
        expert_kind: see `envs.experts.EXPERTS`.
        seeds: may be endless; at most two per worker are worked on ahead of what has been taken.
        noise_std: see `collect_episode`.
        num_workers: processes; 0 runs here.
        gl_devices: that the workers render on in turns, see `gl.spread_over_gpus`.

    Raises:
        UserError: a worker process was ended, or the options make no sense; says which worker.
        RuntimeError: there is a bug; with the worker's traceback.
    """
    # Here, so that a misspelling shows before any process starts, and workers inherit the choice.
    select_gl_backend()
    suite = load_suite(str(env_options.get("suite", "metaworld")))
    check_expert(expert_kind, suite)
    make_collector = partial(Collector, dict(env_options), expert_kind, noise_std)
    if num_workers > 0:
        task = f"{suite.name}/{env_options.get('task') or suite.default_task}"
        yield from map_in_workers(
            make_collector,
            seeds,
            names=[f"worker {worker} ({task})" for worker in range(num_workers)],
            gl_devices=spread_over_gpus(num_workers, gl_devices),
        )
        return
    collector = make_collector()
    try:
        yield from map(collector, seeds)
    finally:
        collector.close()


class Collector:
    """A simulator and a behaviour that live for many episodes: called with a seed, gives the episode.

    Args:
        env_options, expert_kind, noise_std: see `collect_episodes`.
    """

    def __init__(self, env_options: Mapping[str, Any], expert_kind: str, noise_std: float) -> None:
        self._env = TaskEnv(**env_options)
        self._expert = make_expert(expert_kind, self._env.simulation)
        self._noise_std = noise_std

    def __call__(self, seed: int) -> Episode:
        return collect_episode(self._env, self._expert, seed=seed, noise_std=self._noise_std)

    def close(self) -> None:
        self._env.close()
