"""The DeepMind Control Suite: the library's physics and rewards, our score, success and proprioception."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

pytest.importorskip("dm_control")

from reference_trajectories import check_reference, trajectory_hash

from embodied.core.errors import MissingExtraError, UsageError
from embodied.core.protocols import ENVIRONMENT_STATE, STATE
from embodied.envs.registry import load_suite
from embodied.envs.suites.dmc.domains import DOMAINS, domain_of
from embodied.envs.suites.dmc.tasks import CORTEX_TASKS, INSTRUCTIONS, PUBLISHED_RETURNS, success_score
from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim  # importing the library wants a GL library
TASKS = sorted(INSTRUCTIONS)


def make(task, **options):
    return TaskEnv(suite="dmc", task=task, images=False, **options)


def library(task, seed):
    from dm_control import suite

    names = {f"{domain}_{name}": (domain, name) for domain, name in suite.BENCHMARKING}
    return suite.load(*names[task], task_kwargs={"random": seed})


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


def actions_for(env, count, seed=0):
    random = np.random.default_rng(seed)
    return [random.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(count)]


def trajectory(env, seed, steps=10):
    observation, _ = env.reset(seed=seed)
    found = [np.concatenate(list(observation.values()))]
    for action in actions_for(env, steps):
        observation, reward, *_ = env.step(action)
        found.append(np.append(np.concatenate(list(observation.values())), np.float32(reward)))
    return np.concatenate(found)


def rewarded(env, rewards):
    """The environment's simulator, made to give these rewards, one per control step."""
    given = iter(rewards)
    env.simulation._task.get_reward = lambda physics: next(given)
    return env


def test_tasks_are_the_librarys_benchmarking_set():
    from dm_control import suite

    assert sorted(f"{domain}_{name}" for domain, name in suite.BENCHMARKING) == TASKS
    assert len(set(INSTRUCTIONS.values())) == len(TASKS)
    assert set(PUBLISHED_RETURNS) <= set(TASKS)


def test_the_list_of_tasks_needs_no_simulator():
    code = (
        "import sys; from embodied.envs.registry import load_suite; print(len(load_suite('dmc').instructions)); "
        "sys.exit('dm_control' in sys.modules or 'mujoco' in sys.modules or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "28\n"), result.stderr


@pytest.mark.parametrize("task", TASKS)
def test_every_task_resets_steps_and_renders(task):
    env = TaskEnv(suite="dmc", task=task, image_size=32)
    model = env.simulation.model
    assert tuple(model.camera(number).name for number in range(model.ncam)) == domain_of(task).cameras
    observation, _ = env.reset(seed=0)
    for action in actions_for(env, 3):
        observation, reward, terminated, truncated, info = env.step(action)
        assert 0 <= reward <= 1
        assert 0 <= info["score"] <= 0.003
        assert (terminated, truncated) == (False, False)
    assert observation in env.observation_space
    assert all(np.isfinite(array).all() for array in observation.values())
    assert observation["observation.images.main"].std() > 3
    env.close()


def test_every_camera_is_named_by_the_suite_and_the_first_is_the_main_one():
    named = {camera for domain in DOMAINS.values() for camera in domain.cameras}
    assert set(load_suite("dmc").cameras) == {"main", *named}
    env = TaskEnv(suite="dmc", task="reacher_easy", image_size=32, camera=["main", "fixed", "hand"])
    observation, _ = env.reset(seed=0)
    env.close()
    main, fixed, hand = (observation[f"observation.images.{name}"] for name in ("main", "fixed", "hand"))
    assert np.array_equal(main, fixed)
    assert not np.array_equal(main, hand)


def test_a_camera_of_another_robot_is_refused():
    with pytest.raises(UsageError, match="unknown camera of reacher_easy 'side': choose one of fixed, hand, main"):
        TaskEnv(suite="dmc", task="reacher_easy", camera="side")


def test_gymnasiums_checker_passes():
    made = gymnasium.make("embodied.envs.registration:embodied/dmc-manipulator_bring_ball", image_size=32)
    check_env(made.unwrapped)
    made.close()


@pytest.mark.parametrize(
    "task", ["walker_walk", "fish_swim", "humanoid_run", "manipulator_bring_ball", "finger_turn_easy"]
)
def test_physics_rewards_and_observations_are_the_librarys(task):
    env, reference = make(task), library(task, 7)
    ours, theirs = env.reset(seed=7)[0], reference.reset().observation
    for action in actions_for(env, 20):
        found, expected = ours[ENVIRONMENT_STATE], flat(theirs)
        assert np.array_equal(found[: len(expected)], expected)
        step = reference.step(action)
        ours, reward, *_ = env.step(action)
        assert reward == step.reward
        theirs = step.observation


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_trajectory_in_a_fresh_and_a_used_environment(task):
    env = make(task)
    expected = trajectory(env, 5)
    np.random.seed(0)
    assert not np.array_equal(trajectory(env, 6), expected)
    assert np.array_equal(trajectory(env, 5), expected)


def test_same_seed_same_trajectory_in_another_process():
    from pathlib import Path

    code = "from reference_trajectories import trajectory_hash; print(trajectory_hash('dmc', 'swimmer_swimmer6'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert result.stdout.strip() == trajectory_hash("dmc", "swimmer_swimmer6"), result.stderr


@pytest.mark.parametrize("task", TASKS)
def test_reference_trajectories(task):
    check_reference("dmc", task)


def test_reset_leaves_the_global_generator_alone():
    env = make("reacher_easy")
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    env.reset(seed=0)
    assert np.random.random() == expected


def test_score_is_the_return_so_far_over_1000():
    env = rewarded(make("walker_walk"), [1.0, 0.5, 0.0, 0.25])
    env.reset(seed=0)
    scores = [env.step(action)[4]["score"] for action in actions_for(env, 4)]
    assert scores == pytest.approx([0.001, 0.0015, 0.0015, 0.00175])


def test_score_and_horizon_count_control_steps_whatever_the_action_repeat():
    env = rewarded(make("walker_walk", action_repeat=4), [0.5] * 1000)
    env.reset(seed=0)
    assert env.horizon == 250
    truncated, rewards = False, []
    while not truncated:
        *_, reward, _, truncated, info = env.step(np.zeros(6, np.float32))
        rewards.append(reward)
    assert rewards == [2.0] * 250
    assert info["score"] == pytest.approx(0.5)


def test_a_new_episode_starts_the_score_anew():
    env = rewarded(make("walker_walk"), [1.0, 1.0])
    for _ in range(2):
        env.reset(seed=0)
        assert env.step(np.zeros(6, np.float32))[4]["score"] == 0.001


def test_steps_after_the_thousandth_do_not_count():
    simulation = rewarded(make("pendulum_swingup"), [1.0] * 1001).simulation
    simulation.reset(0)
    scores = [simulation.step(np.zeros(1, np.float32)).score for _ in range(1001)]
    assert scores[-2:] == [1.0, 1.0]


def test_success_when_the_score_has_reached_the_tasks_threshold():
    assert success_score("cheetah_run") == 0.672  # 0.75 * 896 / 1000
    assert success_score("fish_upright") == 0.5
    simulation = rewarded(make("cheetah_run"), [1.0] * 672).simulation
    simulation.reset(0)
    successes = [simulation.step(np.zeros(6, np.float32)).success for _ in range(672)]
    assert successes.index(True) == 671
    assert not simulation.spec.ends_on_success


def joint(name, by):
    def move(model, data):
        data.qpos[model.joint(name).qposadr[0]] += by

    return move


def target(kind, name):
    def move(model, data):
        getattr(model, f"{kind}_pos")[getattr(model, kind)(name).id, 0] += 0.05

    return move


@pytest.mark.parametrize(
    ("task", "move"),
    [
        ("reacher_easy", target("geom", "target")),
        ("finger_spin", joint("hinge", 0.01)),
        ("finger_turn_hard", target("site", "target")),
        ("ball_in_cup_catch", joint("ball_x", 0.01)),
        ("fish_swim", target("geom", "target")),
        ("manipulator_bring_ball", joint("ball_z", 0.3)),
        ("manipulator_bring_ball", target("body", "target_ball")),
        ("swimmer_swimmer6", target("geom", "target")),
    ],
)
def test_no_object_and_no_target_in_proprioception(task, move):
    import mujoco

    simulation = make(task).simulation
    simulation.reset(0)
    state, environment_state = simulation.observe()
    move(simulation.model, simulation.data)
    mujoco.mj_forward(simulation.model, simulation.data)
    moved_state, moved_environment_state = simulation.observe()
    assert np.array_equal(state, moved_state)
    assert not np.array_equal(environment_state, moved_environment_state)


@pytest.mark.parametrize(
    ("task", "root"),
    [("walker_run", "rootx"), ("cheetah_run", "rootz"), ("hopper_hop", "rootx"), ("humanoid_walk", "root")],
)
def test_no_place_in_the_world_in_proprioception(task, root):
    import mujoco

    simulation = make(task).simulation
    simulation.reset(0)
    state, _ = simulation.observe()
    joint(root, 5.0)(simulation.model, simulation.data)
    mujoco.mj_kinematics(simulation.model, simulation.data)
    assert np.array_equal(simulation.observe()[0], state)


def test_proprioception_of_a_hand_made_posture():
    import mujoco

    env = make("reacher_easy")
    simulation = env.simulation
    assert simulation.spec.state == (
        *("wrist.position", "shoulder.cos", "shoulder.sin", "shoulder.velocity", "wrist.velocity"),
        *("finger.x", "finger.y"),
    )
    simulation.reset(0)
    simulation.data.qpos[:] = [np.pi / 2, 0]  # the arm, 0.12 + 0.12 m, along y
    simulation.data.qvel[:] = [3, -4]
    mujoco.mj_forward(simulation.model, simulation.data)
    assert simulation.observe()[0] == pytest.approx([0, 0, 1, 3, -4, 0, 0.24], abs=1e-6)


def test_proprioception_of_touch_and_inclination():
    import mujoco

    hopper = make("hopper_stand").simulation
    hopper.reset(0)
    hopper.data.sensordata[hopper.model.sensor("touch_toe").adr[0]] = np.e - 1
    assert hopper.observe()[0][hopper.spec.state.index("touch_toe.touch")] == pytest.approx(1)
    fish = make("fish_upright").simulation
    fish.data.qpos[3:7] = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]  # a quarter turn about x: up is along its y
    mujoco.mj_forward(fish.model, fish.data)
    for part, names in zip(fish.observe(), (fish.spec.state, fish.spec.environment_state), strict=True):
        up = [part[names.index(f"up.{axis}")] for axis in "xyz"]
        assert up == pytest.approx([0, 1, 0], abs=1e-6)


def test_names_are_as_many_as_numbers():
    for task in ("humanoid_walk", "manipulator_bring_ball", "swimmer_swimmer15", "acrobot_swingup"):
        env = make(task)
        observation, _ = env.reset(seed=0)
        assert len(env.spec_of_task.state) == len(set(env.spec_of_task.state)) == len(observation[STATE])
        names = env.spec_of_task.environment_state
        assert len(names) == len(set(names)) == len(observation[ENVIRONMENT_STATE])


def test_cortex_has_no_proprioception_and_holds_actions_for_two_control_steps():
    env, reference = make("finger_spin", protocol="cortex"), library("finger_spin", 3)
    observation, _ = env.reset(seed=3)
    reference.reset()
    assert STATE not in observation
    assert env.spec_of_task.state == ()
    assert (env.horizon, env.fps) == (500, 25.0)
    for action in actions_for(env, 5):
        reference.step(action)
        step = reference.step(action)
        observation, *_ = env.step(action)
        assert np.array_equal(observation[ENVIRONMENT_STATE], flat(step.observation))


def test_cortex_score_is_return_over_1000():
    env = rewarded(make("walker_stand", protocol="cortex"), [0.9] * 1000)
    env.reset(seed=0)
    truncated = False
    while not truncated:
        *_, truncated, info = env.step(np.zeros(6, np.float32))
    assert info["score"] == pytest.approx(0.9)


def test_cortex_has_five_tasks():
    assert load_suite("dmc").protocols == {"cortex": CORTEX_TASKS}
    with pytest.raises(
        UsageError, match="unknown task of dmc under protocol cortex 'reacher_hard': did you mean reacher_e"
    ):
        make("reacher_hard", protocol="cortex")


def test_a_simulation_that_diverges_ends_the_episode():
    env = make("cheetah_run")
    env.reset(seed=0)
    env.simulation.data.qvel[0] = np.nan
    observation, reward, terminated, truncated, info = env.step(np.zeros(6, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    assert np.isfinite(observation[ENVIRONMENT_STATE]).all()
    env.reset(seed=0)
    assert env.step(np.zeros(6, np.float32))[2] is False


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embodied-learning\[dmc\]'"):
        make("walker_walk")


def test_unknown_task_and_expert():
    with pytest.raises(UsageError, match="unknown task of dmc 'walker_wlak': did you mean walker_walk"):
        make("walker_wlak")
    suite = load_suite("dmc")
    with pytest.raises(UsageError, match="'scripted': choose one of rl"):
        suite.make_expert("scripted", "walker_walk", make("walker_walk").simulation)
