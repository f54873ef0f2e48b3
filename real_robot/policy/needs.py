"""What a policy needs of a robot, and whether the robot has it: settled before anything moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from embodied.core.errors import UsageError, near_names
from embodied.core.protocols import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE
from embodied.encoders.modality import input_keys
from embodied.policies.action_space import ActionSpace
from embodied.policies.bc import BCPolicy
from embodied.real_robot.description.description import DELTAS, RobotDescription

TARGETS = "joint_position"  # the kind of commands that say where to be
_WITHIN = 1e-6
_SAME_RATE = 0.02  # 29.97 frames/s are 30


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a policy sees and gives.

    Attributes:
        keys: of the observation that its encoder reads.
        image_size: S of the square frames that it was trained on.
        state_dim: P of `observation.state`, 0 where it does not look at it.
        action_dim: A.
        actions: the action space that it was trained for, if it says so.
        state_names: what is in `observation.state`, in order, if the recordings that it was trained on said so.
        offsets: which action (first) is learned as an offset from which value of the state; empty: none is.
        turning: numbers of the actions that are radians of joints without an end.
        hz: frames per second of these recordings; 0 where it is of a simulator, whose steps last as long as a robot's.
    """

    keys: tuple[str, ...]
    image_size: int
    state_dim: int
    action_dim: int
    actions: ActionSpace | None
    state_names: tuple[str, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()
    turning: tuple[int, ...] = ()
    hz: float = 0.0

    @property
    def looks(self) -> bool:
        """Whether it sees a camera."""
        return any(key.startswith(IMAGE_PREFIX) for key in self.keys)

    @property
    def reads_state(self) -> bool:
        """Whether it reads `observation.state`."""
        return bool(self.state_dim) or STATE in self.keys


def needs_of(policy: nn.Module, metadata: Mapping[str, Any]) -> Needs:
    """Needs of a policy as `policies.artifact.load_policy` gives it, and its description."""
    space = metadata["arguments"].get("action_space")
    frame = metadata["arguments"].get("action_frame") or {}
    keys = tuple(input_keys(policy.encoder, policy.cameras)) if isinstance(policy, BCPolicy) else (policy.input_key,)
    return Needs(
        keys=tuple(map(str, keys)),
        image_size=int(metadata["env"]["image_size"]),
        state_dim=int(metadata["arguments"].get("proprioception_dim", 0)),  # a planner looks at frames alone
        action_dim=len(space["low"]) if space else int(getattr(policy, "action_dim", 0)),
        actions=ActionSpace.of(space) if space else None,
        state_names=tuple(map(str, metadata["env"].get("state", ()))),
        offsets=tuple((index, number) for index, number in enumerate(frame.get("state", ())) if number is not None),
        turning=tuple(frame.get("turning", ())),
        hz=float(metadata["env"].get("fps", 0.0)),
    )


def check_fits(needs: Needs, robot: RobotDescription, *, same_names: bool = True) -> None:
    """Compare cameras, state, action (number, names and bounds), and the rate of recordings.

    Args:
        same_names: whether the names of actions and state must be those of the robot's axes; the order counts in any
            case.

    Raises:
        UsageError: they do not fit; one line for each reason.
    """
    problems = [
        *_cameras(needs, robot),
        *_state(needs, robot, same_names=same_names),
        *_actions(needs, robot, same_names=same_names),
        *_offsets(needs, robot),
        *_rate(needs, robot),
    ]
    if problems:
        raise UsageError("\n  ".join([f"this policy does not fit robot {robot.name}:", *problems]))


def _cameras(needs: Needs, robot: RobotDescription) -> list[str]:
    if ENVIRONMENT_STATE in needs.keys:
        return ["it reads the simulator's state, which no robot has: train one that sees (encoder=default)"]
    given = [camera.input for camera in robot.cameras.values()]
    problems = [
        f"cameras: {key} is filled by several" for key in sorted({key for key in given if given.count(key) > 1})
    ]
    for key in needs.keys:
        if key.startswith(IMAGE_PREFIX) and key not in given:
            near = near_names(key, given) or given
            hint = f"has {', '.join(near)}" if near else "has no camera"
            problems.append(f"cameras: it sees {key}, and the robot {hint}: set `input` of a camera")
    return problems


def _state(needs: Needs, robot: RobotDescription, *, same_names: bool) -> list[str]:
    if not needs.reads_state:
        return []
    if robot.joint_states is None:
        return [f"state: it reads {needs.state_dim} values, and the robot has no joint_states"]
    if needs.state_dim != len(robot.state):
        names = ", ".join(robot.state)
        return [
            f"state: it reads {needs.state_dim} values, and the robot gives {len(robot.state)} ({names}): set `state`"
        ]
    if same_names and needs.state_names and needs.state_names != robot.state:
        return [
            f"state: it reads {', '.join(needs.state_names)}, and the robot gives {', '.join(robot.state)}: set "
            "`state` to that order, or say same_names=false if only the names differ"
        ]
    return []


def _offsets(needs: Needs, robot: RobotDescription) -> list[str]:
    """Of a policy that learned offsets: the robot takes targets, and measures their axes in the same unit."""
    if not needs.offsets or needs.action_dim != len(robot.axes) or needs.state_dim != len(robot.state):
        return []
    problems = []
    if robot.kind != TARGETS:
        problems.append(f"actions: it gives targets of what it measures, and the robot takes {robot.kind}")
    for action, number in needs.offsets:
        axis = robot.axes[action]
        if robot.state[number] != axis.name:
            problems.append(f"actions: {axis.name} is learned as an offset from what is {robot.state[number]} here")
        elif not axis.measured or action == robot.gripper_index:
            problems.append(f"actions: {axis.name} is learned as an offset, and is not measured in its commands' unit")
    for action in needs.turning:
        problems.append(
            f"actions: {robot.axes[action].name} was declared a joint without an end (policy.action_frame's "
            "`turning`), and axes of robots have two: targets would jump by a whole turn; train without `turning`"
        )
    return problems


def _rate(needs: Needs, robot: RobotDescription) -> list[str]:
    if not needs.hz or abs(needs.hz / robot.policy_hz - 1) <= _SAME_RATE:
        return []
    return [
        f"rate: it learned from {needs.hz:g} frames/s, and the robot's policy_hz is {robot.policy_hz:g}: its motions "
        "would be faster or slower than what was shown; set `rates.policy_hz`"
    ]


def _actions(needs: Needs, robot: RobotDescription, *, same_names: bool) -> list[str]:
    names = robot.axis_names
    space = needs.actions
    if needs.action_dim != len(names):
        own = f" ({', '.join(space.names)})" if space and space.names else ""
        return [f"axes: it gives {needs.action_dim} values per action{own}, and the robot has {len(names)} axes"]
    if space is None:
        return []
    problems = []
    if same_names and space.names:
        relative = robot.kind in DELTAS
        for ours, axis in zip(space.names, names, strict=True):
            if axis not in (ours, position_of(ours) if relative else ours):
                problems.append(
                    f"axes: its actions are {', '.join(space.names)}, and the robot's axes {', '.join(names)}: put "
                    "them in that order, or say same_names=false if only the names differ"
                )
                break
    index = robot.gripper_index
    if robot.gripper is not None and index is not None:
        low, high = space.low[index], space.high[index]
        if not all(low - _WITHIN <= value <= high + _WITHIN for value in robot.gripper.action):
            problems.append(
                f"gripper.action: {list(robot.gripper.action)} is outside of what it gives, {low:g} to {high:g}"
            )
        if space.gripper and index not in space.gripper:
            problems.append(f"gripper: its gripper is action {list(space.gripper)}, and the robot's is axis {index}")
    return problems


def position_of(displacement: str) -> str:
    """`hand.x` of `hand.dx`."""
    head, dot, last = displacement.rpartition(".")
    return f"{head}{dot}{last[1:]}" if len(last) > 1 and last.startswith("d") else displacement
