"""Robot descriptions: those that come along, and one message for each mistake."""

import math
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from real_robots import toy_content, toy_robot

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.description.reading import load_robot, read_robot, shipped_robots
from embodied.real_robot.transports.opening import transport_names


def mistakes(content):
    with pytest.raises(UsageError) as caught:
        read_robot(content, path=Path("toy.yaml"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["ros2_arm", "ros2_mobile", "sim"])
def test_the_robots_that_come_along_are_valid(name):
    robot = load_robot(name)
    assert name in shipped_robots() and robot.name == name
    assert robot.cameras and len(robot.axis_names) == len(set(robot.axis_names))
    assert 0 < robot.stopping_s < 1.5


def test_the_simulated_robot_has_the_axes_of_meta_world():
    robot = load_robot("sim")
    assert robot.kind == "cartesian_delta"
    assert robot.axis_names == ("hand.x", "hand.y", "hand.z", "gripper") == robot.state
    assert robot.column("scale")[:3].tolist() == [0.01] * 3
    assert robot.gripper_index == 3


def test_limits_of_a_velocity_robot_are_one_derivative_lower():
    robot = load_robot("ros2_mobile")
    limits = robot.limits()
    assert limits.high.tolist() == [0.4, 1.0] and limits.low.tolist() == [-0.4, -1.0]
    assert limits.velocity.tolist() == [0.6, 2.0] and limits.acceleration.tolist() == [4.0, 12.0]


def test_limits_of_an_arm_are_those_of_its_axes():
    robot = toy_robot()
    assert robot.limits().jerk.tolist() == [40.0, 40.0]
    assert robot.state == ("one", "two")
    assert np.isinf(toy_robot(axes={"two": {**toy_content()["axes"]["two"], "step": math.inf}}).limits().step[1])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("axes", "one", "velocty"), 1.0, "axes.one: unknown key 'velocty': did you mean velocity?"),
        (("axes", "one", "velocity"), None, "axes.one.velocity: missing"),
        (("axes", "one", "velocity"), -1, "axes.one.velocity: must be greater than 0, got -1"),
        (("axes", "one", "velocity"), "fast", "axes.one.velocity: expected a number, got 'fast'"),
        (("axes", "one", "velocity"), math.inf, "axes.one.velocity: expected a finite number, got inf"),
        (("axes", "one", "velocity"), True, "axes.one.velocity: expected a number, got True"),
        (("axes", "one", "low"), 2.0, "axes.one.low: must be below high, got 2 and 1"),
        (("axes", "one", "home"), 2.0, "axes.one.home: must be in -1 .. 1, got 2"),
        (("axes", "one", "unit"), "deg", "axes.one.unit: unknown choice 'deg': choose one of 1, m, rad"),
        (("axes", "one", "measured"), False, "axes.one.measured: step, tracking and jump need a measured axis"),
        (("axes", "one"), 3, "axes.one: expected a mapping, got int"),
        (("axes",), None, "axes: at least one is needed"),
        (("command", "kind"), "joint_postion", "command.kind: unknown choice 'joint_postion': did you mean"),
        (("command", "topic"), "arm", "command.topic: topic must be an absolute ROS name"),
        (("command", "type"), "std_msgs/msg/Bool", "command.type: must be trajectory_msgs/msg/JointTrajectory or"),
        (("rates", "command_hz"), 5, "rates.command_hz: must be at least 10, got 5"),
        (("rates", "policy_hz"), 200, "rates.command_hz must not be below policy_hz, got 100 and 200"),
        (("joint_states",), None, "joint_states: missing, and axes are measured"),
        (("state",), ["one", "twoo"], "state: unknown name 'twoo': did you mean two?"),
        (("timeouts", "chunk_s"), 0, "timeouts.chunk_s: must be greater than 0, got 0"),
        (("execution", "steps"), 0.5, "execution.steps: expected a whole number in 1 .. 1000, got 0.5"),
        (("execution", "merge"), "bland", "execution.merge: unknown choice 'bland': did you mean blend?"),
        (("execution",), {"merge": "blend", "align": "arrival"}, "execution.align: arrival makes sense"),
        (("gripper",), {"axis": "one", "opened": 0, "closed": 1, "action": [1, 1]}, "gripper.action: the actions"),
        (("gripper",), {"axis": "one", "opened": 0, "closed": 1, "action": 1}, "gripper.action: expected a list of 2"),
        (("estop",), {"topic": "/joint_states", "type": "std_msgs/msg/Bool"}, "topic /joint_states is used twice"),
        (("workspace",), {"model": "no", "site": "tip", "low_m": [0] * 3, "high_m": [1] * 3}, "workspace.model: no"),
        (
            ("workspace",),
            {"model": "embodied:ur5.xml", "site": "tip", "low_m": [0] * 3, "high_m": [1] * 3},
            "workspace.model: unknown model that comes along 'ur5.xml': did you mean ur5e.xml?",
        ),
        (
            ("workspace",),
            {"model": "embodied:../robots/sim.yaml", "site": "tip", "low_m": [0] * 3, "high_m": [1] * 3},
            "workspace.model: unknown model that comes along",
        ),
        (("transport", "name"), "ddss", "transport.name: unknown choice 'ddss': did you mean dds?"),
        (("trasport",), {}, "the file: unknown key 'trasport': did you mean transport?"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_message(place, value, message):
    content = toy_content()
    section = content
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    text = mistakes(content)
    assert text.startswith(f"toy.yaml: {message}"), text
    assert "\n" not in text


def test_several_mistakes_are_told_at_once():
    content = toy_content()
    content["axes"]["one"]["jerk"] = 0
    del content["rates"]
    text = mistakes(content).splitlines()
    assert text[0] == "toy.yaml:"
    wrong = [line.strip().partition(":")[0] for line in text[1:]]
    assert wrong == ["axes.one.jerk", "rates.command_hz", "rates.policy_hz"]


def test_a_velocity_robot_has_no_gripper_and_known_axes():
    content = toy_content()
    content["command"] = {"kind": "twist", "topic": "/cmd_vel", "type": "geometry_msgs/msg/Twist"}
    content["axes"] = {"one": {"unit": "m", "velocity": 1, "acceleration": 1, "jerk": 1}}
    assert "axes.one: an axis of a twist is one of linear.x" in mistakes(content)


def test_files_are_found_by_path_and_names_by_nearness(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(toy_content()))
    assert load_robot(path).name == "toy"
    with pytest.raises(UsageError, match=r"'ros2_amr' is neither a file .* did you mean ros2_arm"):
        load_robot("ros2_amr")


def test_files_are_read_safely(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_robot(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="cannot be read"):
        load_robot(path)
    path.write_text("- a list")
    with pytest.raises(UsageError, match="the file: expected a mapping, got list"):
        load_robot(path)


def test_a_model_comes_along_or_is_beside_the_file(tmp_path):
    (tmp_path / "arm.xml").touch()
    box = {"site": "tip", "low_m": [0] * 3, "high_m": [1] * 3}
    content = toy_content()
    for model, found in (("arm.xml", tmp_path / "arm.xml"), (str(tmp_path / "arm.xml"), tmp_path / "arm.xml")):
        content["workspace"] = {"model": model, **box}
        assert read_robot(content, path=tmp_path / "toy.yaml").workspace.model == found.resolve()
    content["workspace"] = {"model": "embodied:ur5e.xml", **box}
    assert read_robot(content, path=tmp_path / "toy.yaml").workspace.model == load_robot("ros2_arm").workspace.model


def test_a_description_names_any_module_of_the_transports_that_opens_one(tmp_path, monkeypatch):
    (tmp_path / "can.py").write_text("def open_transport(*, port=1):\n    raise NotImplementedError\n")
    (tmp_path / "frames.py").write_text("x = 1\n")
    package = import_module("embodied.real_robot.transports")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    transport_names.cache_clear()
    try:
        content = toy_content()
        content["transport"] = {"name": "can", "options": {"port": 2}}
        assert read_robot(content, path=Path("toy.yaml")).transport == "can"
        assert "embodied.real_robot.transports.can" not in sys.modules
        content["transport"] = {"name": "frames"}
        assert "transport.name: unknown choice 'frames'" in mistakes(content)
    finally:
        transport_names.cache_clear()
