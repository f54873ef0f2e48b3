"""A small robot and its settings, for tests of the safety layer and the command process."""

import copy
from pathlib import Path

from embodied.real_robot.description.description import Timeouts
from embodied.real_robot.description.reading import read_robot

_TIMEOUTS = {
    "joint_state_s": 0.1, "camera_s": 0.2, "source_s": 0.5, "frozen_s": 1.0, "chunk_s": 0.5, "heartbeat_s": 0.25,
    "enable_s": 0.3, "deadline_s": 0.05, "tracking_s": 0.1,
}  # fmt: skip
_AXIS = {
    "unit": "rad", "low": -1.0, "high": 1.0, "velocity": 1.0, "acceleration": 4.0, "jerk": 40.0,
    "step": 0.5, "tracking": 0.3, "jump": 0.2,
}  # fmt: skip
_ROBOT = {
    "name": "toy",
    "command": {
        "kind": "joint_position",
        "topic": "/arm/commands",
        "type": "std_msgs/msg/Float64MultiArray",
    },
    "rates": {"command_hz": 100, "policy_hz": 20},
    "axes": {"one": {**_AXIS}, "two": {**_AXIS}},
    "joint_states": {"topic": "/joint_states", "type": "sensor_msgs/msg/JointState"},
    "engage_ramp_s": 0.5,
    "timeouts": _TIMEOUTS,
    "execution": {"merge": "newest"},
    "transport": {"name": "memory"},
}


def timeouts(**changes):
    """Timeouts of the toy robot."""
    return Timeouts(**{**_TIMEOUTS, **changes})


def toy_content():
    """What a YAML file of the toy robot, an arm of two joints, would hold; the caller's to change."""
    return copy.deepcopy(_ROBOT)


def toy_robot(**changes):
    """The toy robot; a mapping in `changes` updates the section of that name."""
    content = toy_content()
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return read_robot(content, path=Path("toy.yaml"))


def toy_base():
    """A robot that takes one velocity and measures nothing: V = 0.5, A = 1, J = 8."""
    content = toy_content()
    del content["joint_states"]
    content["command"] = {"kind": "twist", "topic": "/cmd_vel", "type": "geometry_msgs/msg/Twist"}
    content["axes"] = {"linear.x": {"unit": "m", "velocity": 0.5, "acceleration": 1.0, "jerk": 8.0}}
    content["engage_ramp_s"] = 0
    return read_robot(content, path=Path("base.yaml"))
