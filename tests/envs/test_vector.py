"""Environments side by side: the same numbers from any number of workers, autoresets, GPUs."""

from contextlib import closing

import numpy as np
import pytest

from embodied.core.errors import UsageError
from embodied.envs import gl, vector
from embodied.envs.gl import spread_over_gpus
from embodied.envs.task_env import TaskEnv
from embodied.envs.vector import make_vector_env

OPTIONS = {"task": "reach-v3", "images": False, "horizon": 2}
STATE = "observation.environment_state"
STILL = np.zeros((2, 4), np.float32)


def test_unknown_autoreset_and_no_environments():
    with pytest.raises(UsageError, match="autoreset 'same': did you mean same_step"):
        make_vector_env(OPTIONS, num_envs=2, autoreset="same")
    with pytest.raises(UsageError, match="num_envs must be at least 1, got 0"):
        make_vector_env(OPTIONS, num_envs=0)

    with pytest.raises(UsageError, match="workers must be at least 0, got -1"):
        make_vector_env(OPTIONS, num_envs=2, workers=-1)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("num_envs", "workers", "cores", "expected"),
    [(1, None, 4, 0), (3, None, 2, 2), (2, None, 4, 2), (2, None, 1, 0), (3, 1, 4, 0), (3, 0, 4, 0), (2, 5, 1, 2)],
)
def test_processes(monkeypatch, num_envs, workers, cores, expected):
    started = []

    def make(*_, num_envs, gl_devices, **__):
        started.append(len(gl_devices))

    monkeypatch.setattr(vector, "WorkerVectorEnv", make)
    monkeypatch.setattr(vector, "usable_cores", lambda: cores)
    make_vector_env(OPTIONS, num_envs=num_envs, workers=workers)
    assert started == [expected]


@pytest.mark.sim
def test_frames_states_and_rewards_are_the_same_from_any_number_of_workers():
    options = {"task": "reach-v3", "image_size": 24, "camera": ["corner4", "topview"], "horizon": 3}
    seen = []
    for workers in (0, 1, 2, 3):
        rng = np.random.default_rng(0)
        with closing(make_vector_env(options, num_envs=3, workers=workers, autoreset="same_step")) as environment:
            steps = [environment.reset(seed=[3, 4, 5])[0]["observation.images.topview"].copy()]
            for _ in range(7):
                observation, rewards, *_, infos = environment.step(rng.uniform(-1, 1, (3, 4)).astype(np.float32))
                last = [one["observation.images.corner4"] for one in infos["final_obs"]] if "final_obs" in infos else []
                steps += [*(array.copy() for array in observation.values()), rewards, infos["score"], *last]
        seen.append(steps)
    assert len(seen[0]) == 1 + 7 * 6 + 2 * 3
    for others in seen[1:]:
        assert all(np.array_equal(here, there) for here, there in zip(seen[0], others, strict=True))


@pytest.mark.sim
@pytest.mark.parametrize("count", [1, 2])
def test_same_step_gives_the_next_episode_and_the_last_observation(count):
    with closing(make_vector_env(OPTIONS, num_envs=count, autoreset="same_step")) as environment:
        environment.reset(seed=[5, 6][:count])
        environment.step(STILL[:count])
        observation, _, _, truncated, infos = environment.step(STILL[:count])
        assert truncated.tolist() == [True] * count
        assert infos["final_info"]["success"].tolist() == [False] * count
        alone = TaskEnv(**OPTIONS)
        alone.reset(seed=5)
        alone.step(STILL[0])
        last = alone.step(STILL[0])[0][STATE]
        assert np.array_equal(infos["final_obs"][0][STATE], last)
        assert np.array_equal(observation[STATE][0], alone.reset()[0][STATE])
        assert not np.array_equal(observation[STATE][0], last)
        assert environment.step(STILL[:count])[3].tolist() == [False] * count


def test_gpus_in_turns(monkeypatch):
    monkeypatch.setattr(gl, "egl_devices", lambda: (0, 2))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    assert spread_over_gpus(5) == [0, 2, 0, 2, 0]
    assert spread_over_gpus(1) == [None]
    assert spread_over_gpus(3, [2]) == [2, 2, 2]
    with pytest.raises(UsageError, match="no EGL device 1; the GPUs here are: 0, 2"):
        spread_over_gpus(3, [0, 1])
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "2")
    assert spread_over_gpus(2) == [None, None]  # the workers inherit the user's choice


def test_software_has_no_gpus(monkeypatch):
    monkeypatch.setattr(gl, "egl_devices", tuple)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    assert spread_over_gpus(2) == [None, None]
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert spread_over_gpus(2) == [None, None]
    with pytest.raises(UsageError, match="needs MUJOCO_GL=egl, got 'osmesa'"):
        spread_over_gpus(2, [0])
