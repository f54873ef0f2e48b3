"""Ages, stamps and frozen pictures."""

import math

import numpy as np
import pytest
from real_robots import timeouts

from embodied.real_robot.safety.frozen_images import Watched, watch
from embodied.real_robot.safety.supervisors import NEVER, Observed, Sensor, supervise

S = 1_000_000_000
NOW = 100 * S


def observed(**changes):
    fresh = Sensor(NOW, 0, NOW)
    values = {
        "joint_state": fresh, "cameras": {"front": fresh}, "chunk_ns": NOW, "heartbeat_ns": NOW,
        "enabled": True, "enable_ns": NOW, "late_ns": 0, "stepped_back": False,
    }  # fmt: skip
    return Observed(**{**values, **changes})


def test_all_fresh():
    findings = supervise(observed(), timeouts(), NOW)
    assert findings == ((), (), True, False)


@pytest.mark.parametrize(
    ("changes", "stale", "trips"),
    [
        ({"joint_state": Sensor()}, "joint states: nothing yet", 0),
        ({"joint_state": Sensor(NOW - S, 0, NOW)}, "joint states: nothing for 1.000 s (limit 0.1)", 0),
        ({"joint_state": Sensor(NOW, S, NOW)}, "joint states: stamped 1.000 s before receipt (limit 0.5)", 0),
        ({"joint_state": Sensor(NOW + S, 0, NOW)}, "joint states: stamped 1.000 s in the future", 0),
        ({"cameras": {"front": Sensor(NOW - S, 0, NOW)}}, "camera front: nothing for 1.000 s (limit 0.2)", 0),
        ({"cameras": {"front": Sensor(NOW, -S, NOW)}}, "camera front: stamped -1.000 s before receipt", 0),
        ({"cameras": {"front": Sensor(NOW, 0, NOW - 2 * S)}}, "camera front sends the same picture for 2.00 s", 0),
        ({"chunk_ns": NEVER}, "actions: nothing yet", 0),
        ({"chunk_ns": NOW - S}, "actions: nothing for 1.000 s (limit 0.5)", 0),
        ({"heartbeat_ns": NOW - S}, "the policy's process: nothing for 1.000 s (limit 0.25)", 1),
    ],
)
def test_what_is_old_is_named(changes, stale, trips):
    findings = supervise(observed(**changes), timeouts(), NOW)
    assert len(findings.stale) == 1 and findings.stale[0].startswith(stale)
    assert len(findings.trips) == trips


def test_late_commands_and_a_clock_that_steps_back_trip():
    assert supervise(observed(late_ns=S), timeouts(), NOW).trips == ("a command was 1.000 s late (limit 0.05)",)
    assert supervise(observed(stepped_back=True), timeouts(), NOW).trips == ("the clock went backwards",)


@pytest.mark.parametrize("said", [True, False])
def test_a_switch_that_falls_silent_is_neither_held_nor_heard_to_be_let_go(said):
    findings = supervise(observed(enabled=said, enable_ns=NOW - S), timeouts(), NOW)
    assert not findings.enabled and not findings.released
    findings = supervise(observed(enabled=said), timeouts(), NOW)
    assert (findings.enabled, findings.released) == (said, not said)


def test_stamps_are_not_looked_at_where_no_limit_is_given():
    assert not supervise(observed(joint_state=Sensor(NOW, 9 * S, NOW)), timeouts(source_s=math.inf), NOW).stale


def test_a_still_picture_keeps_the_time_of_its_last_change():
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (480, 640, 3), np.uint8) for _ in range(2)]
    state = watch(Watched(), frames[0], received_ns=S)
    state = watch(state, frames[0], received_ns=2 * S, delay_ns=5)
    assert state.sensor == Sensor(2 * S, 5, S)
    state = watch(state, frames[1], received_ns=3 * S)
    assert state.sensor == Sensor(3 * S, 0, 3 * S)
    assert watch(state, frames[0], received_ns=2 * S) == state  # came late


def test_noise_of_a_sensor_in_few_pixels_counts_as_a_change():
    frame = np.full((480, 640, 3), 100, np.uint8)
    state = watch(Watched(), frame, received_ns=S)
    noisy = frame + (np.random.default_rng(0).random(frame.shape) < 0.01).astype(np.uint8)
    assert watch(state, noisy, received_ns=2 * S).sensor.changed_ns == 2 * S
