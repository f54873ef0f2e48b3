"""Meta-World on the observation contract."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from embodied.core.errors import UsageError
from embodied.envs.suites.metaworld import CAMERAS, CORTEX_TASKS, INSTRUCTIONS
from embodied.envs.task_env import TaskEnv

pytestmark = [
    pytest.mark.sim,
    pytest.mark.filterwarnings("ignore:.*Box observation space.*"),
]
STATE, ENVIRONMENT_STATE, IMAGE = "observation.state", "observation.environment_state", "observation.images.corner4"


def trajectory(env, seed, steps=20):
    actions = np.random.default_rng(9).uniform(-1, 1, (steps, 4)).astype(np.float32)
    observation, _ = env.reset(seed=seed)
    found = [observation[ENVIRONMENT_STATE]]
    for action in actions:
        observation, reward, *_ = env.step(action)
        found.append(np.append(observation[ENVIRONMENT_STATE], np.float32(reward)))
    return np.concatenate(found)


@pytest.fixture(scope="module")
def env():
    env = TaskEnv(image_size=64)
    yield env
    env.close()


def test_task_list_is_the_librarys():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert len(INSTRUCTIONS) == 50
    assert sorted(INSTRUCTIONS) == sorted(ALL_V3_ENVIRONMENTS)


def test_every_task_has_an_instruction():
    texts = list(INSTRUCTIONS.values())
    assert all(len(text.split()) >= 3 for text in texts), texts
    assert len(set(texts)) == 50


def test_gymnasiums_checker_passes():
    made = gymnasium.make("embodied.envs.registration:embodied/metaworld-hammer-v3", image_size=32)
    check_env(made.unwrapped)
    made.close()


def test_registered_without_our_command_line():
    made = gymnasium.make("embodied.envs.registration:embodied/metaworld-drawer-open-v3", image_size=32)
    observation, info = made.reset(seed=3)
    assert observation[IMAGE].shape == (32, 32, 3)
    assert info["success"] is False
    assert made.unwrapped.task == "drawer-open-v3"
    made.close()


def test_observation_contract(env):
    observation, _ = env.reset(seed=0)
    assert {name: (array.dtype.name, array.shape) for name, array in observation.items()} == {
        IMAGE: ("uint8", (64, 64, 3)),
        STATE: ("float32", (4,)),
        ENVIRONMENT_STATE: ("float32", (39,)),
    }
    _, reward, terminated, truncated, info = env.step(np.zeros(4, np.float32))
    assert isinstance(reward, float)
    assert (terminated, truncated) == (False, False)
    assert info == {"success": False, "success_once": False, "score": 0.0}


def test_no_object_state_leaks_into_proprioception(env):
    env.reset(seed=0)
    simulator = env.simulation.library
    before = env._observation(look=True)
    import mujoco

    free = int(np.flatnonzero(simulator.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)[0])  # the hammer's
    place = simulator.model.jnt_qposadr[free]
    simulator.data.qpos[place : place + 3] += [0.05, 0.05, 0.1]
    mujoco.mj_forward(simulator.model, simulator.data)
    env.simulation._observation = simulator._get_obs()
    after = env._observation(look=True)
    assert np.array_equal(before[STATE], after[STATE])
    assert not np.array_equal(before[ENVIRONMENT_STATE], after[ENVIRONMENT_STATE])
    assert not np.array_equal(before[IMAGE], after[IMAGE])


@pytest.mark.parametrize("task", ["hammer-v3", "assembly-v3", "drawer-close-v3", "plate-slide-side-v3"])
def test_same_seed_same_trajectory_in_fresh_and_used_environments(task):
    first, second = TaskEnv(task=task, images=False), TaskEnv(task=task, images=False)
    expected = trajectory(first, 5)
    trajectory(second, 1)
    np.random.seed(0)  # the library draws from the global generator in a few tasks
    trajectory(second, 2)
    assert np.array_equal(trajectory(second, 5), expected)
    assert np.array_equal(trajectory(first, 5), expected)
    assert not np.array_equal(trajectory(first, 6), expected)


@pytest.mark.slow
def test_all_tasks_are_reproducible():
    for task in INSTRUCTIONS:
        env = TaskEnv(task=task, images=False)
        expected = trajectory(env, 5, steps=5)
        trajectory(env, 6, steps=5)
        assert np.array_equal(trajectory(env, 5, steps=5), expected), task


def test_reset_leaves_the_global_generator_alone(env):
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    env.reset(seed=0)
    assert np.random.random() == expected


def test_without_a_seed_episodes_differ_but_follow_from_the_last_seed(env):
    def placements():
        env.reset(seed=0)
        return [env.reset()[0][ENVIRONMENT_STATE] for _ in range(2)]

    first, second = placements(), placements()
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, second)


def test_truncates_at_the_horizon():
    env = TaskEnv(images=False, horizon=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_cameras_show_something_upright(camera):
    env = TaskEnv(camera=camera, image_size=48)
    frame = env.reset(seed=0)[0][f"observation.images.{camera}"]
    assert frame.std() > 10
    if camera in ("corner", "corner2", "corner4"):  # above the room there is nothing but black
        assert frame[:4].mean() < frame[-4:].mean()
    assert np.array_equal(env.render(), frame)
    env.close()


def test_full_rendering_is_another_look_of_the_same_scene(env):
    full = TaskEnv(image_size=64, render="full")
    lean_frame, full_frame = env.reset(seed=0)[0][IMAGE], full.reset(seed=0)[0][IMAGE]
    full.close()
    assert not np.array_equal(lean_frame, full_frame)
    table = slice(32, 64)  # the sky above differs
    assert np.corrcoef(lean_frame[table].ravel(), full_frame[table].ravel())[0, 1] > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "hamer-v3"}, "unknown task of metaworld 'hamer-v3': did you mean hammer-v3"),
        ({"camera": "corner5"}, "unknown camera of metaworld 'corner5': did you mean corner"),
        ({"render": "leen"}, "unknown render 'leen': did you mean lean"),
        ({"horizon": 501}, r"horizon must be in \[1, 500\], got 501"),
        ({"image_size": 0}, "image_size must be a whole number of at least 1, got 0"),
        ({"render_mode": "human"}, "render_mode must be"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(UsageError, match=message):
        TaskEnv(**options)


def test_cortex_protocol_ends_at_its_horizon_and_counts_the_last_step():
    env = TaskEnv(task="drawer-open-v3", protocol="cortex", camera="top_cap2", images=False)
    assert (env.horizon, env.spec_of_task.ends_on_success) == (500, False)
    env.reset(seed=0)
    said = iter([False, True, False])
    step = env.simulation.step
    env.simulation.step = lambda action: step(action)._replace(success=next(said))
    ends = [env.step(np.zeros(4, np.float32))[2:] for _ in range(3)]
    assert [end[0] for end in ends] == [False, False, False]
    assert [(info["success"], info["success_once"]) for *_, info in ends] == [
        (False, False),
        (True, True),
        (False, True),
    ]


def test_cortex_has_the_papers_tasks():
    assert sorted(CORTEX_TASKS) == sorted(
        f"{name}-v3" for name in ("assembly", "bin-picking", "button-press-topdown", "drawer-open", "hammer")
    )
    with pytest.raises(UsageError, match="under protocol cortex 'reach-v3'"):
        TaskEnv(task="reach-v3", protocol="cortex")


def test_top_cap2_looks_at_the_table_from_the_papers_position():
    env = TaskEnv(camera="top_cap2", image_size=48)
    env.reset(seed=0)
    seen = env._renderer._scene.camera[0]
    other_eye = env._renderer._scene.camera[1].pos
    assert np.allclose((seen.pos + other_eye) / 2, [0, 0.9, 0.6], atol=1e-5)
    table = env.simulation.data.body("tablelink").xpos
    direction = table - np.array([0, 0.9, 0.6])
    assert np.allclose(seen.forward, direction / np.linalg.norm(direction), atol=1e-5)
    assert abs(np.cross(seen.forward, seen.up)[2]) < 1e-6  # upright
    env.close()
