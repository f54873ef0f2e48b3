"""robosuite: the library's physics, rewards and rules, without its observables, its renderer and its noise."""

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

if find_spec("robosuite") is None:  # importing it would import MuJoCo before a GL library is chosen
    pytest.skip("robosuite is not installed", allow_module_level=True)

from reference_trajectories import check_reference

from embodied.core.errors import MissingExtraError, UsageError
from embodied.core.protocols import ENVIRONMENT_STATE, STATE
from embodied.envs.registry import load_suite
from embodied.envs.suites.robosuite.tasks import CAMERAS, CONTROLLERS, ROBOMIMIC_TASKS, ROBOTS, TASKS
from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim  # importing the library wants a GL library
QUICK = ("Door", "Wipe")  # both keep something in the model from reset to reset


def simulation(task="Lift", protocol=None, **options):
    return load_suite("robosuite").make(task, protocol=protocol, **options)


def actions_for(sim, count):
    random = np.random.default_rng(9)
    return random.uniform(-1, 1, (count, len(sim.spec.action))).astype(np.float32)


def trajectory(sim, seed, steps=10):
    sim.reset(seed)
    found = [np.concatenate(sim.observe())]
    for action in actions_for(sim, steps):
        progress = sim.step(action)
        found.append(np.append(np.concatenate(sim.observe()), np.float32(progress.reward)))
    return np.concatenate(found)


def slow(tasks):
    return [pytest.param(task, marks=pytest.mark.slow) for task in sorted(tasks)]


@cache
def shared(task):
    """A simulation of a task that other tests use, too. It stays, with its 120 MB: for few tasks only."""
    return simulation(task)


@pytest.fixture
def lift():
    return shared("Lift")


@pytest.fixture
def wipe():
    return shared("Wipe")


def test_the_list_of_tasks_needs_no_simulator():
    code = (
        "import sys; from embodied.envs.registry import load_suite; print(len(load_suite('robosuite').instructions)); "
        "sys.exit('robosuite' in sys.modules or 'mujoco' in sys.modules or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "17\n"), result.stderr


def test_tasks_are_the_librarys(lift):
    from robosuite.environments.base import REGISTERED_ENVS

    # A random nut or grocery per episode, which nothing in a picture tells: the tasks of one kind are the same.
    assert set(TASKS) == set(REGISTERED_ENVS) - {"NutAssemblySingle", "PickPlaceSingle"}
    assert set(ROBOMIMIC_TASKS) < set(TASKS)
    assert len({task.instruction for task in TASKS.values()}) == len(TASKS)


def test_importing_the_library_says_and_changes_nothing():
    code = (
        "import os; from embodied.envs.registry import load_suite; "
        "sim = load_suite('robosuite').make('Lift'); sim.reset(0); "
        "print(os.environ['MUJOCO_GL'], os.environ['MUJOCO_EGL_DEVICE_ID'])"
    )
    wishes = {"MUJOCO_GL": "glfw", "MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "7"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **wishes})
    assert (result.returncode, result.stdout, result.stderr) == (0, "glfw 0\n", "")


def test_gymnasiums_checker_passes():
    made = gymnasium.make("embodied.envs.registration:embodied/robosuite-Lift", image_size=16)
    check_env(made.unwrapped)
    made.close()


def test_observation_is_what_the_robot_knows_and_what_is_privileged(lift):
    lift.reset(3)
    state, privileged = lift.observe()
    assert (state.dtype, privileged.dtype) == (np.float32, np.float32)
    found = dict(zip(lift.spec.environment_state, privileged.tolist(), strict=True))
    assert {name: found[name] for name in lift.spec.state} == dict(zip(lift.spec.state, state.tolist(), strict=True))
    position = [found[f"eef.{axis}"] for axis in "xyz"]
    cube = [found[f"cube_main.{axis}"] for axis in "xyz"]
    assert position == pytest.approx([-0.1, 0.0, 1.0], abs=0.05)  # above the table, whose top is at 0.8
    assert cube == pytest.approx([0.0, 0.0, 0.82], abs=0.05)
    assert [found[f"eef_to_cube_main.{axis}"] for axis in "xyz"] == pytest.approx(np.subtract(cube, position), abs=1e-6)
    assert np.linalg.norm([found[f"eef.q{axis}"] for axis in "xyzw"]) == pytest.approx(1, abs=1e-6)
    assert [found[f"joint{number}.velocity"] for number in range(1, 8)] == [0] * 7
    assert found["finger1.position"] == -found["finger2.position"] > 0


def test_no_object_leaks_into_proprioception(lift):
    import mujoco

    lift.reset(0)
    state, privileged = lift.observe()
    lift.data.joint("cube_joint0").qpos[:3] += [0.05, 0.05, 0.1]
    mujoco.mj_forward(lift.model, lift.data)
    moved_state, moved_privileged = lift.observe()
    assert np.array_equal(state, moved_state)
    assert not np.array_equal(privileged, moved_privileged)


@pytest.mark.parametrize(("task", "protocol"), [("Door", None), ("Lift", "robomimic")])
def test_physics_rewards_and_proprioception_are_the_librarys(task, protocol):
    import robosuite

    ours, old = simulation(task, protocol), protocol == "robomimic"
    config = robosuite.load_composite_controller_config(robot="Panda")
    config["body_parts"]["right"]["input_ref_frame"] = "world" if old else "base"
    library = robosuite.make(
        task,
        robots="Panda",
        controller_configs=config,
        use_camera_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        renderer="mujoco",
        hard_reset=False,
        reward_shaping=not old,
        lite_physics=not old,
        seed=0,
    )
    library.rng.bit_generator.state = np.random.default_rng(4).bit_generator.state
    theirs = library.reset()
    ours.reset(4)
    for action in actions_for(ours, 12):
        known = [theirs[f"robot0_{name}"] for name in ("joint_pos", "joint_vel", "eef_pos", "eef_quat", "gripper_qpos")]
        # Their observation is of one physics step before the end of an action.
        assert ours.observe()[0] == pytest.approx(np.concatenate(known), abs=0.05)
        theirs, reward, *_ = library.step(action)
        assert ours.step(action).reward == reward
        assert np.array_equal(ours.data.qpos, library.sim.data.qpos)


@pytest.mark.parametrize("task", [*QUICK, *slow(set(TASKS) - set(QUICK))])
def test_same_seed_same_trajectory_in_fresh_and_used_simulations(task):
    fresh, used = simulation(task), simulation(task)
    np.random.seed(0)
    trajectory(used, 1)
    expected = trajectory(fresh, 5)
    assert np.array_equal(trajectory(used, 5), expected)
    assert np.array_equal(trajectory(fresh, 5), expected)
    if TASKS[task].bodies:
        assert not np.array_equal(trajectory(fresh, 6), expected)
    assert np.random.random() == np.random.RandomState(0).random()  # the global generator was left alone


@pytest.mark.parametrize("task", ["Lift", *slow(set(TASKS) - {"Lift"})])
def test_trajectories_are_the_recorded_ones(task):
    check_reference("robosuite", task)


def test_lift_succeeds_with_the_cube_4_cm_above_the_table(lift):
    nothing = np.zeros(7, np.float32)
    lift.reset(0)
    on_table = lift.step(nothing)
    assert (on_table.success, on_table.failed) == (False, False)
    assert 0 < on_table.reward < 0.1
    lift.data.joint("cube_joint0").qpos[2] = 0.9  # in the air: it falls by 1 cm within an action
    raised = lift.step(nothing)
    assert (raised.success, raised.reward) == (True, 1.0)


def test_door_succeeds_when_it_is_open_by_more_than_0_3_radians():
    sim = shared("Door")
    sim.reset(0)
    found = []
    for angle in (0.2, 0.35):
        sim.data.joint("Door_hinge").qpos[0] = angle
        found.append(sim.step(np.zeros(7, np.float32)).success)
    assert found == [False, True]


def test_wipe_succeeds_when_nothing_is_left_and_fails_near_a_joint_limit(wipe):
    nothing = np.zeros(6, np.float32)
    wipe.reset(0)
    assert len(wipe.dirt) == 100
    assert wipe.step(nothing)[1:] == (False, None, False)
    wipe.library.wiped_markers = list(wipe.library.model.mujoco_arena.markers)
    assert wipe.step(nothing)[1:] == (True, None, False)
    wipe.reset(0)
    wipe.data.joint("robot0_joint6").qpos[0] = 3.7  # its limit is 3.75
    touched = wipe.step(nothing)
    assert touched[1:] == (False, None, True)
    assert touched.reward < 0
    wipe.reset(0)
    assert wipe.step(nothing).failed is False


def test_dirt_that_is_wiped_leaves_the_privileged_state(wipe):
    wipe.reset(0)
    names = wipe.spec.environment_state
    places = [names.index(f"dirt7.{what}") for what in ("x", "y", "present")]
    x, y, present = wipe.observe()[1][places]
    assert (x, y) == pytest.approx(wipe.dirt[7], abs=1e-6)
    assert present == 1
    geom = wipe.model.geom(wipe.library.model.mujoco_arena.markers[7].visual_geoms[0])
    geom.rgba[3] = 0  # as the library does
    assert wipe.observe()[1][places[2]] == 0
    assert len(wipe.dirt) == 99
    wipe.reset(0)
    assert len(wipe.dirt) == 100


def test_a_hammer_whose_head_hangs_straight_down_has_a_height():
    import mujoco
    from robosuite.utils.transform_utils import quat2mat

    sim = simulation("TwoArmHandover")
    sim.reset(0)
    library, data = sim.library, sim.data
    joint = data.joint(library.hammer.joints[0])
    beyond = 0
    for angle in np.linspace(0, np.pi, 100):
        joint.qpos[:] = 0, 0, 1.5, 0, np.cos(angle), np.sin(angle), 0  # half a turn about a level axis
        mujoco.mj_forward(sim.model, data)
        beyond += quat2mat(library._hammer_quat)[2, 2] < -1  # here the library's arccosine is nan
        assert library._hammer_angle == pytest.approx(-np.pi / 2, abs=1e-3)
        assert library.reward() > 0.5  # of a hammer in the air
    assert beyond > 0
    joint.qpos[3:] = np.sqrt(0.5), np.sqrt(0.5), 0, 0
    mujoco.mj_forward(sim.model, data)
    assert library._hammer_angle == pytest.approx(0, abs=1e-6)


def test_robomimics_protocol_is_sparse_and_does_not_end():
    env = TaskEnv(suite="robosuite", task="Lift", protocol="robomimic", images=False, horizon=3)
    env.reset(seed=0)
    nothing = np.zeros(7, np.float32)
    assert env.step(nothing)[1] == 0
    env.simulation.data.joint("cube_joint0").qpos[2] = 0.95
    _, reward, terminated, _, info = env.step(nothing)
    assert (reward, terminated, info["success"]) == (1.0, False, True)
    env.simulation.data.joint("cube_joint0").qpos[2] = 0.82
    _, reward, _, truncated, info = env.step(nothing)
    assert (reward, truncated, info["success"], info["success_once"]) == (0.0, True, False, True)
    assert {name: TASKS[name].horizon for name in ROBOMIMIC_TASKS} == {
        "Lift": 400,
        "PickPlaceCan": 400,
        "NutAssemblySquare": 400,
        "ToolHang": 700,
        "TwoArmTransport": 700,
    }


def test_only_the_sign_of_the_gripper_counts_and_1_closes(lift):
    openings = []
    for grip in (1.0, 0.1, -0.1, -1.0):
        lift.reset(0)
        for _ in range(10):
            lift.step(np.array([*[0] * 6, grip], np.float32))
        openings.append(lift.data.qpos[lift.hands[0].fingers[0]])
    assert openings[0] == openings[1] < 0.005 < 0.035 < openings[2] == openings[3]


@pytest.mark.parametrize(
    ("robot", "controller", "arm"),
    [("UR5e", "JOINT_POSITION", 6)]
    + [pytest.param(robot, controller, None, marks=pytest.mark.slow) for robot in ROBOTS for controller in CONTROLLERS],
)
def test_every_robot_moves_under_every_controller(robot, controller, arm):
    sim = simulation(robot=robot, controller=controller)
    spec = sim.spec
    assert spec.robot == robot
    assert spec.gripper == (len(spec.action) - 1,)
    assert arm is None or len(spec.action) == arm + 1
    sim.reset(0)
    before, action = sim.observe()[0], np.zeros(len(spec.action), np.float32)
    moved, element = ("eef.x", 0) if controller.startswith("OSC") else (f"joint{len(action) - 1}.position", -2)
    action[element] = 1  # the wrist, where something of a Sawyer's is in the way of its first joint
    for _ in range(10):
        sim.step(action)
    after = sim.observe()[0]
    assert (after - before)[spec.state.index(moved)] > 0.05
    assert np.isfinite(after).all()


def test_two_arms_have_a_part_of_the_action_each():
    sim = simulation("TwoArmPegInHole")
    assert sim.spec.action[6] == "robot1.eef.dx"
    assert (len(sim.spec.action), sim.spec.gripper) == (12, ())
    sim.reset(0)
    before, action = sim.observe()[0], np.zeros(12, np.float32)
    action[8] = 1  # up
    for _ in range(10):
        sim.step(action)
    raised = sim.observe()[0] - before
    assert raised[sim.spec.state.index("robot1.eef.z")] > 0.05
    assert abs(raised[sim.spec.state.index("robot0.eef.z")]) < 0.01


def test_cameras_show_what_the_library_shows():
    cameras = ("agentview", "frontview", "sideview", "birdview", "robot0_eye_in_hand", "robot0_robotview")
    env = TaskEnv(suite="robosuite", task="Lift", camera=cameras, image_size=48)
    observation, _ = env.reset(seed=0)
    frames = {name: observation[f"observation.images.{name}"].astype(int) for name in cameras}
    env.close()
    assert min(frame.std() for frame in frames.values()) > 10
    for name in ("agentview", "robot0_robotview", "robot0_eye_in_hand"):  # the red cube is in the middle
        red = frames[name][..., 0] - frames[name][..., 1]
        assert red[8:40, 8:40].max() > 60
        assert red.max() == red[8:40, 8:40].max()
    assert frames["frontview"][:16].std() > 10  # the robot stands behind the table, and upright
    assert 0 not in env.simulation.model.geom_group  # the shapes for collisions


def test_wiped_dirt_leaves_the_picture():
    env = TaskEnv(suite="robosuite", task="Wipe", image_size=48)
    before = env.reset(seed=0)[0]["observation.images.agentview"]
    dark = (before.sum(axis=2) < 250).sum()
    for marker in env.simulation.library.model.mujoco_arena.markers:
        env.simulation.model.geom(marker.visual_geoms[0]).rgba[3] = 0
    after = env.render()
    env.close()
    assert dark > 60
    assert (after.sum(axis=2) < 250).sum() < dark / 2


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_resets_steps_and_renders_from_its_cameras(task):
    env = TaskEnv(suite="robosuite", task=task, image_size=32)
    spec = env.spec_of_task
    assert set(spec.cameras) <= set(CAMERAS)
    env.close()
    env = TaskEnv(suite="robosuite", task=task, image_size=32, camera=tuple(spec.cameras))
    observation, _ = env.reset(seed=0)
    for action in actions_for(env.simulation, 3):
        observation, reward, *_, info = env.step(action)
        assert np.isfinite(reward)
        assert info["success"] is False
    assert observation in env.observation_space
    for name in spec.cameras:
        assert observation[f"observation.images.{name}"].std() > 5, name
    assert np.isfinite(observation[STATE]).all()
    assert len(observation[ENVIRONMENT_STATE]) == len(spec.environment_state)
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "Lifft"}, "unknown task of robosuite 'Lifft': did you mean Lift"),
        ({"camera": "agentviev"}, "did you mean agentview"),
        ({"robot": "Pandar"}, "unknown robot of robosuite 'Pandar': did you mean Panda"),
        ({"controller": "OSC_POSES"}, "unknown controller of robosuite 'OSC_POSES': did you mean OSC_POSE"),
        ({"protocol": "cortex"}, "unknown protocol 'cortex' of robosuite: it has robomimic"),
        ({"protocol": "robomimic", "task": "Stack"}, "unknown task of robosuite under protocol robomimic 'Stack'"),
        ({"protocol": "robomimic", "robot": "Sawyer"}, "protocol robomimic means robot=Panda"),
        ({"robots": "Panda"}, "unknown option of robosuite 'robots': did you mean robot"),
        ({"camera": "shouldercamera0"}, "unknown camera of Lift 'shouldercamera0'"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(UsageError, match=message):
        TaskEnv(suite="robosuite", images=False, **options)


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(MissingExtraError, match=r"robosuite is not installed: .*'embodied-learning\[robosuite\]'"):
        simulation()
