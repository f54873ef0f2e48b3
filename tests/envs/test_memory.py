"""Simulations take megabytes that Python does not see: they go with their environment, not with a later collection."""

import gc
import importlib.util
import weakref

import pytest

from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim
TASKS = [
    ("metaworld", "reach-v3", "metaworld"),
    ("metaworld", "reach-v3+push-v3", "metaworld"),
    ("robosuite", "Lift", "robosuite"),
    ("robosuite", "TwoArmLift", "robosuite"),
    ("pixmc", "franka-pick", "robosuite"),
    ("dmc", "walker_walk", "dm_control"),
    ("adroit", "pen", "gymnasium_robotics"),
    ("kitchen", None, "gymnasium_robotics"),
]


def used(suite, task):
    env = TaskEnv(suite=suite, task=task, image_size=16, visuals="varied")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    return env


@pytest.mark.parametrize(("suite", "task", "package"), TASKS)
def test_nothing_is_left_of_an_environment_that_was_closed(suite, task, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    used(suite, task).close()  # what a library compiles at its first use keeps who called it until a collection
    env = used(suite, task)
    simulation, renderer = env.simulation, env._renderer
    parts = [simulation, simulation.data, renderer, renderer._context, renderer._gl]
    if suite != "dmc":  # its library keeps the last model that was read, one in all
        parts.append(simulation.model)
    held = [weakref.ref(part) for part in parts]
    gc.disable()
    try:
        env.close()
        del env, simulation, renderer, parts
        assert [part() for part in held] == [None] * len(held)
    finally:
        gc.enable()
