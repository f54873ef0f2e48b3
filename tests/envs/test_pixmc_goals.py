"""pixmc: when the four things to do are done, and what the way there costs, against hand-made states."""

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

if find_spec("robosuite") is None:
    pytest.skip("robosuite has the robots' files", allow_module_level=True)

from embodied.envs.suites.pixmc.robots import ROBOTS
from embodied.envs.suites.pixmc.suite import make


def still(simulation):
    return np.zeros(len(simulation.spec.action), np.float32)


def settle(simulation):
    """Make everything that follows from positions follow from the present ones."""
    import mujoco  # not above: a GL library is chosen before

    mujoco.mj_forward(simulation.model, simulation.data)


def place_cube(simulation, position):
    """Put the cube there, at rest."""
    joint = simulation.data.joint("cube")
    joint.qpos[:3], joint.qvel[:] = position, 0
    settle(simulation)


def fix_cube(simulation, position):
    """The cube neither falls nor touches anything, wherever it is put."""
    model = simulation.model
    model.geom_contype[model.geom("cube").id] = model.geom_conaffinity[model.geom("cube").id] = 0
    model.body_gravcomp[model.body("cube").id] = 1
    place_cube(simulation, position)


@pytest.mark.parametrize("task", ["franka-reach", "kuka-reach"])
def test_reach_is_done_within_5_cm_for_10_steps(task):
    simulation = make(task)
    simulation.reset(0)
    ball, grip = simulation.data.mocap_pos[0], simulation.data.site("grip").xpos
    ball[:] = grip + np.array([0, 0, 0.06])
    assert [simulation.step(still(simulation)).success for _ in range(12)] == [False] * 12
    ball[:] = grip + np.array([0, 0, 0.045])
    assert [simulation.step(still(simulation)).success for _ in range(12)] == [False] * 9 + [True] * 3
    ball[:] = grip + np.array([0, 0, 0.06])
    assert not simulation.step(still(simulation)).success
    assert simulation.spec.environment_state[-1] == "success.progress"
    assert simulation.observe()[1][-1] == 0  # a moment outside, and counting starts anew


@pytest.mark.parametrize("task", ["franka-pick", "kuka-pick"])
def test_pick_is_done_10_cm_above_the_table_for_10_steps(task):
    simulation = make(task)
    simulation.reset(0)
    fix_cube(simulation, [0.5, 0.3, 0.12])
    assert [simulation.step(still(simulation)).success for _ in range(12)] == [False] * 12
    place_cube(simulation, [0.5, 0.3, 0.13])
    assert [simulation.step(still(simulation)).success for _ in range(10)] == [False] * 9 + [True]


def test_move_is_done_within_5_cm_of_the_disc_for_10_steps():
    simulation = make("franka-move")
    simulation.reset(0)
    simulation.data.mocap_pos[0, :2] = [0.5, 0.1]
    place_cube(simulation, [0.5, 0.155, 0.025])
    assert [simulation.step(still(simulation)).success for _ in range(12)] == [False] * 12
    place_cube(simulation, [0.5, 0.145, 0.025])
    assert [simulation.step(still(simulation)).success for _ in range(10)] == [False] * 9 + [True]


@pytest.mark.parametrize("task", ["franka-cabinet", "kuka-cabinet"])
def test_cabinet_is_done_with_the_drawer_20_cm_open_for_10_steps(task):
    simulation = make(task)
    simulation.reset(0)
    simulation.data.joint("drawer").qpos[0] = 0.19
    assert [simulation.step(still(simulation)).success for _ in range(12)] == [False] * 12
    simulation.data.joint("drawer").qpos[0] = 0.21
    assert [simulation.step(still(simulation)).success for _ in range(10)] == [False] * 9 + [True]


def worths(simulation, arrangements, arrange):
    """What the goal finds each arrangement worth."""
    simulation.reset(0)
    found = []
    for arrangement in arrangements:
        arrange(arrangement)
        settle(simulation)
        found.append(simulation.goal.worth())
    return found


def rises(values):
    return all(later > earlier + 0.005 for earlier, later in pairwise(values))


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_rewards_rise_as_the_hand_comes_nearer(robot):
    def ball(distance):
        reach.data.mocap_pos[0] = reach.data.site("grip").xpos + np.array([0, distance, 0])

    def cabinet(distance):
        drawer.model.body_pos[drawer.model.body("cabinet").id, :2] = [0.8, distance]

    def cube(distance):
        grip = pick.data.site("grip").xpos
        pick.data.joint("cube").qpos[:3] = [grip[0], distance, 0.025]

    reach, drawer, pick = (make(f"{robot}-{goal}") for goal in ("reach", "cabinet", "pick"))
    assert rises(worths(reach, (0.4, 0.2, 0.1, 0.03), ball))
    assert rises(worths(drawer, (0.4, 0.3, 0.2, 0.0), cabinet))
    assert rises(worths(pick, (0.4, 0.3, 0.2, 0.0), cube))


def test_reach_costs_what_the_formula_says():
    simulation = make("franka-reach")
    simulation.reset(0)
    simulation.data.mocap_pos[0] = simulation.data.site("grip").xpos + np.array([0, 0, 0.2])
    assert simulation.step(still(simulation)).reward == pytest.approx(-np.tanh(0.6), abs=1e-3)


def test_opening_the_drawer_pays_up_to_20_cm():
    simulation = make("kuka-cabinet")

    def pull(opening):
        simulation.data.joint("drawer").qpos[0] = opening
        settle(simulation)
        away = simulation.data.site("handle").xpos - simulation.data.site("grip").xpos
        hand.append(0.4 * (1 - np.tanh(3 * np.linalg.norm(away))))

    hand = []
    found = worths(simulation, (0.0, 0.05, 0.1, 0.2, 0.25), pull)
    assert np.array(found) - hand == pytest.approx([0, 0.15, 0.3, 0.6, 0.6])


def test_lifting_the_cube_pays_up_to_10_cm():
    simulation = make("franka-pick")
    simulation.reset(0)
    grip = simulation.data.site("grip").xpos.copy()
    found = []
    for lift in (0.0, 0.05, 0.1, 0.2):  # 20 cm beside the hand wherever it is
        fix_cube(simulation, [grip[0], grip[1] + 0.2, 0.025 + lift])
        found.append(simulation.goal.worth() - 0.3 * (1 - np.tanh(3 * np.hypot(0.2, grip[2] - 0.025 - lift))))
    assert found == pytest.approx([0, 0.25, 0.5, 0.5], abs=1e-3)


def test_holding_the_cube_from_both_sides_pays():
    simulation = make("franka-pick")
    simulation.reset(0)
    hand = simulation.data.site("grip")
    simulation.data.joint("cube").qpos[:] = [*hand.xpos, *simulation.data.body("hand_right_gripper").xquat]
    found = []
    for left, right in ((0.04, -0.04), (0.024, -0.04), (0.024, -0.024)):
        simulation.data.joint("hand_finger_joint1").qpos[0] = left
        simulation.data.joint("hand_finger_joint2").qpos[0] = right
        settle(simulation)
        found.append((simulation.goal.held(), round(simulation.goal.worth(), 3)))
    assert found == [(False, 0.8), (False, 0.8), (True, 1.0)]


def test_bringing_the_cube_nearer_to_the_disc_pays():
    simulation = make("franka-move")

    def disc(distance):
        cube = simulation.data.joint("cube").qpos
        simulation.data.mocap_pos[0, :2] = cube[:2] + np.array([0, distance])

    assert rises(worths(simulation, (0.4, 0.2, 0.1, 0.05, 0.0), disc))
