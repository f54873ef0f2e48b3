"""The safety chain: from what a policy wants to a command that a robot may get.

Legend: N axes; h period, s. All functions are pure: state comes in and goes out.

In this order: finite check, shape, engage ramp (with refusal of a first target far away), soft position limits,
workspace box, largest step from the measured position, velocity, acceleration, jerk, tracking error. The first ones
act on the target; those of velocity, acceleration and jerk act together in `motion.advance`, which also keeps the
position limits of every command. This is a software function and is not safety-rated: it does not replace an
emergency stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embodied.real_robot.description.description import DELTAS, RobotDescription
from embodied.real_robot.safety.limits import Limits
from embodied.real_robot.safety.motion import Motion, advance, brake, resting
from embodied.real_robot.safety.workspace import WorkspaceBox

STAGES = (
    "finite", "shape", "engage", "position", "workspace", "step", "velocity", "acceleration", "jerk", "braking",
    "tracking",
)  # fmt: skip
_FINITE, _SHAPE, _ENGAGE, _POSITION, _WORKSPACE, _STEP, _MOTION, _TRACKING = 0, 1, 2, 3, 4, 5, 6, 10


class Reference(NamedTuple):
    """What the policy wants at the next command.

    `value` [N]: a target, or for relative axes a velocity. `rate` [N]: velocity of targets; 0 for relative axes.
    """

    value: np.ndarray
    rate: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """What the chain knows about the robot, see `settings_of`; arrays [N].

    Attributes:
        limits: as described; `inside`: a hair tighter, for plans.
        relative: axes whose reference is a velocity to be integrated.
        measured: axes whose position is measured.
        coasts: at rest means a command of zero (velocities), not a constant one (positions).
        ramp_s: over which a newly engaged robot is led from its pose to the targets.
    """

    names: tuple[str, ...]
    limits: Limits
    inside: Limits
    relative: np.ndarray
    measured: np.ndarray
    jump: np.ndarray
    home: np.ndarray
    coasts: bool
    ramp_s: float
    tracking_s: float
    period_s: float
    box: WorkspaceBox | None


class ChainState(NamedTuple):
    """Carried from cycle to cycle.

    Attributes:
        motion: the last command.
        start: pose when the robot was engaged [N].
        target: the last target after its clamps [N].
        engaged_s: since then.
        off_s: how long each axis has been away from where it is measured, s [N].
    """

    motion: Motion
    start: np.ndarray
    target: np.ndarray
    engaged_s: float
    off_s: np.ndarray


class Filtered(NamedTuple):
    """A cycle's result: `clamps` bool [stages, N] in the order of `STAGES`; `trip` says why to stop, or None."""

    state: ChainState
    clamps: np.ndarray
    trip: str | None


def settings_of(robot: RobotDescription) -> ChainSettings:
    """The chain's settings for a robot; loads the model of its workspace."""
    limits = robot.limits()
    relative = np.full(len(robot.axes), robot.kind in DELTAS)
    if robot.gripper_index is not None:
        relative[robot.gripper_index] = False
    return ChainSettings(
        names=robot.axis_names,
        limits=limits,
        inside=limits.inside(),
        relative=relative,
        measured=robot.column("measured").astype(bool),
        jump=robot.column("jump"),
        home=robot.column("home"),
        coasts=robot.kind == "twist",
        ramp_s=robot.engage_ramp_s,
        tracking_s=robot.timeouts.tracking_s,
        period_s=1 / robot.command_hz,
        box=WorkspaceBox(robot.workspace, robot.axis_names) if robot.workspace else None,
    )


def begin(settings: ChainSettings, measured: np.ndarray) -> ChainState:
    """At rest where the robot is; axes that are not measured at home. `measured` [N] may be NaN for those."""
    pose = np.where(settings.measured, measured, settings.home)
    return ChainState(resting(pose), pose, pose, 0.0, np.zeros_like(pose))


def engage(state: ChainState) -> ChainState:
    """The ramp begins, from the command as it stands."""
    start = state.motion.position
    return state._replace(start=start, target=start, engaged_s=0.0)


def refusal(
    settings: ChainSettings, state: ChainState, measured: np.ndarray, reference: Reference | None
) -> str | None:
    """Why a robot must not be engaged now, or None: no target, one too far away, or a pose outside the limits."""
    limits, names = settings.limits, settings.names
    if reference is None or not _usable(settings, reference):
        return "there is no valid first target"
    here = np.where(settings.measured, measured, state.motion.position)
    target = np.where(settings.relative, here, reference.value)
    outside = np.maximum(limits.low - here, here - limits.high)
    most_outside = np.minimum(np.minimum(limits.step, limits.tracking), 0.05 * (limits.high - limits.low))
    jump, apart = np.abs(target - here), np.abs(state.motion.position - here)
    for far, limit, what in (
        (outside, most_outside, "stands outside its position limits by"),
        (jump, settings.jump, "is away from the first target by"),
        (apart, limits.tracking, "is away from the last command by"),
    ):
        if (far > limit).any():
            worst = int(np.argmax(np.where(far > limit, far, -np.inf)))
            return f"{names[worst]} {what} {far[worst]:.3g} (limit {limit[worst]:.3g})"
    if settings.box is not None and settings.box.slack(here) < 0:
        return f"the tool is outside the workspace by {-settings.box.slack(here):.3g} m"
    return None


def follow(settings: ChainSettings, state: ChainState, measured: np.ndarray, reference: Reference | None) -> Filtered:
    """One cycle towards a reference; without a usable one positions keep the last target and velocities go to zero."""
    clamps = np.zeros((len(STAGES), settings.limits.count), bool)
    h, zero = settings.period_s, np.zeros(settings.limits.count)
    target, rate = zero if settings.coasts else state.target, zero
    if reference is not None and _usable(settings, reference, clamps):
        target, rate = _ramped(settings, state, reference, clamps)
    target, rate = _limited(settings, state, measured, target, rate, clamps)
    motion, clamps[_MOTION : _MOTION + 4] = advance(state.motion, target, rate, settings.inside, h)
    if settings.box is not None and not settings.box.keeps(motion, h):
        clamps[_WORKSPACE] |= settings.box.reach > 0
        motion = brake(state.motion, h)
    moved = state._replace(motion=motion, target=target, engaged_s=state.engaged_s + h)
    return _tracked(settings, moved, measured, clamps)


def halt(settings: ChainSettings, state: ChainState, measured: np.ndarray) -> Filtered:
    """One cycle of coming to rest, then of staying there."""
    clamps = np.zeros((len(STAGES), settings.limits.count), bool)
    if settings.coasts:
        zero = np.zeros(settings.limits.count)
        motion = advance(state.motion, zero, zero, settings.inside, settings.period_s).motion
    else:
        motion = brake(state.motion, settings.period_s)
    return _tracked(settings, state._replace(motion=motion, target=motion.position), measured, clamps)


def _usable(settings: ChainSettings, reference: Reference, clamps: np.ndarray | None = None) -> bool:
    shape = (settings.limits.count,)
    if reference.value.shape != shape or reference.rate.shape != shape:
        if clamps is not None:
            clamps[_SHAPE] = True
        return False
    bad = ~(np.isfinite(reference.value) & np.isfinite(reference.rate))
    if clamps is not None:
        clamps[_FINITE] = bad
    return not bad.any()


def _ramped(
    settings: ChainSettings, state: ChainState, reference: Reference, clamps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Target and its velocity, [N], led in from the pose at the start by a smooth step."""
    done = 1.0 if settings.ramp_s <= 0 else min(1.0, (state.engaged_s + settings.period_s) / settings.ramp_s)
    share = done * done * (3 - 2 * done)
    slope = 6 * done * (1 - done) / settings.ramp_s if done < 1 else 0.0
    clamps[_ENGAGE] = done < 1
    apart = reference.value - state.start
    speed = share * reference.value
    target = np.where(settings.relative, state.target + settings.period_s * speed, state.start + share * apart)
    return target, np.where(settings.relative, speed, share * reference.rate + slope * apart)


def _limited(
    settings: ChainSettings,
    state: ChainState,
    measured: np.ndarray,
    target: np.ndarray,
    rate: np.ndarray,
    clamps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Target and velocity after position limits, workspace and largest step; a clamped target stands still."""
    limits = settings.limits
    inside = np.clip(target, settings.inside.low, settings.inside.high)
    clamps[_POSITION] = (target < limits.low) | (target > limits.high)
    boxed = inside
    if settings.box is not None:
        boxed = settings.box.nearest(state.motion.position, inside)
        clamps[_WORKSPACE] = boxed != inside
    here = np.where(settings.measured & np.isfinite(measured), measured, state.motion.position)
    near = np.clip(boxed, here - limits.step, here + limits.step)
    clamps[_STEP] = near != boxed
    return near, np.where(near == target, np.clip(rate, -limits.velocity, limits.velocity), 0.0)


def _tracked(settings: ChainSettings, state: ChainState, measured: np.ndarray, clamps: np.ndarray) -> Filtered:
    """Trip where an axis has not been where it was sent for too long."""
    error = np.where(settings.measured & np.isfinite(measured), np.abs(state.motion.position - measured), 0.0)
    off = error > settings.limits.tracking
    off_s = np.where(off, state.off_s + settings.period_s, 0.0)
    clamps[_TRACKING] = off
    trip = None
    if (off_s > settings.tracking_s).any():
        worst = int(off_s.argmax())
        limit = settings.limits.tracking[worst]
        trip = f"{settings.names[worst]} is {error[worst]:.3g} away from its command (limit {limit:.3g})"
    return Filtered(state._replace(off_s=off_s), clamps, trip)
