"""Every suite's frames as its own library makes them: the sides that `benchmarks/envs.py` compares with.

Each function returns (step, reset): `step()` takes a random action, renders a 128x128 frame as a user of the library
would without knowing better, and says whether the episode is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SIZE = 128
Side = tuple[Callable[[], bool], Callable[[], Any]]


def metaworld(task: str) -> Side:
    """Gymnasium's `render()`, from where corner4 stands."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    from embodied.envs.suites.metaworld import CAMERAS

    env = ALL_V3_ENVIRONMENTS[task](render_mode="rgb_array", camera_name="corner2", width=SIZE, height=SIZE)
    env._freeze_rand_vec, env._set_task_called = False, True
    env.model.cam_pos[env.model.camera("corner2").id] = CAMERAS["corner4"].position
    rng = np.random.default_rng(0)

    def step() -> bool:
        _, _, _, truncated, _ = env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        env.render()
        return bool(truncated or env.curr_path_length >= env.max_path_length)

    return step, env.reset


def robosuite(task: str) -> Side:
    """Camera observations, with the library's off-screen renderer."""
    import robosuite as library

    env = library.make(
        task,
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names="agentview",
        camera_heights=SIZE,
        camera_widths=SIZE,
        ignore_done=True,
    )
    rng = np.random.default_rng(0)

    def step() -> bool:
        env.step(rng.uniform(-1, 1, env.action_dim))
        return False

    return step, env.reset


def dmc(task: str) -> Side:
    """The library's pixel wrapper."""
    from dm_control import suite
    from dm_control.suite.wrappers import pixels

    domain, _, name = task.partition("_")
    options = {"height": SIZE, "width": SIZE, "camera_id": 0}
    env = pixels.Wrapper(suite.load(domain, name), render_kwargs=options)
    rng = np.random.default_rng(0)
    bounds = env.action_spec()

    def step() -> bool:
        return bool(env.step(rng.uniform(bounds.minimum, bounds.maximum)).last())

    return step, env.reset


def kitchen(task: str) -> Side:
    """Gymnasium's `render()`."""
    return _gymnasium_robotics("FrankaKitchen-v1")


def adroit(task: str) -> Side:
    """Gymnasium's `render()`."""
    return _gymnasium_robotics(f"AdroitHand{task.capitalize()}-v1")


def _gymnasium_robotics(name: str) -> Side:
    import gymnasium
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(name, render_mode="rgb_array", width=SIZE, height=SIZE)
    rng = np.random.default_rng(0)

    def step() -> bool:
        _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        env.render()
        return terminated or truncated

    return step, env.reset


def pixmc(task: str) -> Side:
    """MuJoCo's own renderer as it comes, on our model: there is no other library."""
    import mujoco

    from embodied.envs.registry import load_suite

    suite = load_suite("pixmc")
    simulation = suite.make(task, protocol=None, **suite.options)
    camera = simulation.spec.cameras[suite.default_camera].name
    renderer = mujoco.Renderer(simulation.model, SIZE, SIZE)
    rng = np.random.default_rng(0)
    seeds = iter(range(10**9))

    def step() -> bool:
        simulation.step(rng.uniform(simulation.spec.action_low, simulation.spec.action_high).astype(np.float32))
        renderer.update_scene(simulation.data, camera=camera)
        renderer.render()
        return False

    return step, lambda: simulation.reset(next(seeds))


LIBRARIES: dict[str, Callable[[str], Side]] = {
    "metaworld": metaworld,
    "robosuite": robosuite,
    "dmc": dmc,
    "kitchen": kitchen,
    "adroit": adroit,
    "pixmc": pixmc,
}
