"""Watching that everything a command rests on is fresh. Pure functions of stamps; times in ns unless a name says s."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from embodied.real_robot.description.description import Timeouts

NEVER = 0
"""A stamp of what has not happened yet."""
_FUTURE_S = 0.05  # a stamp may be ahead of the clock by what threads and processes need to agree
_NS = 1e-9


class Sensor(NamedTuple):
    """When a sensor was heard.

    Attributes:
        received_ns: on the monotonic clock, `NEVER` before the first message.
        delay_ns: wall clock at receipt minus the stamp in the message; 0 where messages are not stamped.
        changed_ns: when the content last differed from the one before, on the monotonic clock.
    """

    received_ns: int = NEVER
    delay_ns: int = 0
    changed_ns: int = NEVER


class Observed(NamedTuple):
    """All that is supervised, as of one cycle.

    Attributes:
        joint_state: None where the robot has none.
        cameras: by name.
        chunk_ns: stamp of the observation behind the newest actions; `NEVER` before the first.
        heartbeat_ns: when the policy's process last showed life.
        enabled: what the enable topic last said, and `enable_ns`, when.
        late_ns: by how much this cycle began too late.
        stepped_back: whether the clock went backwards since the last cycle.
    """

    joint_state: Sensor | None
    cameras: dict[str, Sensor]
    chunk_ns: int
    heartbeat_ns: int
    enabled: bool
    enable_ns: int
    late_ns: int
    stepped_back: bool


class Findings(NamedTuple):
    """Why the robot must come to rest (`stale`) and what moreover needs a person (`trips`).

    `enabled` and `released` are what the switch said that counts: neither is true of one that is silent.
    """

    stale: tuple[str, ...]
    trips: tuple[str, ...]
    enabled: bool
    released: bool


def supervise(observed: Observed, timeouts: Timeouts, now_ns: int) -> Findings:
    """What is wrong at `now_ns`; nothing that was never received counts as fresh."""
    stale = [*_sensors(observed, timeouts, now_ns)]
    stale += _old("actions", observed.chunk_ns, timeouts.chunk_s, now_ns)
    beat = [*_old("the policy's process", observed.heartbeat_ns, timeouts.heartbeat_s, now_ns)]
    trips = list(beat)
    if observed.late_ns * _NS > timeouts.deadline_s:
        trips.append(f"a command was {observed.late_ns * _NS:.3f} s late (limit {timeouts.deadline_s:g})")
    if observed.stepped_back:
        trips.append("the clock went backwards")
    fresh = not any(_old("enable", observed.enable_ns, timeouts.enable_s, now_ns))
    return Findings(tuple(stale + beat), tuple(trips), observed.enabled and fresh, fresh and not observed.enabled)


def _sensors(observed: Observed, timeouts: Timeouts, now_ns: int) -> Iterable[str]:
    if observed.joint_state is not None:
        yield from _old("joint states", observed.joint_state.received_ns, timeouts.joint_state_s, now_ns)
        yield from _delayed("joint states", observed.joint_state, timeouts)
    for name, camera in observed.cameras.items():
        old = [*_old(f"camera {name}", camera.received_ns, timeouts.camera_s, now_ns)]
        yield from old
        yield from _delayed(f"camera {name}", camera, timeouts)
        still = (now_ns - camera.changed_ns) * _NS
        if not old and still > timeouts.frozen_s:
            yield f"camera {name} sends the same picture for {still:.2f} s (limit {timeouts.frozen_s:g})"


def _old(what: str, stamp_ns: int, limit_s: float, now_ns: int) -> Iterable[str]:
    age = (now_ns - stamp_ns) * _NS
    if stamp_ns == NEVER:
        yield f"{what}: nothing yet"
    elif age > limit_s:
        yield f"{what}: nothing for {age:.3f} s (limit {limit_s:g})"
    elif age < -_FUTURE_S:
        yield f"{what}: stamped {-age:.3f} s in the future"


def _delayed(what: str, sensor: Sensor, timeouts: Timeouts) -> Iterable[str]:
    delay = sensor.delay_ns * _NS
    if sensor.received_ns != NEVER and abs(delay) > timeouts.source_s:
        yield f"{what}: stamped {delay:.3f} s before receipt (limit {timeouts.source_s:g})"
