"""pixmc's scripted behaviour does the tasks."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("robosuite") is None:
    pytest.skip("robosuite has the robots' files", allow_module_level=True)

from embodied.envs.suites.pixmc.kinematics import displacement, turn_between
from embodied.envs.suites.pixmc.robots import ROBOTS
from embodied.envs.suites.pixmc.suite import INSTRUCTIONS, SUITE, make
from embodied.envs.suites.pixmc.techniques import grip_rotation

QUICK = ("franka-reach", "franka-pick", "kuka-reach", "kuka-pick")


def successes(task, seeds, noise_std=0.0):
    """Whether the scripted behaviour did the task within the default horizon, per seed."""
    simulation = make(task)
    expert = SUITE.make_expert("scripted", task, simulation)
    done = []
    for seed in seeds:
        simulation.reset(seed)
        expert.reset(seed)
        noise = np.random.default_rng(seed)
        for _ in range(simulation.spec.horizon):
            action = expert.act({})
            assert action.dtype == np.float32
            assert np.abs(action).max() <= 1
            kick = noise.normal(size=action.shape) * noise_std
            progress = simulation.step(np.clip(action + kick, -1, 1).astype(np.float32))
            if progress.success:
                break
        done.append(progress.success)
    return done


@pytest.mark.parametrize("task", QUICK)
def test_scripted_succeeds(task):
    assert successes(task, (11, 12, 13)) == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(INSTRUCTIONS))
def test_scripted_succeeds_in_spite_of_noise_on_its_actions(task):
    assert np.mean(successes(task, range(100, 120), noise_std=0.05)) >= 0.9


def test_picking_starts_again_when_the_cube_is_lost():
    simulation = make("franka-pick")
    expert = SUITE.make_expert("scripted", "franka-pick", simulation)
    simulation.reset(3)
    expert.reset(3)
    taken_away = False
    for _ in range(simulation.spec.horizon):
        progress = simulation.step(expert.act({}))
        cube = simulation.data.joint("cube")
        if not taken_away and cube.qpos[2] > 0.06:
            cube.qpos[:3], cube.qvel[:] = [0.45, -0.1, 0.025], 0
            taken_away = True
        if progress.success:
            break
    assert taken_away
    assert progress.success


def test_a_new_episode_starts_the_plan_anew():
    simulation = make("kuka-pick")
    expert = SUITE.make_expert("scripted", "kuka-pick", simulation)

    def first_actions():
        simulation.reset(4)
        expert.reset(4)
        actions = []
        for _ in range(60):  # long enough to have closed the hand
            actions.append(expert.act({}))
            simulation.step(actions[-1])
        return np.array(actions)

    assert np.array_equal(first_actions(), first_actions())


def test_the_expert_only_reads_the_simulation():
    simulation = make("franka-pick")
    expert = SUITE.make_expert("scripted", "franka-pick", simulation)
    simulation.reset(0)
    expert.reset(0)
    before = simulation.data.qpos.copy(), simulation.data.qvel.copy(), simulation.data.ctrl.copy()
    for _ in range(3):
        expert.act({})
    after = simulation.data.qpos, simulation.data.qvel, simulation.data.ctrl
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_grip_rotation_points_down_and_forward():
    assert grip_rotation(0, 0) == pytest.approx(np.diag([1, -1, -1]), abs=1e-12)
    down = grip_rotation(90, 0)
    assert down[:, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert down[:, 2] == pytest.approx([0, 0, -1], abs=1e-12)
    assert grip_rotation(0, 90)[:, 2] == pytest.approx([1, 0, 0], abs=1e-12)
    assert np.linalg.det(grip_rotation(33, 21)) == pytest.approx(1)


def test_turn_between_is_the_rotation_vector():
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert turn_between(np.eye(3), quarter) == pytest.approx([0, 0, np.pi / 2])
    assert turn_between(quarter, quarter) == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_displacements_move_the_grip_as_asked(robot):
    import mujoco

    simulation = make(f"{robot}-reach")
    simulation.reset(0)
    model, data = simulation.model, simulation.data
    joints = [model.joint(name) for name in ROBOTS[robot].joints[:7]]
    site = data.site("grip")
    before, upright = site.xpos.copy(), site.xmat.reshape(3, 3).copy()
    step = displacement(
        model,
        data,
        site=site.id,
        dofs=np.array([joint.dofadr[0] for joint in joints]),
        shift=np.array([0.01, -0.005, 0.01]),
        turn=np.zeros(3),
        posture=np.zeros(7),
    )
    data.qpos[[joint.qposadr[0] for joint in joints]] += step
    mujoco.mj_kinematics(model, data)
    assert site.xpos - before == pytest.approx([0.01, -0.005, 0.01], abs=2e-3)
    assert np.abs(turn_between(upright, site.xmat.reshape(3, 3))).max() < 0.01
