"""Episodes: the same for any number of workers; experts keep to their contract."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import started

from embodied.core.errors import UsageError
from embodied.envs.experts.behaviours import expert_names, make_expert
from embodied.envs.registry import load_suite
from embodied.envs.rollout import collect_episode, collect_episodes
from embodied.envs.task_env import TaskEnv
from embodied.envs.vector import make_vector_env, reset_slots

pytestmark = pytest.mark.sim
OPTIONS = {"task": "drawer-close-v3", "image_size": 16, "horizon": 150}


def summary(episode):
    return episode.seed, episode.success, {name: array.tobytes() for name, array in episode.arrays.items()}


def test_episode_arrays():
    env = TaskEnv(**OPTIONS)
    episode = collect_episode(env, make_expert("scripted", env.simulation), seed=1)
    steps = len(episode.arrays["action"])
    assert {name: (array.dtype.name, array.shape) for name, array in episode.arrays.items()} == {
        "observation.images.corner4": ("uint8", (steps, 16, 16, 3)),
        "observation.state": ("float32", (steps, 4)),
        "observation.environment_state": ("float32", (steps, 39)),
        "action": ("float32", (steps, 4)),
        "next.reward": ("float32", (steps,)),
        "next.success": ("bool", (steps,)),
        "next.done": ("bool", (steps,)),
    }
    assert episode.success
    assert episode.arrays["next.done"].tolist() == [False] * (steps - 1) + [True]
    assert episode.task == "close the drawer"
    env.close()


def test_noise_changes_what_happens_but_not_what_is_recorded():
    env = TaskEnv(**OPTIONS, images=False)
    expert = make_expert("scripted", env.simulation)
    clean, noisy = (collect_episode(env, expert, seed=1, noise_std=std) for std in (0.0, 0.5))
    assert np.array_equal(clean.arrays["action"][0], noisy.arrays["action"][0])
    assert not np.array_equal(clean.arrays["observation.state"][1], noisy.arrays["observation.state"][1])
    again = collect_episode(env, expert, seed=1, noise_std=0.5)
    assert summary(again) == summary(noisy)


@pytest.mark.parametrize("kind", ["mixed", "random"])
def test_without_noise_the_recorded_action_is_the_executed_one(kind):
    """What models of what actions do are trained on."""
    env, executed = TaskEnv(**OPTIONS, images=False), []
    step = env.step
    env.step = lambda action: (executed.append(action), step(action))[1]
    for noise, same in ((0.0, True), (0.5, False)):
        executed.clear()
        recorded = collect_episode(env, make_expert(kind, env.simulation), seed=3, noise_std=noise).arrays["action"]
        assert np.array_equal(recorded, np.stack(executed)) == same


@pytest.mark.parametrize("kind", sorted(expert_names(load_suite("metaworld"))))
def test_experts_stay_in_the_action_space_and_follow_their_seed(kind):
    env = TaskEnv(**OPTIONS, images=False)
    first, second = (collect_episode(env, make_expert(kind, env.simulation), seed=4) for _ in range(2))
    assert np.abs(first.arrays["action"]).max() <= 1
    assert summary(first) == summary(second)


def test_the_random_expert_explores():
    env = TaskEnv(task="reach-v3", images=False, horizon=200)
    hand = collect_episode(env, make_expert("random", env.simulation), seed=0).arrays["observation.state"][:, :3]
    assert (hand.max(axis=0) - hand.min(axis=0)).max() > 0.1  # metres


def test_workers_change_nothing():
    here = [summary(episode) for episode in collect_episodes(OPTIONS, "scripted", range(5), noise_std=0.1)]
    there = [
        summary(episode) for episode in collect_episodes(OPTIONS, "scripted", range(5), noise_std=0.1, num_workers=2)
    ]
    assert here == there
    assert [seed for seed, *_ in here] == [0, 1, 2, 3, 4]


def test_misspelt_expert_shows_before_any_process_starts():
    with pytest.raises(UsageError, match="did you mean scripted"):
        next(collect_episodes(OPTIONS, "skripted", range(5), num_workers=2))


def test_slots_are_reset_one_by_one_and_rest_after_their_end():
    environment = make_vector_env({**OPTIONS, "images": False, "horizon": 3}, num_envs=2)
    alone = TaskEnv(**{**OPTIONS, "images": False})
    first = reset_slots(environment, [7, 8])["observation.environment_state"].copy()
    assert np.array_equal(first[1], alone.reset(seed=8)[0]["observation.environment_state"])
    for _ in range(3):
        observation, _, _, truncated, infos = environment.step(np.ones((2, 4), np.float32))
    assert truncated.tolist() == [True, True]
    assert infos["success"].tolist() == [False, False]
    ended = observation["observation.environment_state"].copy()
    resumed = reset_slots(environment, [9, None])["observation.environment_state"].copy()
    assert np.array_equal(resumed[0], alone.reset(seed=9)[0]["observation.environment_state"])
    assert np.array_equal(resumed[1], ended[1])
    observation, _, _, truncated, _ = environment.step(np.ones((2, 4), np.float32))
    assert truncated.tolist() == [False, True]
    assert np.array_equal(observation["observation.environment_state"][1], ended[1])
    environment.close()


CHILD = """
import sys
from embodied.envs.rollout import collect_episodes
from embodied.envs.task_env import TaskEnv
from embodied.envs.vector import make_vector_env, reset_slots
if __name__ == "__main__":
    options = {"task": "reach-v3", "image_size": 16}
    if sys.argv[1] == "rollout":
        for episode in collect_episodes(options, "random", iter(int, 1), num_workers=2):
            print("ready", flush=True)
    else:
        environment = make_vector_env(options, num_envs=2)
        reset_slots(environment, [0, 1])
        print("ready", flush=True)
        while True:
            environment.step(environment.action_space.sample())
"""


def descendants(pid):
    path = f"/proc/{pid}/task/{pid}/children"
    if not os.path.exists(path):
        return []
    with open(path) as handle:
        children = [int(child) for child in handle.read().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


@pytest.mark.parametrize("kind", ["rollout", "vector"])
def test_workers_die_with_a_killed_parent(kind, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    with started([sys.executable, str(script), kind], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        workers = descendants(process.pid)
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in workers):
            time.sleep(0.1)
        assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
