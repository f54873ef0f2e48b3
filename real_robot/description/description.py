"""What a robot is, as far as a policy and the safety layer need to know.

Legend: N axes, in the order of the policy's action. Units: rad for joints that turn, m for what slides or moves in
space, s for times, Hz for rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embodied.real_robot.safety.limits import Limits, stopping_time

Kind = Literal["joint_position", "joint_delta", "cartesian_delta", "twist"]
KINDS: tuple[Kind, ...] = ("joint_position", "joint_delta", "cartesian_delta", "twist")
DELTAS = ("joint_delta", "cartesian_delta")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One number of a command.

    Attributes:
        name: of the joint, as in JointState and JointTrajectory; of a direction of the hand; or for `twist` one of
            linear.x .. angular.z.
        unit: `rad`, `m`, or `1` for what has none. Of a position, or for `twist` of a velocity's numerator.
        low, high: soft position limits; for `twist` not used.
        velocity, acceleration, jerk: limits, per s, s^2, s^3.
        step: how far a target may be from the measured position.
        tracking: how far a command may be from the measured position before the robot counts as not following.
        jump: how far the first target may be from the measured pose when the robot is engaged.
        home: position to start from.
        scale: what an action of 1 stands for: a displacement per step of the policy, or for `twist` a velocity.
        measured: whether JointState holds this axis in the same unit.
    """

    name: str
    unit: str
    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float
    step: float
    tracking: float
    jump: float
    home: float
    scale: float
    measured: bool


@dataclass(frozen=True)
class Topic:
    """A topic and its message type, such as `/joint_states` and `sensor_msgs/msg/JointState`."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera: its topic and the key of the policy's observation that it fills."""

    topic: Topic
    input: str


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """The axis whose action is absolute: actions from `action[0]` to `action[1]` go from `opened` to `closed`.

    `topic` is where it is commanded; None when it goes out with the other axes.
    """

    axis: str
    opened: float
    closed: float
    action: tuple[float, float]
    topic: Topic | None


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The box, m, in which a site of a MuJoCo model must stay; the model's joints have the names of the axes."""

    model: Path
    site: str
    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How old things may get, s.

    Attributes:
        joint_state_s, camera_s: since the last message was received.
        source_s: between the stamp in a message and its receipt; infinite = not looked at (clocks not synchronised).
        frozen_s: how long a camera may send the same picture.
        chunk_s: since the observation that the newest actions were computed from.
        heartbeat_s: since the policy's process last showed life.
        enable_s: since the last message of the enable topic.
        deadline_s: by how much a cycle of the command loop may be late.
        tracking_s: how long an axis may be off by more than its `tracking`.
    """

    joint_state_s: float
    camera_s: float
    source_s: float
    frozen_s: float
    chunk_s: float
    heartbeat_s: float
    enable_s: float
    deadline_s: float
    tracking_s: float


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How chunks of actions become one motion.

    Attributes:
        merge: `newest`: the newest chunk alone; `blend`: over `blend_s` from the one before to it; `ensemble`: all that
            speak of this moment, weights exp(-m i) with i = 0 for the oldest (Zhao et al. 2023, Algorithm 2).
        align: the first action belongs to the moment of the `observation` (what inference took is skipped) or of the
            chunk's `arrival`.
        steps: how many actions of a chunk are executed at most.
    """

    merge: Literal["newest", "blend", "ensemble"]
    blend_s: float
    ensemble_m: float
    align: Literal["observation", "arrival"]
    steps: int


@dataclass(frozen=True, kw_only=True)
class RobotDescription:
    """A robot, checked.

    Attributes:
        axes: by the order of the action, N.
        state: axes that make `observation.state`, in order.
        joint_states: None where a `twist` robot has none.
        transport: name of a back end, and its `transport_options`.
        brake_tail: a JointTrajectory also says how to come to rest should nothing follow.
    """

    name: str
    kind: Kind
    axes: tuple[Axis, ...]
    state: tuple[str, ...]
    command: Topic
    command_hz: float
    policy_hz: float
    status_hz: float
    brake_tail: bool
    joint_states: Topic | None
    cameras: Mapping[str, Camera]
    gripper: Gripper | None
    workspace: Workspace | None
    enable: Topic
    estop: Topic
    reset: Topic
    status: Topic
    engage_ramp_s: float
    timeouts: Timeouts
    execution: Execution
    transport: str
    transport_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """[N]"""
        return tuple(axis.name for axis in self.axes)

    @property
    def gripper_index(self) -> int | None:
        """Where the gripper stands among the axes."""
        return None if self.gripper is None else self.axis_names.index(self.gripper.axis)

    def column(self, name: str) -> np.ndarray:
        """An attribute of all axes, [N]."""
        return np.array([getattr(axis, name) for axis in self.axes])

    @property
    def stopping_s(self) -> float:
        """How long it takes at most from any motion to rest."""
        velocity, acceleration, jerk = (self.column(name) for name in ("velocity", "acceleration", "jerk"))
        return stopping_time(velocity, acceleration, jerk, 1 / self.command_hz)

    def limits(self) -> Limits:
        """What the trajectory filter keeps, [N].

        For `twist` one derivative is taken off: the filter's position is the velocity, its velocity the acceleration,
        its acceleration the jerk, which may change within one cycle.
        """
        if self.kind != "twist":
            names = ("low", "high", "velocity", "acceleration", "jerk", "step", "tracking")
            return Limits(**{name: self.column(name) for name in names})
        velocity, acceleration, jerk = (self.column(name) for name in ("velocity", "acceleration", "jerk"))
        none = np.full(len(self.axes), np.inf)
        return Limits(
            low=-velocity,
            high=velocity,
            velocity=acceleration,
            acceleration=jerk,
            jerk=2 * jerk * self.command_hz,
            step=none,
            tracking=none,
        )
