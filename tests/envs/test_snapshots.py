"""Environments that are set back go on as they did, to the last bit."""

import importlib.util

import numpy as np
import pytest

from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.snapshots import Snapshot, is_exact
from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim  # importing some of the libraries wants a GL library
TASKS = [
    ("metaworld", "reach-v3", None),
    ("metaworld", "drawer-close-v3", None),
    ("metaworld", "hammer-v3", None),
    ("metaworld", "assembly-v3", None),
    ("metaworld", "reach-v3+push-v3", None),
    ("pixmc", "franka-reach", "robosuite"),
    ("pixmc", "franka-pick", "robosuite"),
    ("dmc", "walker_walk", "dm_control"),
    ("dmc", "reacher_easy", "dm_control"),
    ("adroit", "pen", "gymnasium_robotics"),
    ("kitchen", None, "gymnasium_robotics"),
]


@pytest.mark.parametrize(("suite", "task", "package"), TASKS)
def test_suites_can_be_set_back(suite, task, package):
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    env = TaskEnv(suite=suite, task=task, images=False)
    assert is_exact(env, 3)
    env.close()


def actions(env, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


def test_a_snapshot_can_be_used_again_and_knows_the_step():
    env = TaskEnv(task="push-v3", images=False, horizon=12)
    env.reset(seed=1)
    for action in actions(env, 5):
        env.step(action)
    snapshot = Snapshot(env)
    seen = []
    for _ in range(3):
        snapshot.restore()
        ended = [env.step(action) for action in actions(env, 7, seed=1)]
        assert [bool(step[3]) for step in ended] == [False] * 6 + [True]
        seen.append(np.stack([step[0][ENVIRONMENT_STATE] for step in ended]))
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])
    env.close()


class Forgetful:
    """An environment whose state lies where nobody looks for it."""

    hidden = 0.0


def test_what_cannot_be_set_back_is_noticed(monkeypatch):
    env = TaskEnv(task="reach-v3", images=False)
    step = env.simulation.step

    def drifting(action):
        Forgetful.hidden += 1
        progress = step(action)
        return progress._replace(reward=progress.reward + Forgetful.hidden)

    monkeypatch.setattr(env.simulation, "step", drifting)
    assert not is_exact(env, 0)
    env.close()


def test_frames_are_those_of_the_moment_that_was_set_back_to():
    env = TaskEnv(task="reach-v3", image_size=32)
    env.reset(seed=0)
    for action in actions(env, 10):
        env.step(action)
    snapshot, before = Snapshot(env), env.render()
    for action in actions(env, 10, seed=5):
        env.step(action)
    assert not np.array_equal(env.render(), before)
    snapshot.restore()
    assert np.array_equal(env.render(), before)
    env.close()
