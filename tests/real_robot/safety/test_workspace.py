"""Forward kinematics, and that no command leaves the box whatever the targets are."""

import numpy as np
import pytest
from real_robots import toy_robot

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.description.description import Workspace
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.safety.chain import STAGES, Reference, begin, engage, follow, refusal, settings_of
from embodied.real_robot.safety.motion import resting
from embodied.real_robot.safety.workspace import WorkspaceBox

PLANAR = """
<mujoco><option gravity="0 0 0"/><default><geom type="capsule" size=".01" mass="1"/></default><worldbody>
  <body><joint name="one" type="hinge" axis="0 0 1"/><geom fromto="0 0 0 1 0 0"/>
    <body pos="1 0 0"><joint name="two" type="hinge" axis="0 0 1"/><geom fromto="0 0 0 .5 0 0"/>
      <site name="tip" pos=".5 0 0"/></body></body>
</worldbody></mujoco>
"""
_Q = np.pi / 2
# d, a, alpha of each joint
UR5E = [(0.1625, 0, _Q), (0, -0.425, 0), (0, -0.3922, 0), (0.1333, 0, _Q), (0.0997, 0, -_Q), (0.0996, 0, 0)]


@pytest.fixture
def planar(tmp_path):
    (tmp_path / "planar.xml").write_text(PLANAR)
    low, high = [-2.0, -0.6, -1.0], [1.45, 0.6, 1.0]
    box = {"model": str(tmp_path / "planar.xml"), "site": "tip", "low_m": low, "high_m": high}
    return toy_robot(workspace=box, engage_ramp_s=0.0), np.array(low), np.array(high)


def tip(q):
    return np.array([np.cos(q[0]) + 0.5 * np.cos(q[0] + q[1]), np.sin(q[0]) + 0.5 * np.sin(q[0] + q[1]), 0])


def test_the_arm_that_comes_along_has_the_kinematics_of_its_makers_parameters():
    robot = load_robot("ros2_arm")
    box = WorkspaceBox(robot.workspace, robot.axis_names)
    for q in np.random.default_rng(0).uniform(-3, 3, (20, 7)):
        pose = np.eye(4)
        for angle, (d, a, alpha) in zip(q, UR5E, strict=False):
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, d], [0, 0, 0, 1]])
            c, s = np.cos(alpha), np.sin(alpha)
            pose = pose @ turn @ np.array([[1, 0, 0, a], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
        assert box.position(q) == pytest.approx(pose[:3, 3], abs=1e-9)
    assert box.reach[6] == 0 and (box.reach[:6] > 0).all()


def test_a_joint_moves_the_tip_by_no_more_than_its_reach(planar):
    robot, *_ = planar
    box = WorkspaceBox(robot.workspace, robot.axis_names)
    assert box.reach == pytest.approx([1.5, 0.5])
    random = np.random.default_rng(0)
    for start, step in random.uniform(-1, 1, (50, 2, 2)):
        moved = np.linalg.norm(box.position(start + 0.1 * step) - box.position(start))
        assert moved <= 0.1 * np.abs(step) @ box.reach + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_no_command_leaves_the_box(planar, seed):
    robot, low, high = planar
    settings = settings_of(robot)
    random = np.random.default_rng(seed)
    state = engage(begin(settings, np.array([0.3, 0.3])))
    clamped = np.zeros(len(STAGES), int)
    for k in range(250):
        if k % 20 == 0:
            target = random.uniform(-1.2, 1.2, 2)
        state, clamps, _ = follow(settings, state, state.motion.position, Reference(target, np.zeros(2)))
        clamped += clamps.any(1)
        at = tip(state.motion.position)
        assert (at >= low - 1e-9).all() and (at <= high + 1e-9).all()
    assert clamped[STAGES.index("workspace")] > 0


def test_a_target_across_the_wall_is_approached_up_to_it(planar):
    robot, *_ = planar
    settings = settings_of(robot)
    state = engage(begin(settings, np.array([0.0, 0.8])))
    for _ in range(300):
        state, _, _ = follow(settings, state, state.motion.position, Reference(np.array([0.9, 0.8]), np.zeros(2)))
    assert 0.55 < tip(state.motion.position)[1] <= 0.6


def test_a_tool_outside_the_box_is_not_engaged(planar):
    robot, *_ = planar
    settings = settings_of(robot)
    pose = np.array([0.8, 0.1])
    reason = refusal(settings, begin(settings, pose), pose, Reference(pose, np.zeros(2)))
    assert reason is not None and reason.startswith("the tool is outside the workspace by 0.5")


def test_the_whole_way_to_rest_is_looked_at_not_only_its_end(planar):
    robot, *_ = planar
    settings = settings_of(robot)
    box = settings.box
    rest = resting(np.array([0.0, 0.8]))
    assert box.keeps(rest, 0.01)
    assert not box.keeps(resting(np.array([0.8, 0.8])), 0.01)


def test_models_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "planar.xml").write_text(PLANAR)
    (tmp_path / "broken.xml").write_text("<mujoco>")
    good = {"model": tmp_path / "planar.xml", "site": "tip", "low_m": (0, 0, 0), "high_m": (1, 1, 1)}
    with pytest.raises(UsageError, match=r"unknown workspace.site 'tipp': did you mean tip\?"):
        WorkspaceBox(Workspace(**{**good, "site": "tipp"}), ("one",))
    with pytest.raises(UsageError, match="none of the axes a, b is a joint: one, two"):
        WorkspaceBox(Workspace(**good), ("a", "b"))
    with pytest.raises(UserError, match="not a MuJoCo model"):
        WorkspaceBox(Workspace(**{**good, "model": tmp_path / "broken.xml"}), ("one",))
