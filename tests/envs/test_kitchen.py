"""The Franka kitchen: the library's physics and rules, our placement, R3M's protocol, the scripted expert."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

if find_spec("gymnasium_robotics") is None:  # importing it would import MuJoCo before a GL library is chosen
    pytest.skip("gymnasium-robotics is not installed", allow_module_level=True)

from reference_trajectories import check_reference, trajectory_hash

from embodied.core.errors import MissingExtraError, UsageError
from embodied.core.protocols import STATE
from embodied.envs.registry import load_suite
from embodied.envs.suites import _robotics
from embodied.envs.suites.kitchen.scripted import HANDLINGS
from embodied.envs.suites.kitchen.tasks import CAMERAS, GOALS, INSTRUCTIONS, LIBRARY_NAMES, R3M_TASKS, SEQUENCES
from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim  # importing the library wants a GL library
NOTHING = np.zeros(9, np.float32)


def make(task="micro_open", **options):
    return TaskEnv(suite="kitchen", task=task, images=False, **options)


def simulation(task="micro_open", protocol=None, **options):
    return load_suite("kitchen").make(task, protocol=protocol, **options)


def put(sim, name, joints=None):
    """Move an object to its goal, or some joints to values, as seen from where the kitchen stands."""
    if joints is None:
        joints = dict(zip(GOALS[name].joints, GOALS[name].target, strict=True))
    for joint, value in joints.items():
        sim.data.qpos[joint] = value + (sim._offset[joint - 23] if 23 <= joint < 26 else 0)


def trajectory(sim, seed, steps=6):
    random = np.random.default_rng(9)
    sim.reset(seed)
    found = [np.concatenate(sim.observe())]
    for _ in range(steps):
        sim.step(random.uniform(-1, 1, 9).astype(np.float32))
        found.append(np.concatenate(sim.observe()))
    return np.stack(found)


@pytest.fixture(scope="module")
def sim():
    return simulation()


def test_goals_are_the_librarys_where_it_has_the_object():
    from gymnasium_robotics.envs.franka_kitchen import kitchen_env as library

    assert set(LIBRARY_NAMES.values()) == set(library.OBS_ELEMENT_GOALS)
    assert library.BONUS_THRESH == 0.3
    for name, theirs in LIBRARY_NAMES.items():
        assert np.array_equal(GOALS[name].joints, library.OBS_ELEMENT_INDICES[theirs])
        assert np.array_equal(GOALS[name].target, library.OBS_ELEMENT_GOALS[theirs])


def test_joints_of_goals_are_the_models(sim):
    name_of = {int(address): sim.model.joint(joint).name for joint, address in enumerate(sim.model.jnt_qposadr)}
    first = {task: name_of[goal.joints[0]] for task, goal in GOALS.items()}
    assert first["knob3_on"] == "knob_Joint_3"
    assert first["ldoor_open"] == first["rdoor_open"] == "left_hinge_cabinet"
    assert {task: name_of[goal.r3m[0]] for task, goal in GOALS.items() if goal.r3m} == {
        "knob1_on": "knob_Joint_1",
        "light_on": "light_switch",
        "sdoor_open": "slide_cabinet",
        "ldoor_open": "left_hinge_cabinet",
        "micro_open": "microwave",
    }


def test_every_task_has_its_own_instruction():
    assert set(INSTRUCTIONS) == {*GOALS, *SEQUENCES}
    assert len(set(INSTRUCTIONS.values())) == len(INSTRUCTIONS)


def test_the_list_of_tasks_needs_no_simulator():
    code = (
        "import sys; from embodied.envs.registry import load_suite; print(len(load_suite('kitchen').instructions)); "
        "sys.exit(not {'gymnasium_robotics', 'mujoco', 'torch'}.isdisjoint(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "12\n"), result.stderr


@pytest.mark.parametrize("task", ["knob1_on", "microwave_kettle_light_slide"])
def test_tasks_reset_step_and_render_from_every_camera(task):
    env = TaskEnv(suite="kitchen", task=task, camera=list(CAMERAS), image_size=32)
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(np.full(9, 0.1, np.float32))
    env.close()
    assert observation in env.observation_space
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"success": False, "success_once": False, "score": 0.0}
    frames = [observation[f"observation.images.{camera}"] for camera in CAMERAS]
    assert all(frame.std() > 20 for frame in frames)
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(INSTRUCTIONS))
def test_every_task_resets_steps_and_does_what_it_did(task):
    env = TaskEnv(suite="kitchen", task=task, image_size=32)
    env.reset(seed=0)
    observation, *_ = env.step(NOTHING)
    env.close()
    assert observation in env.observation_space
    check_reference("kitchen", task)


def test_a_task_does_what_it_did():
    check_reference("kitchen", "microwave_kettle_burner_light")


def test_gymnasiums_checker_passes():
    made = gymnasium.make("embodied.envs.registration:embodied/kitchen-sdoor_open", image_size=32)
    check_env(made.unwrapped)
    made.close()


def test_physics_is_the_librarys(sim):
    theirs = simulation().library
    sim.reset(3)
    robot = theirs.robot_env
    theirs.reset(seed=0)
    robot.model.body_pos[:] = sim.model.body_pos
    robot.set_state(sim.data.qpos, sim.data.qvel)
    robot._last_robot_qpos = sim.data.qpos[:9].copy()
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 9)).astype(np.float32):
        sim.step(action)
        observation, *_ = theirs.step(action.astype(np.float64))
        assert np.array_equal(sim.data.qpos, theirs.data.qpos)
        assert np.array_equal(sim.observe()[1][:59], observation["observation"].astype(np.float32))


def test_same_seed_same_trajectory_after_other_episodes(sim):
    fresh = simulation()
    expected = trajectory(fresh, 5)
    trajectory(sim, 6)
    np.random.seed(0)
    assert np.array_equal(trajectory(sim, 5), expected)
    assert np.array_equal(trajectory(fresh, 5), expected)
    assert not np.array_equal(trajectory(fresh, 6), expected)


def test_same_seed_same_trajectory_in_another_process():
    code = "from reference_trajectories import trajectory_hash; print(trajectory_hash('kitchen', 'micro_open'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert result.stdout.strip() == trajectory_hash("kitchen", "micro_open")
    assert result.stderr == ""  # the library greets there, which must not reach the user


def test_no_object_shows_in_the_state(sim):
    import mujoco

    sim.reset(0)
    state, privileged = sim.observe()
    sim.data.qpos[9:] += 0.05
    sim.model.body_pos[sim._desk] += 0.05
    mujoco.mj_forward(sim.model, sim.data)
    moved_state, moved = sim.observe()
    assert state.shape == (18,) == (len(sim.spec.state),)
    assert np.array_equal(state, moved_state)
    assert not np.array_equal(privileged, moved)


def test_the_kitchen_and_the_kettle_are_placed_anew_each_episode(sim):
    offsets, gaps, arms = [], [], []
    for seed in range(20):
        sim.reset(seed)
        offsets.append(sim.model.body("desk").pos - (-0.1, 0.75, 0))
        gaps.append(sim.data.body("kettle").xpos - sim.data.body("desk").xpos)
        arms.append(sim.data.qpos[:9].copy())
    offsets = np.array(offsets)
    assert np.abs(offsets).max() <= 0.05
    assert (offsets.std(axis=0) > 0.015).all()
    assert np.allclose(gaps, gaps[0])
    assert len({tuple(arm) for arm in arms}) == 20


def test_randomize_says_how_far_the_kitchen_is_moved():
    sim = simulation(randomize=0)
    starts = []
    for seed in (0, 1):
        sim.reset(seed)
        starts.append(sim.data.qpos.copy())
    assert np.array_equal(sim.model.body("desk").pos, (-0.1, 0.75, 0))
    assert np.array_equal(starts[0][9:], starts[1][9:])
    assert not np.array_equal(starts[0][:9], starts[1][:9])


@pytest.mark.parametrize("randomize", [-0.1, 0.2, "far", True])
def test_impossible_placements_are_refused(randomize):
    with pytest.raises(UsageError, match=r"env.randomize must be in \[0, 0.15\] metres, got"):
        make(randomize=randomize)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "micro_opn"}, "unknown task of kitchen 'micro_opn': did you mean micro_open"),
        ({"camera": "frnt"}, "unknown camera of kitchen 'frnt': did you mean front"),
        ({"task": "rdoor_open", "protocol": "r3m"}, "unknown task of kitchen under protocol r3m 'rdoor_open'"),
        ({"protocol": "cortex"}, "unknown protocol 'cortex' of kitchen: it has r3m"),
    ],
)
def test_unknown_names(options, message):
    with pytest.raises(UsageError, match=message):
        TaskEnv(suite="kitchen", images=False, **options)


@pytest.mark.parametrize("task", sorted(GOALS))
def test_success_is_the_librarys_threshold(sim, task):
    other = sim._goals, sim._done
    sim.reset(1)
    sim._goals, sim._done = {task: GOALS[task]}, {task: 0}
    assert not sim._progress().success
    put(sim, task)
    sim.data.qpos[GOALS[task].joints[0]] += 0.28  # of 0.3
    first, second = sim._progress(), sim._progress()
    sim.data.qpos[GOALS[task].joints[0]] += 0.03
    third = sim._progress()
    sim._goals, sim._done = other
    assert (first.reward, first.success, first.score) == (1.0, True, None)
    assert (second.reward, second.success) == (0.0, True)  # the library gives the reward once
    assert not third.success


def test_a_sequence_is_done_when_each_object_has_been():
    sim = simulation("microwave_kettle_light_slide")
    sim.reset(0)
    seen = []
    for name in ("light_on", "micro_open", "kettle_move", "sdoor_open"):
        put(sim, name)
        progress = sim._progress()
        seen.append((progress.reward, progress.success, progress.score))
        sim.data.qpos[:] = sim._robot.init_qpos  # what was done before may be undone
    assert seen == [(1.0, False, 0.25), (1.0, False, 0.5), (1.0, False, 0.75), (1.0, True, 1.0)]
    assert sim.observe()[1][-4:].tolist() == [1, 1, 1, 1]


def test_the_library_agrees_that_a_sequence_is_done(sim):
    theirs = sim.library
    theirs.reset(seed=0)
    for name in LIBRARY_NAMES:
        for joint, value in zip(GOALS[name].joints, GOALS[name].target, strict=True):
            theirs.data.qpos[joint] = value
    goals = {task: theirs.data.qpos[list(GOALS[name].joints)] for name, task in LIBRARY_NAMES.items()}
    assert theirs.compute_reward(goals, theirs.goal, {}) == 7


def test_r3m_protocol():
    env = make("micro_open", protocol="r3m")
    sim = env.simulation
    observation, _ = env.reset(seed=0)
    assert observation[STATE].shape == (9,)
    assert env.horizon == 50
    put(sim, "micro_open", {22: -1.25 + 0.13 * 2.094})
    seen = [sim._progress().success for _ in range(7)]
    assert seen == [False] * 5 + [True] * 2  # on more than 5 steps
    env.reset(seed=0)
    put(sim, "micro_open", {22: -1.25, 19: 0.1})
    assert [sim._progress().reward for _ in range(8)] == [0.0] * 8  # another door was opened, too
    put(sim, "micro_open", {22: -0.75, 19: 0.0})
    assert sim._progress().reward == 0  # enough for the library only
    assert [name for name in GOALS if GOALS[name].r3m] == list(R3M_TASKS)


def test_r3m_actions_are_faster_and_its_episodes_go_on_after_success():
    env = make("light_on", protocol="r3m")
    env.reset(seed=0)
    assert env.simulation.speed == pytest.approx(2 * np.pi)
    assert simulation().speed == 2
    for _ in range(8):
        put(env.simulation, "light_on", {17: -0.7, 18: -0.05})
        _, _, terminated, _, info = env.step(NOTHING)
    assert info["success"]
    assert not terminated


@pytest.mark.parametrize("task", ["sdoor_open", "kettle_move", "ldoor_open"])
def test_the_scripted_expert_does_it(task):
    play(task, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(INSTRUCTIONS))
def test_the_scripted_expert_does_every_task(task):
    play(task, seed=100)


def play(task, seed):
    env = make(task)
    expert = load_suite("kitchen").make_expert("scripted", task, env.simulation)
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    over = False
    while not over:
        before = env.simulation.data.qpos.copy()
        action = expert.act(observation)
        assert np.array_equal(before, env.simulation.data.qpos)
        assert action in env.action_space
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    assert info["success"], task


def test_every_object_has_a_script_and_there_is_no_other_kind_of_expert(sim):
    assert set(HANDLINGS) == set(GOALS)
    with pytest.raises(UsageError, match=r"unknown collect.expert 'scriptd': did you mean scripted"):
        load_suite("kitchen").make_expert("scriptd", "ldoor_open", sim)


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    for name in ("envs", "envs.franka_kitchen"):
        monkeypatch.delitem(sys.modules, f"gymnasium_robotics.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=r"gymnasium-robotics is not installed: .*\[robotics\]"):
        _robotics.import_robotics("envs.franka_kitchen")


def test_the_privileged_state_says_where_the_handle_of_a_moved_kitchen_is(sim):
    sim.reset(4)
    privileged = sim.observe()[1]
    assert privileged.shape == (66,) == (sim.spec.environment_state,)
    assert np.allclose(privileged[59:62], sim.model.body("desk").pos - (-0.1, 0.75, 0), atol=1e-6)
    assert np.allclose(privileged[62:65], sim.data.site("end_effector").xpos, atol=1e-6)
    assert privileged[65] == 0
