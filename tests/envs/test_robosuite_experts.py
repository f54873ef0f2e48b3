"""Scripts for robosuite: they solve their tasks, also when they are pushed, and only look at the simulation."""

from importlib.util import find_spec
from math import cos, pi, sin
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("robosuite") is None:  # importing it would import MuJoCo before a GL library is chosen
    pytest.skip("robosuite is not installed", allow_module_level=True)

from embodied.core.errors import UsageError
from embodied.core.seeding import numpy_generator
from embodied.envs.registry import load_suite
from embodied.envs.suites.robosuite import scripted_handover
from embodied.envs.suites.robosuite.scripted import OPEN, Scene, downward, nearest_to_y
from embodied.envs.suites.robosuite.scripted_blocks import step_back
from embodied.envs.suites.robosuite.scripted_nuts import plan_turn
from embodied.envs.suites.robosuite.scripted_pair import both
from embodied.envs.suites.robosuite.scripts import SCRIPTS, scripted_expert
from embodied.envs.suites.robosuite.tasks import TASKS

pytestmark = pytest.mark.sim  # importing the library wants a GL library
QUICK = ("Lift", "Door")
HARD = ("PickPlace", "NutAssembly", "TwoArmTransport")  # six to nine times of ten; the others, 48 to 50 times of 50


def make(task, protocol=None, **options):
    suite = load_suite("robosuite")
    sim = suite.make(task, protocol=protocol, **options)
    return sim, suite.make_expert("scripted", task, sim)


def attempt(sim, expert, seed, noise=0.1, steps=None):
    """Whether the task is done in the end, and the actions of the expert [T, A]."""
    kicks = numpy_generator(seed, "action noise")
    sim.reset(seed)
    expert.reset(seed)
    actions = []
    for _ in range(steps or sim.spec.horizon):
        actions.append(expert.act({}))
        kick = kicks.normal(size=len(actions[-1])) * noise
        kick[list(sim.spec.gripper)] = 0
        progress = sim.step(np.clip(actions[-1] + kick, -1, 1).astype(np.float32))
        if progress.failed or (progress.success and steps is None):
            break
    return progress.success, np.stack(actions)


@pytest.mark.parametrize("task", [*QUICK, *(pytest.param(task, marks=pytest.mark.slow) for task in SCRIPTS)])
def test_scripts_solve_their_tasks_under_noise(task):
    sim, expert = make(task)
    attempts = [attempt(sim, expert, seed) for seed in range(3)]
    assert sum(success for success, _ in attempts) >= (1 if task in HARD else 2)
    for _, actions in attempts:
        assert actions.dtype == np.float32
        assert (np.abs(actions) <= 1).all()


def test_every_task_has_a_script():
    assert set(SCRIPTS) == set(TASKS)


def test_what_lies_as_no_hand_can_take_it_is_left():
    import mujoco

    sim, _ = make("ToolHang")
    sim.reset(0)
    frame = sim.data.joint("frame_joint0")
    frame.qpos[:] = 0, -0.2, 0.9, 1, 0, 0, 0  # upright, and beside the stand
    mujoco.mj_forward(sim.model, sim.data)
    with pytest.raises(StopIteration) as end:
        next(SCRIPTS["ToolHang"](Scene(sim)))
    assert end.value.value is False


def test_an_expert_only_looks_and_does_the_same_again():
    sim, expert = make("Lift")
    _, first = attempt(sim, expert, 3)
    sim.reset(4)
    expert.reset(4)
    before = sim.data.qpos.copy(), sim.data.qvel.copy(), sim.data.ctrl.copy(), sim.model.body_pos.copy()
    for _ in range(3):
        expert.act({})
    after = sim.data.qpos, sim.data.qvel, sim.data.ctrl, sim.model.body_pos
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    assert np.array_equal(attempt(sim, expert, 3)[1], first)


def script(moves, outcome):
    for move in moves:
        yield np.full(7, move, np.float32)
    return outcome


@pytest.fixture
def arms():
    simulation = SimpleNamespace(spec=SimpleNamespace(gripper=(6, 13)))
    still = {"hand": None, "hand_rotation": None, "towards": lambda *_: np.full(7, -9, np.float32)}
    return [SimpleNamespace(simulation=simulation, **still)] * 2


def test_two_arms_move_side_by_side_and_the_first_to_fail_ends_it(arms):
    actions = both(arms, script([1, 2, 3], True), script([4], True))
    assert [next(actions)[[0, 7]].tolist() for _ in range(3)] == [[1, 4], [2, -9], [3, -9]]
    with pytest.raises(StopIteration) as end:
        next(actions)
    assert end.value.value is True
    actions = both(arms, script([1, 2, 3], True), script([4], False))
    next(actions)
    with pytest.raises(StopIteration) as end:
        next(actions)
    assert end.value.value is False


@pytest.mark.parametrize(("reached", "held", "tries"), [([0, 0, 1], 1, 3), ([0] * 9, 1, 3), ([0] * 9, 0, 1)])
def test_a_handle_that_was_missed_is_reached_for_again_while_it_is_held(arms, monkeypatch, reached, held, tries):
    outcomes = iter(reached)
    parts = {"_reach": lambda *_: script([4], next(outcomes)), "_holds": lambda *_: held}
    quiet = dict.fromkeys(("_meet", "_withdraw"), lambda *_: script([], True))
    for name, part in {**parts, **quiet}.items():
        monkeypatch.setattr(scripted_handover, name, part)
    actions = scripted_handover.exchange(*arms, "hammer")
    moves = []
    with pytest.raises(StopIteration) as end:
        while True:
            moves.append(next(actions)[7])
    assert moves.count(4) == tries
    assert bool(end.value.value) == (1 in reached)


def test_an_arm_past_straight_is_stretched_before_it_comes_back():
    angles = iter((-0.1, -0.2, -0.6))
    arm = SimpleNamespace(
        base="robot0_base",
        hand=np.array([0.3, -0.1, 1.0]),
        hand_rotation=np.eye(3),
        position=lambda body: np.array([-0.5, -0.1, 0.9]),
        joint=lambda name: next(angles),
        misses=lambda *_: (1.0, 0.0),
        towards=lambda place, *_, **__: place,
    )
    places = step_back(arm)
    assert [next(places).round(3).tolist() for _ in range(3)] == [[0.4, -0.1, 1.0]] * 2 + [[-0.05, -0.1, 1.05]]


def test_a_robot_that_faces_elsewhere_moves_and_closes_in_its_own_axes():
    sim, _ = make("TwoArmLift")
    sim.reset(0)
    for number, ahead in ((0, 1.0), (1, -1.0)):  # they face each other along y
        arm = Scene(sim, number)
        action = arm.towards(arm.hand + np.array([0, 0.02 * ahead, 0]), arm.hand_rotation, OPEN)
        assert action == pytest.approx([0.8, 0, 0, 0, 0, 0, OPEN], abs=1e-5)
        assert arm.closing(np.array([1.0, 0.1, 0.0])) @ arm.rotation(arm.base)[:, 1] > 0.9


def test_what_slips_is_fetched_again_and_what_is_done_is_kept():
    sim, expert = make("Lift", protocol="robomimic")  # the episode goes on
    assert attempt(sim, expert, 0, steps=40)[0]
    sim.data.joint("cube_joint0").qpos[:3] = 0.02, 0.02, 0.82
    sim.data.joint("cube_joint0").qvel[:] = 0
    found = [sim.step(expert.act({})).success for _ in range(120)]
    assert not found[0]
    assert all(found[-40:])


@pytest.mark.parametrize(("name", "peg"), [("SquareNut", (0.79, 0.1, 0)), ("RoundNut", (0.79, -0.1, 0))])
def test_every_nut_can_be_turned_to_its_peg_within_reach(name, peg):
    for angle in np.linspace(-pi, pi, 721):
        handle = np.array([cos(angle), sin(angle), 0.0])
        closing, turn = plan_turn(name, handle, np.array(peg))
        assert handle @ closing == pytest.approx(0, abs=1e-9)
        assert abs(turn) < 3.5
        on_peg = angle + turn
        assert np.hypot(peg[0] + 0.06 * cos(on_peg), peg[1] + 0.06 * sin(on_peg)) < 0.76  # the near side
        if name == "SquareNut":
            assert sin(2 * on_peg) == pytest.approx(0, abs=1e-9)


def test_the_hand_points_down_and_closes_along_the_nearest_axis():
    assert downward(np.array([0.0, 2.0, 5.0])).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
    axes = np.array([[3.0, 4.0, 0.0], [4.0, -3.0, 0.0], [0.0, 0.0, 5.0]])  # of a cube, on whichever of its sides
    assert nearest_to_y(*axes).tolist() == [0.6, 0.8, 0.0]
    assert nearest_to_y(*-axes[::-1]).tolist() == [0.6, 0.8, 0.0]


@pytest.mark.parametrize(
    ("task", "robot", "controller", "message"),
    [
        ("Lift", "Sawyer", "OSC_POSE", "move a Panda with controller=OSC_POSE, not a Sawyer with OSC_POSE"),
        ("Lift", "Panda", "JOINT_POSITION", "not a Panda with JOINT_POSITION"),
    ],
)
def test_a_robot_that_scripts_do_not_know_is_refused(task, robot, controller, message):
    with pytest.raises(UsageError, match=message):
        scripted_expert(task, SimpleNamespace(spec=SimpleNamespace(robot=robot), controller=controller))


def test_another_kind_of_expert_is_refused():
    with pytest.raises(UsageError, match="'rl': choose one of scripted"):
        load_suite("robosuite").make_expert("rl", "Lift", None)
