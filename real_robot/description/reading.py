"""Robot descriptions from YAML files: `sim`, `ros2_arm`, `ros2_mobile`, or a path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import yaml

from embodied.core.errors import UsageError, UserError, near_names, unknown_name
from embodied.real_robot.description.description import (
    KINDS,
    Axis,
    Camera,
    Execution,
    Gripper,
    Kind,
    RobotDescription,
    Timeouts,
    Topic,
    Workspace,
)
from embodied.real_robot.description.section import Section
from embodied.real_robot.transports.opening import transport_names

MAX_FILE_BYTES = 1 << 20
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
ARRAY = "std_msgs/msg/Float64MultiArray"
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
JOINT_STATE = "sensor_msgs/msg/JointState"
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
BOOL, EMPTY, STRING = "std_msgs/msg/Bool", "std_msgs/msg/Empty", "std_msgs/msg/String"
TWIST_AXES = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")
ROOT = Path(__file__).parents[1]
SHIPPED = "embodied:"  # in front of a model that comes along, in real_robot/assets
# Where a topic of the safety layer is when a file does not say.
_CONTROL = {
    "enable": Topic("/embodied/enable", BOOL),
    "estop": Topic("/embodied/estop", BOOL),
    "reset": Topic("/embodied/reset", EMPTY),
    "status": Topic("/embodied/status", STRING),
}


def shipped_robots() -> list[str]:
    """Names of the descriptions that come along."""
    return sorted(file.stem for file in (ROOT / "robots").glob("*.yaml"))


def shipped_robot(name: str) -> Path:
    """The file of a description that comes along."""
    return ROOT / "robots" / f"{name}.yaml"


def load_robot(spec: str | Path) -> RobotDescription:
    """The robot of that name or file.

    Raises:
        UsageError: no such robot, or mistakes in its description, one line for each.
        UserError: the file cannot be read.
    """
    shipped = shipped_robots()
    if str(spec) in shipped:
        path = shipped_robot(str(spec))
    else:
        path = Path(spec)
        if not path.is_file():
            near = near_names(str(spec), shipped)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(shipped)}"
            raise UsageError(f"robot {str(spec)!r} is neither a file nor a robot that comes along: {hint}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than {MAX_FILE_BYTES} bytes, which no robot description is")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    return read_robot(content, path=path)


def read_robot(content: Any, *, path: Path) -> RobotDescription:
    """The robot that a parsed YAML file describes; `path` is named in errors and what files in it are relative to.

    Raises:
        UsageError: with one line for each mistake.
    """
    problems: list[str] = []
    top = Section(content, "", problems)
    robot = _robot(top, path)
    top.finish()
    if not problems:
        problems += _contradictions(robot)
    if problems:
        mistakes = f"{path}: {problems[0]}" if len(problems) == 1 else "\n  ".join([f"{path}:", *problems])
        raise UsageError(mistakes)
    return robot


def _robot(top: Section, path: Path) -> RobotDescription:
    command = top.section("command")
    kinds: tuple[str, ...] = KINDS
    kind: Kind = next(name for name in get_args(Kind) if name == command.choice("kind", kinds))
    types = (TWIST, TWIST_STAMPED) if kind == "twist" else (TRAJECTORY, ARRAY)
    output = Topic(command.topic("topic"), command.message_type("type", types))
    brake_tail = command.flag("brake_tail", default=output.type == TRAJECTORY)
    rates = top.section("rates")
    axes = tuple(_axis(name, section, kind) for name, section in top.sections("axes"))
    names = [axis.name for axis in axes]
    transport = top.section("transport")
    robot = RobotDescription(
        name=top.text("name"),
        kind=kind,
        axes=axes,
        state=top.names("state", names, default=[axis.name for axis in axes if axis.measured]),
        command=output,
        command_hz=rates.number("command_hz", least=10),
        policy_hz=rates.number("policy_hz", above=0),
        status_hz=rates.number("status_hz", default=5.0, above=0),
        brake_tail=brake_tail,
        joint_states=_topic(top, "joint_states", (JOINT_STATE,)) if top.has("joint_states") else None,
        cameras={name: _camera(section) for name, section in top.sections("cameras")},
        gripper=_gripper(top.section("gripper"), names) if top.has("gripper") else None,
        workspace=_workspace(top.section("workspace"), path.parent) if top.has("workspace") else None,
        enable=_control(top, "enable"),
        estop=_control(top, "estop"),
        reset=_control(top, "reset"),
        status=_control(top, "status"),
        engage_ramp_s=top.number("engage_ramp_s", least=0),
        timeouts=_timeouts(top.section("timeouts")),
        execution=_execution(top.section("execution")),
        transport=transport.choice("name", transport_names()),
        transport_options=transport.mapping("options"),
    )
    for section in (command, rates, transport):
        section.finish()
    return robot


def _topic(top: Section, key: str, types: tuple[str, ...]) -> Topic:
    section = top.section(key)
    topic = Topic(section.topic("topic"), section.message_type("type", types))
    section.finish()
    return topic


def _control(top: Section, key: str) -> Topic:
    default = _CONTROL[key]
    return _topic(top, key, (default.type,)) if top.has(key) else default


def _axis(name: str, section: Section, kind: Kind) -> Axis:
    twist = kind == "twist"
    axis = Axis(
        name=name,
        unit=section.choice("unit", ("rad", "m", "1")),
        low=-math.inf if twist else section.number("low"),
        high=math.inf if twist else section.number("high"),
        velocity=section.number("velocity", above=0),
        acceleration=section.number("acceleration", above=0),
        jerk=section.number("jerk", above=0),
        step=section.number("step", default=math.inf, above=0),
        tracking=section.number("tracking", default=math.inf, above=0),
        jump=section.number("jump", default=math.inf, above=0),
        home=section.number("home", default=0.0),
        scale=section.number("scale", default=1.0),
        measured=section.flag("measured", default=not twist),
    )
    if not twist and axis.low >= axis.high:
        section.problem("low", f"must be below high, got {axis.low:g} and {axis.high:g}")
    elif not axis.low <= axis.home <= axis.high:
        section.problem("home", f"must be in {axis.low:g} .. {axis.high:g}, got {axis.home:g}")
    if not axis.measured and math.isfinite(min(axis.step, axis.tracking, axis.jump)):
        section.problem("measured", "step, tracking and jump need a measured axis")
    section.finish()
    return axis


def _camera(section: Section) -> Camera:
    camera = Camera(
        topic=Topic(section.topic("topic"), section.message_type("type", IMAGES)), input=section.text("input")
    )
    section.finish()
    return camera


def _gripper(section: Section, names: list[str]) -> Gripper:
    low, high = section.numbers("action", 2)
    gripper = Gripper(
        axis=section.choice("axis", names or ["gripper"]),
        opened=section.number("opened"),
        closed=section.number("closed"),
        action=(low, high),
        topic=Topic(section.topic("topic"), section.message_type("type", (ARRAY, TRAJECTORY)))
        if section.has("topic")
        else None,
    )
    if gripper.topic is None:
        section.has("type")
    if low == high:
        section.problem("action", f"the actions of open and closed must differ, got {low:g} twice")
    section.finish()
    return gripper


def _workspace(section: Section, folder: Path) -> Workspace:
    low, high = section.numbers("low_m", 3), section.numbers("high_m", 3)
    named, shipped = section.text("model"), ROOT / "assets"
    beside, name = (shipped, named.removeprefix(SHIPPED)) if named.startswith(SHIPPED) else (folder, named)
    workspace = Workspace(
        model=(beside / name).resolve(),
        site=section.text("site"),
        low_m=(low[0], low[1], low[2]),
        high_m=(high[0], high[1], high[2]),
    )
    if beside == shipped:
        models = [file.name for file in shipped.glob("*.xml")]
        if name not in models:
            section.problem("model", str(unknown_name("model that comes along", name, models)))
    elif not workspace.model.is_file():
        section.problem("model", f"no file {workspace.model}")
    if any(a >= b for a, b in zip(low, high, strict=True)):
        section.problem("low_m", f"must be below high_m, got {list(low)} and {list(high)}")
    section.finish()
    return workspace


def _timeouts(section: Section) -> Timeouts:
    timeouts = Timeouts(
        joint_state_s=section.number("joint_state_s", above=0),
        camera_s=section.number("camera_s", above=0),
        source_s=section.number("source_s", default=math.inf, above=0),
        frozen_s=section.number("frozen_s", default=math.inf, above=0),
        chunk_s=section.number("chunk_s", above=0),
        heartbeat_s=section.number("heartbeat_s", above=0),
        enable_s=section.number("enable_s", above=0),
        deadline_s=section.number("deadline_s", above=0),
        tracking_s=section.number("tracking_s", default=0.1, least=0),
    )
    section.finish()
    return timeouts


def _execution(section: Section) -> Execution:
    merge = section.choice("merge", ("newest", "blend", "ensemble"))
    align = section.choice("align", ("observation", "arrival"), default="observation")
    execution = Execution(
        merge="blend" if merge == "blend" else "ensemble" if merge == "ensemble" else "newest",
        blend_s=section.number("blend_s", default=0.1, above=0),
        ensemble_m=section.number("ensemble_m", default=0.01, least=0),
        align="arrival" if align == "arrival" else "observation",
        steps=section.whole("steps", default=1000, least=1, most=1000),
    )
    section.finish()
    return execution


def _contradictions(robot: RobotDescription) -> list[str]:
    """What is wrong between sections that are right by themselves."""
    found = []
    if not robot.axes:
        found.append("axes: at least one is needed")
    if robot.command_hz < robot.policy_hz:
        found.append(f"rates.command_hz must not be below policy_hz, got {robot.command_hz:g} and {robot.policy_hz:g}")
    if robot.kind == "twist":
        found += [
            f"axes.{name}: an axis of a twist is one of {', '.join(TWIST_AXES)}"
            for name in robot.axis_names
            if name not in TWIST_AXES
        ]
        if robot.gripper or robot.workspace:
            found.append("command.kind: a twist has neither gripper nor workspace")
    elif robot.joint_states is None and any(axis.measured for axis in robot.axes):
        found.append("joint_states: missing, and axes are measured")
    if robot.workspace and robot.kind == "cartesian_delta":
        found.append("workspace: the axes of cartesian_delta have limits in space themselves, low and high")
    topics = [robot.command.name, *(camera.topic.name for camera in robot.cameras.values())]
    topics += [topic.name for topic in (robot.enable, robot.estop, robot.reset, robot.status)]
    topics += [topic.name for topic in (robot.joint_states, robot.gripper and robot.gripper.topic) if topic]
    found += [f"topic {name} is used twice" for name in sorted({name for name in topics if topics.count(name) > 1})]
    if robot.execution.merge != "newest" and robot.execution.align == "arrival":
        found.append("execution.align: arrival makes sense with merge newest only")
    return found
