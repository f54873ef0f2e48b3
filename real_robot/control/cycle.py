"""One cycle of the command process, without any input or output: state and inputs in, state and a command out.

Legend: N axes. Times in ns on the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from embodied.real_robot.control.chunks import (
    ActionScale,
    Chunk,
    action_scale,
    add_chunk,
    living,
    reference_at,
)
from embodied.real_robot.control.mailbox import RawChunk
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.safety.chain import (
    STAGES,
    ChainSettings,
    ChainState,
    Filtered,
    Reference,
    begin,
    engage,
    follow,
    halt,
    refusal,
    settings_of,
)
from embodied.real_robot.safety.modes import Mode, Signal, next_mode
from embodied.real_robot.safety.motion import Motion, brake, is_resting, resting
from embodied.real_robot.safety.supervisors import NEVER, Findings, Observed, Sensor, supervise

_GAP_PERIODS = 2.5  # a command that is later than this finds the robot at rest, or on its own way there


@dataclass(frozen=True, kw_only=True)
class CycleSettings:
    """What does not change from cycle to cycle, see `cycle_settings`."""

    robot: RobotDescription
    chain: ChainSettings
    scale: ActionScale
    interpolate: bool


class Inputs(NamedTuple):
    """What a cycle sees.

    Attributes:
        now_ns, late_ns: time, and by how much later than planned.
        measured: position of the axes [N], NaN where not measured; None before the first joint state.
        joint_state: None where the robot has none; `cameras` by name.
        chunk: the newest one in the mailbox, seen before or not.
        heartbeat_ns: of the policy's process.
        enabled, enable_ns: the enable topic, and when it spoke.
        estop: the stop is pressed, or was since the last cycle; `reset`: somebody acknowledged since then.
        live: the operator lets the robot move.
    """

    now_ns: int
    late_ns: int
    measured: np.ndarray | None
    joint_state: Sensor | None
    cameras: dict[str, Sensor]
    chunk: RawChunk | None
    heartbeat_ns: int
    enabled: bool
    enable_ns: int
    estop: bool
    reset: bool
    live: bool


@dataclass(frozen=True, kw_only=True)
class Carry:
    """State of the command process.

    Attributes:
        chain: None before the first measured pose.
        owns: whether commands have gone out since the robot was last let go, so that it must be held.
        clamps: how often each stage has limited each axis, int64 [stages, N].
        refused: how often a chunk was refused, by reason.
        trip: of the last cycle's chain.
        gaps: cycles that came so late that the robot had stopped by itself.
    """

    mode: Mode
    reason: str
    chain: ChainState | None
    owns: bool
    chunks: tuple[Chunk, ...]
    number: int
    last_ns: int
    clamps: np.ndarray
    refused: dict[str, int]
    trip: str | None
    gaps: int


class Output(NamedTuple):
    """`motion`: the command, or None; `shadow`: it must not reach the robot. `findings`: as supervised."""

    motion: Motion | None
    shadow: bool
    findings: Findings


def cycle_settings(robot: RobotDescription) -> CycleSettings:
    """Settings for a robot; loads the model of its workspace."""
    interpolate = robot.kind == "joint_position"
    return CycleSettings(robot=robot, chain=settings_of(robot), scale=action_scale(robot), interpolate=interpolate)


def rest_bound_s(robot: RobotDescription) -> float:
    """How long after the policy's process dies the robot's commands are at rest, at most, when no cycle is late."""
    return robot.timeouts.heartbeat_s + 2 / robot.command_hz + robot.stopping_s


def initial(settings: CycleSettings) -> Carry:
    """Nothing seen, nothing sent."""
    return Carry(
        mode=Mode.SHADOW,
        reason="started",
        chain=None,
        owns=False,
        chunks=(),
        number=0,
        last_ns=NEVER,
        clamps=np.zeros((len(STAGES), len(settings.robot.axes)), np.int64),
        refused={},
        trip=None,
        gaps=0,
    )


def cycle(settings: CycleSettings, carry: Carry, inputs: Inputs) -> tuple[Carry, Output]:
    """The state after one cycle, and what to publish."""
    carry = _after_gap(settings, _with_chunk(settings, carry, inputs), inputs.now_ns)
    findings = supervise(_observed(carry, inputs), settings.robot.timeouts, inputs.now_ns)
    carry = replace(carry, last_ns=inputs.now_ns)
    if inputs.measured is None and settings.chain.measured.any():
        mode, reason = next_mode(carry.mode, Signal.ESTOP if inputs.estop else Signal.NONE)
        return replace(carry, mode=mode, reason=reason or carry.reason), Output(None, True, findings)
    measured = _measured(settings, inputs)
    reference = reference_at(carry.chunks, settings.robot.execution, inputs.now_ns, interpolate=settings.interpolate)
    carry = _free_pose(settings, carry, measured)
    carry = _next_mode(settings, carry, inputs, findings, measured, reference)
    filtered = _filtered(settings, carry, findings, measured, reference)
    shadow = carry.mode is Mode.SHADOW
    carry = replace(
        carry,
        chain=filtered.state,
        clamps=carry.clamps + filtered.clamps,
        trip=None if shadow else filtered.trip,
        owns=carry.owns or carry.mode is Mode.ACTIVE,
    )
    return carry, Output(filtered.state.motion if shadow or carry.owns else None, shadow, findings)


def _with_chunk(settings: CycleSettings, carry: Carry, inputs: Inputs) -> Carry:
    """With a chunk that has not been seen before, accepted or refused."""
    chunks = living(carry.chunks, inputs.now_ns)
    if inputs.chunk is None or inputs.chunk.number == carry.number:
        return replace(carry, chunks=chunks)
    added, problem = add_chunk(chunks, inputs.chunk, settings.scale, settings.robot.execution, inputs.now_ns)
    refused = carry.refused
    if problem is not None:
        kind = problem.partition(":")[0]
        refused = {**refused, kind: refused.get(kind, 0) + 1}
    return replace(carry, chunks=added, number=inputs.chunk.number, refused=refused)


def _after_gap(settings: CycleSettings, carry: Carry, now_ns: int) -> Carry:
    """Where the robot is after commands failed to appear: at the end of what it was last told."""
    h = settings.chain.period_s
    missed = (now_ns - carry.last_ns) * 1e-9 / h
    if carry.chain is None or carry.last_ns == NEVER or missed <= _GAP_PERIODS:
        return carry
    motion = carry.chain.motion
    if settings.robot.brake_tail and not settings.chain.coasts:
        for _ in range(round(missed) - 1):
            if is_resting(motion):
                break
            motion = brake(motion, h)
    else:
        motion = resting(motion.position)
    return replace(carry, chain=carry.chain._replace(motion=motion), gaps=carry.gaps + 1)


def _observed(carry: Carry, inputs: Inputs) -> Observed:
    return Observed(
        joint_state=inputs.joint_state,
        cameras=inputs.cameras,
        chunk_ns=carry.chunks[-1].observed_ns if carry.chunks else NEVER,
        heartbeat_ns=inputs.heartbeat_ns,
        enabled=inputs.enabled,
        enable_ns=inputs.enable_ns,
        late_ns=inputs.late_ns,
        stepped_back=inputs.now_ns < carry.last_ns,
    )


def _measured(settings: CycleSettings, inputs: Inputs) -> np.ndarray:
    return np.full(len(settings.robot.axes), np.nan) if inputs.measured is None else inputs.measured


def _free_pose(settings: CycleSettings, carry: Carry, measured: np.ndarray) -> Carry:
    """While nothing is commanded the state follows the robot, which may be moved by hand."""
    if carry.chain is None or (carry.mode in (Mode.HOLD, Mode.FAULT) and not carry.owns):
        return replace(carry, chain=begin(settings.chain, measured))
    return carry


def _next_mode(
    settings: CycleSettings,
    carry: Carry,
    inputs: Inputs,
    findings: Findings,
    measured: np.ndarray,
    reference: Reference | None,
) -> Carry:
    chain = carry.chain
    assert chain is not None
    ready = not findings.stale
    refused: str | None = None
    if carry.mode is Mode.HOLD and findings.enabled and ready:
        refused = refusal(settings.chain, chain, measured, reference)
    signals = Signal.NONE
    for signal, on in (
        (Signal.ESTOP, inputs.estop),
        (Signal.TRIP, bool(findings.trips) or carry.trip is not None),
        (Signal.READY, ready),
        (Signal.ENABLED, findings.enabled),
        (Signal.RELEASED, findings.released),
        (Signal.ADMITTED, refused is None),
        (Signal.RESTING, is_resting(chain.motion) and _stands(settings, chain)),
        (Signal.LIVE, inputs.live),
        (Signal.RESET, inputs.reset),
    ):
        signals |= signal if on else Signal.NONE
    mode, changed = next_mode(carry.mode, signals)
    if changed is None:
        return replace(carry, reason=f"engagement refused: {refused}") if refused else carry
    details = {
        "tripped": "; ".join([*findings.trips, *([carry.trip] if carry.trip else [])]),
        "not ready": "; ".join(findings.stale),
    }.get(changed)
    before = carry.mode
    carry = replace(carry, mode=mode, reason=f"{changed}: {details}" if details else changed)
    if Mode.SHADOW in (mode, before):
        return replace(carry, chain=begin(settings.chain, measured), owns=False)
    if mode is Mode.ACTIVE:
        return replace(carry, chain=engage(chain))
    return carry


def _stands(settings: CycleSettings, chain: ChainState) -> bool:
    """Whether a velocity robot was told to stand; for positions, resting commands are enough."""
    return not settings.chain.coasts or not chain.motion.position.any()


def _filtered(
    settings: CycleSettings, carry: Carry, findings: Findings, measured: np.ndarray, reference: Reference | None
) -> Filtered:
    assert carry.chain is not None
    if carry.mode is Mode.ACTIVE:
        return follow(settings.chain, carry.chain, measured, reference)
    if carry.mode is not Mode.SHADOW or findings.stale:
        return halt(settings.chain, carry.chain, measured)
    shadowed = follow(settings.chain, carry.chain, measured, reference)
    if shadowed.trip is None:
        return shadowed
    # The robot does not follow a shadow: where they have come apart, the shadow begins anew from the robot.
    return shadowed._replace(state=begin(settings.chain, measured), trip=None)
