"""From time-stamped chunks of actions to one reference at any moment. Pure; the semantics of `policies`, on numpy.

Legend: H actions, N axes. Times in ns on the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embodied.real_robot.control.mailbox import RawChunk
from embodied.real_robot.description.description import DELTAS, Execution, RobotDescription
from embodied.real_robot.safety.chain import Reference

_KEPT = 64  # chunks that may overlap
_NS = 1e-9
_FUTURE_NS = 50_000_000


class Chunk(NamedTuple):
    """`values` float64 [H, N] in units of the axes: targets, or velocities of relative axes and twists.

    Value i is for `start_ns` + i `step_ns`. `observed_ns`: of the observation behind it.
    """

    number: int
    observed_ns: int
    arrived_ns: int
    start_ns: int
    step_ns: int
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ActionScale:
    """From actions to values: `offset` + `factor` x action, [N]; a displacement per step becomes a velocity."""

    factor: np.ndarray
    offset: np.ndarray
    per_step: np.ndarray

    def __call__(self, actions: np.ndarray, step_ns: int) -> np.ndarray:
        """Values [H, N] of actions [H, N] that are `step_ns` apart."""
        values = self.offset + self.factor * actions
        result: np.ndarray = np.where(self.per_step, values / (step_ns * _NS), values)
        return result


def action_scale(robot: RobotDescription) -> ActionScale:
    """How the actions of a robot are to be read."""
    factor = np.ones(len(robot.axes)) if robot.kind == "joint_position" else robot.column("scale")
    offset = np.zeros(len(robot.axes))
    per_step = np.full(len(robot.axes), robot.kind in DELTAS)
    index = robot.gripper_index
    if robot.gripper is not None and index is not None:
        first, second = robot.gripper.action
        factor[index] = (robot.gripper.closed - robot.gripper.opened) / (second - first)
        offset[index] = robot.gripper.opened - factor[index] * first
        per_step[index] = False
    return ActionScale(factor=factor, offset=offset, per_step=per_step)


def add_chunk(
    chunks: tuple[Chunk, ...], raw: RawChunk, scale: ActionScale, execution: Execution, now_ns: int
) -> tuple[tuple[Chunk, ...], str | None]:
    """The chunks, oldest first, with a new one unless it must be refused: then why.

    Refused are values that are not finite, an observation stamped in the future or before that of a chunk that is
    already here (which overtook it).
    """
    if raw.actions.shape[1] != len(scale.factor):
        return chunks, f"shape: {raw.actions.shape[1]} numbers for {len(scale.factor)} axes"
    if not np.isfinite(raw.actions).all():
        return chunks, "finite: actions are not finite"
    if raw.observed_ns > now_ns + _FUTURE_NS:
        return chunks, "stamp: actions are from the future"
    if chunks and raw.observed_ns < chunks[-1].observed_ns:
        return chunks, "order: actions came late"
    start = now_ns if execution.align == "arrival" else raw.observed_ns
    values = scale(raw.actions[: execution.steps], raw.step_ns)
    new = Chunk(raw.number, raw.observed_ns, now_ns, start, raw.step_ns, values)
    return (*chunks, new)[-_KEPT:], None


def reference_at(
    chunks: tuple[Chunk, ...], execution: Execution, now_ns: int, *, interpolate: bool
) -> Reference | None:
    """What the chunks want at a moment, or None where they have come to an end.

    Args:
        interpolate: between successive values, for targets; else each holds for its step, as velocities do.
    """
    alive = [chunk for chunk in chunks if now_ns < chunk.start_ns + len(chunk.values) * chunk.step_ns]
    if not alive:
        return None
    newest = _at(alive[-1], now_ns, interpolate)
    if execution.merge == "newest" or len(alive) == 1:
        return newest
    if execution.merge == "blend":
        done = (now_ns - alive[-1].arrived_ns) * _NS / execution.blend_s
        shares = np.array([1 - done, done]) if done < 1 else np.array([0.0, 1.0])
        wanted = [_at(alive[-2], now_ns, interpolate), newest]
    else:
        shares = np.exp(-execution.ensemble_m * np.arange(len(alive)))
        wanted = [_at(chunk, now_ns, interpolate) for chunk in alive]
    shares = shares / shares.sum()
    return Reference(
        shares @ np.stack([each.value for each in wanted]), shares @ np.stack([each.rate for each in wanted])
    )


def living(chunks: tuple[Chunk, ...], now_ns: int) -> tuple[Chunk, ...]:
    """Without those that have ended; the newest stays, for its stamp."""
    return tuple(
        chunk for chunk in chunks if chunk is chunks[-1] or now_ns < chunk.start_ns + len(chunk.values) * chunk.step_ns
    )


def _at(chunk: Chunk, now_ns: int, interpolate: bool) -> Reference:
    values, last = chunk.values, len(chunk.values) - 1
    zero = np.zeros(values.shape[1])
    steps = (now_ns - chunk.start_ns) / chunk.step_ns
    if steps < 0:
        return Reference(values[0], zero)
    index = min(int(steps), last)
    if not interpolate or index == last:
        return Reference(values[index], zero)
    change = values[index + 1] - values[index]
    return Reference(values[index] + (steps - index) * change, change / (chunk.step_ns * _NS))
