"""pixmc: the eight tasks, their placements, rewards and success."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

if find_spec("robosuite") is None:
    pytest.skip("robosuite has the robots' files", allow_module_level=True)

from reference_trajectories import check_reference, trajectory_hash

from embodied.core.errors import MissingExtraError, UsageError
from embodied.envs.registry import load_suite
from embodied.envs.suites.pixmc import assembly
from embodied.envs.suites.pixmc.goals import GOALS
from embodied.envs.suites.pixmc.robots import ROBOTS
from embodied.envs.suites.pixmc.suite import INSTRUCTIONS, SUITE, make
from embodied.envs.task_env import TaskEnv

TASKS = sorted(INSTRUCTIONS)


@pytest.fixture(scope="module")
def simulations():
    """One used simulation per task."""
    return {task: make(task) for task in TASKS}


def still(simulation):
    return np.zeros(len(simulation.spec.action), np.float32)


def random_actions(simulation, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(simulation.spec.action))).astype(np.float32)


def trajectory(simulation, seed, steps=10):
    simulation.reset(seed)
    found = [*simulation.observe()]
    for action in random_actions(simulation, steps):
        reward = simulation.step(action).reward
        found += [*simulation.observe(), np.float64([reward])]
    return np.concatenate(found)


def named(simulation, prefix):
    """The elements of the privileged state whose names begin so."""
    chosen = [name.startswith(prefix) for name in simulation.spec.environment_state]
    assert any(chosen), prefix
    return simulation.observe()[1][chosen]


def test_the_list_of_tasks_needs_no_simulator():
    code = (
        "import sys; from embodied.envs.registry import load_suite; print(len(load_suite('pixmc').instructions)); "
        "sys.exit('robosuite' in sys.modules or 'mujoco' in sys.modules or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "8\n"), result.stderr


def test_tasks_are_every_robot_with_everything_to_do(simulations):
    assert sorted(f"{robot}-{goal}" for robot in ROBOTS for goal in GOALS) == TASKS
    assert all(simulation.spec.instruction == INSTRUCTIONS[task] for task, simulation in simulations.items())
    assert load_suite("pixmc") is SUITE


def test_robosuite_itself_is_not_imported():
    code = """
import sys
from embodied.envs.suites.pixmc.suite import INSTRUCTIONS, make
assert all(make(task) for task in INSTRUCTIONS)
assert "mujoco" in sys.modules and "robosuite" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_robosuite_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(assembly, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"robosuite is not installed: .*embodied-learning\[robosuite\]"):
        assembly.robosuite_assets()


@pytest.mark.sim
@pytest.mark.parametrize("task", TASKS)
def test_gymnasiums_checker_passes(task):
    made = gymnasium.make(f"embodied.envs.registration:embodied/pixmc-{task}", image_size=32)
    check_env(made.unwrapped)
    made.close()


@pytest.mark.sim
@pytest.mark.parametrize("task", TASKS)
def test_both_cameras_show_something_else(task):
    env = TaskEnv(suite="pixmc", task=task, image_size=48, camera=["wrist", "front"])
    observation, _ = env.reset(seed=0)
    wrist, front = observation["observation.images.wrist"], observation["observation.images.front"]
    env.close()
    assert wrist.std() > 15
    assert front.std() > 15
    assert np.abs(wrist.astype(int) - front).mean() > 15


@pytest.mark.sim
@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_the_goal_is_seen_in_the_first_wrist_picture(robot):
    env = TaskEnv(suite="pixmc", task=f"{robot}-reach", image_size=64)
    seen = 0
    for seed in range(20):
        red, green, blue = env.reset(seed=seed)[0]["observation.images.wrist"].astype(int).transpose(2, 0, 1)
        seen += ((green > 1.5 * red) & (green > 1.5 * blue)).sum() >= 4
    env.close()
    assert seen >= 18


def test_what_a_robot_knows_and_does(simulations):
    sizes = dict(reach=7, cabinet=9, pick=19, move=26)  # of what is known of the things
    for task in TASKS:
        joints = {"franka": 9, "kuka": 19}[task.split("-")[0]]
        privileged = 3 * joints + 9 + sizes[task.split("-")[1]] + 1
        simulation = simulations[task]
        simulation.reset(0)
        state, environment_state = simulation.observe()
        spec = simulation.spec
        assert (state.dtype, environment_state.dtype) == (np.float32, np.float32)
        assert len(state) == len(spec.state) == 2 * joints
        assert len(environment_state) == len(spec.environment_state) == privileged
        assert len(set(spec.environment_state)) == privileged
        assert len(spec.action) == joints
        assert spec.gripper == tuple(range(7, joints))


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_trajectory_in_fresh_and_used_simulations(task, simulations):
    used, fresh = simulations[task], make(task)
    trajectory(used, 1, steps=30)
    expected = trajectory(fresh, 5)
    assert np.array_equal(trajectory(used, 5), expected)
    assert np.array_equal(trajectory(fresh, 5), expected)
    assert not np.array_equal(trajectory(fresh, 6), expected)


def test_same_seed_same_trajectory_in_another_process():
    code = "from reference_trajectories import trajectory_hash; print(trajectory_hash('pixmc', 'kuka-pick'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert result.stdout.strip() == trajectory_hash("pixmc", "kuka-pick"), result.stderr


@pytest.mark.parametrize("task", TASKS)
def test_reference_trajectories(task):
    check_reference("pixmc", task)


def test_reset_leaves_the_global_generator_alone(simulations):
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    simulations["franka-pick"].reset(0)
    assert np.random.random() == expected


@pytest.mark.parametrize("task", TASKS)
def test_random_actions_keep_everything_finite_and_rewards_bounded(task, simulations):
    simulation = simulations[task]
    simulation.reset(1)
    for action in random_actions(simulation, 500):
        progress = simulation.step(action)
        assert -1 <= progress.reward <= 0
    state, environment_state = simulation.observe()
    assert np.isfinite(environment_state).all()
    assert np.abs(state).max() < 20
    assert not simulation.data.warning.number.any()


@pytest.mark.parametrize("task", TASKS)
def test_actions_of_zeros_hold_still(task, simulations):
    simulation = simulations[task]
    simulation.reset(2)
    before = simulation.observe()[0]
    for _ in range(60):
        simulation.step(still(simulation))
    assert np.abs(simulation.observe()[0] - before).max() < 2e-3


@pytest.mark.parametrize("task", ["franka-reach", "kuka-reach"])
def test_an_action_moves_its_joint_by_the_stride(task, simulations):
    simulation = simulations[task]
    simulation.reset(0)
    before = simulation.observe()[0]
    action = still(simulation)
    action[3] = 1.0
    simulation.step(action)
    for _ in range(30):
        simulation.step(still(simulation))
    moved = (simulation.observe()[0] - before)[: len(action)]
    assert moved[3] == pytest.approx(0.05, abs=1e-3)
    assert np.abs(np.delete(moved, 3)).max() < 2e-3


def test_targets_stay_near_the_joints_so_that_forces_are_limited(simulations):
    simulation = simulations["franka-pick"]
    simulation.reset(0)
    down = still(simulation)
    down[1] = 1.0  # the shoulder, until the hand presses on the table
    for _ in range(100):
        simulation.step(down)
    ahead = simulation.data.ctrl[:7] - simulation.observe()[0][:7]
    assert ahead.max() <= 0.15 + 1e-3
    assert np.abs(simulation.data.actuator_force[:4]).max() <= 87


def test_placements_differ_and_stay_on_the_table(simulations):
    simulation = simulations["kuka-move"]
    cubes, goals = [], []
    for seed in range(30):
        simulation.reset(seed)
        cubes.append(named(simulation, "cube.")[:2])
        goals.append(named(simulation, "goal.")[:2])
    cubes, goals = np.array(cubes), np.array(goals)
    assert np.ptp(cubes, axis=0).min() > 0.15
    assert np.linalg.norm(cubes - goals, axis=1).min() >= 0.15
    assert (np.abs(cubes - [0.62, 0]) <= [0.1 + 1e-6, 0.2 + 1e-6]).all()


@pytest.mark.parametrize(
    ("task", "body"), [("franka-reach", "goal"), ("franka-pick", "cube"), ("kuka-move", "goal"), ("kuka-cabinet", None)]
)
def test_no_object_and_no_goal_leaks_into_proprioception(task, body, simulations):
    simulation = simulations[task]
    simulation.reset(0)
    before = simulation.observe()
    if body == "goal":
        simulation.data.mocap_pos[0] += [0.05, 0.05, 0.01]
    elif body == "cube":
        simulation.data.joint("cube").qpos[:3] += [0.05, 0.05, 0.1]
    else:
        simulation.data.joint("drawer").qpos += 0.1
    import mujoco  # not above: a GL library is chosen before

    mujoco.mj_forward(simulation.model, simulation.data)
    after = simulation.observe()
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_unknown_names_say_what_there_is(simulations):
    with pytest.raises(UsageError, match="did you mean franka-pick"):
        TaskEnv(suite="pixmc", task="franka-pik")
    with pytest.raises(UsageError, match=r"unknown collect\.expert 'script': did you mean scripted"):
        SUITE.make_expert("script", "franka-pick", simulations["franka-pick"])
