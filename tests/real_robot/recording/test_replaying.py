"""Recorded actions go through the safety chain, in the shadow unless told otherwise."""

import numpy as np
import pytest
from real_robots import toy_robot
from toy_deployments import NS, Deployment

from embodied.core.errors import UsageError
from embodied.real_robot.control.loop import run_command_loop
from embodied.real_robot.recording import replaying
from embodied.real_robot.recording.replaying import ActionPlayer, replay
from embodied.real_robot.safety.modes import Mode


@pytest.fixture
def arm(tmp_path, monkeypatch):
    """A toy arm whose policy and heartbeat are the replay's alone."""
    deployment = Deployment(toy_robot(engage_ramp_s=0), tmp_path)
    deployment.alive, deployment.world = False, lambda t: None
    monkeypatch.setattr(
        replaying, "run_command_loop",
        lambda *positional, after_cycle, **named: run_command_loop(
            *positional, **named,
            after_cycle=lambda carry, output: (deployment._note(carry, output), after_cycle(carry, output)),
        ),
    )  # fmt: skip
    return deployment


def play(arm, actions, *, seconds=10.0, live=True):
    return replay(
        arm.robot, arm.transport, arm.mailbox, np.asarray(actions), live=live, pacer=arm,
        stop=lambda: arm.now_s > seconds,
    )  # fmt: skip


def ramp(steps, *, by=0.005):
    return np.outer(np.arange(1, steps + 1), [by, -by])


def test_in_the_shadow_nothing_reaches_the_robot(arm):
    replayed = play(arm, ramp(20), live=False)
    assert (replayed.mode, replayed.done) == (Mode.SHADOW, 20) and not arm.commands
    assert arm.shadows[-1][1].data[0] > 0.08


def test_live_it_begins_when_the_switch_is_held_and_follows_the_way(arm):
    arm.world = lambda t: setattr(arm, "enabled", t >= 1.0)
    assert play(arm, ramp(40)).done == 40
    assert arm.commands[0][0] >= 1.0
    times, way = arm.positions()
    assert way[-1] == pytest.approx([0.2, -0.2], abs=5e-3)
    middle = way[np.searchsorted(times, times[0] + 1.0)]
    assert middle == pytest.approx([0.1, -0.1], abs=0.02)  # 20 steps of 5 mrad, a twentieth of a second each
    arm.assert_within_limits()
    assert arm.carries[-1].refused == {}


def test_without_the_switch_nothing_moves(arm):
    arm.enabled = False
    replayed = play(arm, ramp(10), seconds=2.0)
    assert replayed.done == 0 and not arm.commands and replayed.mode is Mode.HOLD


def test_a_first_target_far_away_is_refused(arm):
    arm.world = lambda t: setattr(arm, "enabled", t >= 0.5)
    replayed = play(arm, ramp(10) + 0.5, seconds=2.0)
    assert replayed.done == 0 and not arm.commands and "away from the first target" in replayed.reason


def test_letting_go_ends_it_for_good(arm):
    arm.world = lambda t: setattr(arm, "enabled", 0.5 <= t < 1.5 or t > 1.7)
    replayed = play(arm, ramp(100))
    assert 15 <= replayed.done <= 25 and replayed.reason == "switch let go" and arm.now_s < 3.0
    arm.assert_within_limits()


def test_a_wild_recording_is_limited(arm):
    arm.world = lambda t: setattr(arm, "enabled", t >= 0.5)
    wild = np.where(np.arange(30)[:, None] % 2, 0.9, -0.9) * np.ones((30, 2))
    wild[0] = 0
    replayed = play(arm, wild)
    assert replayed.done == 30 and sum(replayed.clamps.values()) > 100
    arm.assert_within_limits()


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (5,)])
def test_actions_of_another_robot(arm, shape):
    with pytest.raises(UsageError, match=r"actions must be \[T, 2\] for robot toy"):
        ActionPlayer(arm.robot, arm.mailbox, np.zeros(shape), engaged=(Mode.ACTIVE,))


def test_chunks_reach_ahead_as_far_as_a_second(arm):
    player = ActionPlayer(arm.robot, arm.mailbox, ramp(100), engaged=(Mode.ACTIVE,))
    player.tick(NS, Mode.HOLD)
    assert len(arm.mailbox.read_chunk().actions) == 4
    player.tick(2 * NS, Mode.ACTIVE)
    assert len(arm.mailbox.read_chunk().actions) == 20 and player.done == 0
    player.tick(3 * NS, Mode.ACTIVE)
    assert arm.mailbox.read_chunk().actions[0].tolist() == ramp(100)[20].tolist()
