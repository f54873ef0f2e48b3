"""The environment behind a simulated robot, checked against the robot's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import image_key
from embodied.envs.task_env import TaskEnv
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.images import IMAGE

_ARRAY = "std_msgs/msg/Float64MultiArray"
_PREFIX = image_key("")


def make_environment(robot: RobotDescription, env: Mapping[str, Any]) -> TaskEnv:
    """The environment with the cameras, joints and axes of `robot`.

    Args:
        env: arguments of `TaskEnv`; without `camera`, the robot's.

    Raises:
        UsageError: they do not fit one another; says what does not.
    """
    _check_robot(robot)
    inputs = [camera.input for camera in robot.cameras.values()]
    cameras = [name.removeprefix(_PREFIX) for name in inputs]
    options = dict(env)
    if options.get("camera") is None and cameras:
        options["camera"] = cameras if len(cameras) > 1 else cameras[0]
    made = TaskEnv(**{"images": bool(cameras), **options})
    try:
        _check_environment(robot, made, inputs)
    except UsageError:
        made.close()
        raise
    return made


def _check_robot(robot: RobotDescription) -> None:
    """What the simulator can be: commanded by arrays of positions, with uncompressed images."""
    if robot.kind == "twist" or robot.command.type != _ARRAY or (robot.gripper and robot.gripper.topic):
        raise UsageError(
            f"robot {robot.name} cannot be simulated: a simulated robot takes positions of all axes as one {_ARRAY}"
        )
    if robot.joint_states is None:
        raise UsageError(f"robot {robot.name} cannot be simulated: it has no joint_states")
    for name, camera in robot.cameras.items():
        if camera.topic.type != IMAGE:
            raise UsageError(f"robot {robot.name}, camera {name}: a simulated camera sends {IMAGE}")


def _check_environment(robot: RobotDescription, made: TaskEnv, inputs: list[str]) -> None:
    spec = made.spec_of_task
    if len(spec.action) != len(robot.axes):
        raise UsageError(
            f"robot {robot.name} has {len(robot.axes)} axes ({', '.join(robot.axis_names)}), an action of "
            f"{made.suite} {made.task} has {len(spec.action)} ({', '.join(spec.action)})"
        )
    for name in [*robot.state, *(axis.name for axis in robot.axes if axis.measured)]:
        if name not in spec.state:
            raise unknown_name(f"joint of {made.suite} {made.task}", name, spec.state)
    for name in inputs:
        if name not in made.observation_space.spaces:  # type: ignore[attr-defined]
            raise UsageError(f"camera={list(made.cameras)} leaves out {name} of robot {robot.name}")
