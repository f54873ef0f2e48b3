"""How processes of a deployment end, and what is told of it."""

import os
import signal
import sys
import time

import pytest

from embodied.core.errors import UserError
from embodied.real_robot.deployment import policy_role, roles
from embodied.real_robot.deployment.children import POLICY, Child
from embodied.real_robot.deployment.policy_role import check_planning_time
from embodied.real_robot.deployment.session import Session, Settings
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.stopping import stopping_on_signals

DEAF = "#!/bin/sh\ntrap '' TERM\necho deaf\nwhile :; do sleep 0.05; done\n"


@pytest.fixture
def session():
    made = Session.create(Settings(robot="sim", policy="p.safetensors"))
    yield made
    made.remove()


@pytest.fixture
def deaf(session, tmp_path, monkeypatch):
    """A process that no signal but SIGKILL ends, in the place of a policy's."""
    script = tmp_path / "deaf"
    script.write_text(DEAF)
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    child = Child(POLICY, session)
    while "deaf" not in child.said():
        assert child.ended() is None
        time.sleep(0.01)
    yield child
    child.end(0.0)


def test_a_process_that_does_not_end_is_killed_and_said_to_have_been(deaf):
    deaf.ask_to_end()
    assert deaf.end(0.3) == -signal.SIGKILL
    assert deaf.how() == "policy: killed, since it had not ended 0.3 s after it was told to"


def test_a_process_that_was_killed_by_others_is_told_apart(deaf):
    os.kill(deaf.pid, signal.SIGKILL)
    assert deaf.end(60.0) == -signal.SIGKILL
    assert deaf.how().startswith("policy: killed by SIGKILL, by none of these processes")


def test_a_policy_that_is_told_to_end_while_it_gets_warm_does(session, monkeypatch, capsys):
    begun = []

    def start_policy(settings, robot, *, board):
        begun.append(settings.policy)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not broken off")

    monkeypatch.setattr(policy_role, "start_policy", start_policy)
    monkeypatch.setattr(roles, "die_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["roles", POLICY, str(session.folder)])
    with stopping_on_signals():  # which puts the handlers back
        assert roles.main() == 0
    assert begun == ["p.safetensors"] and "before it was ready" in capsys.readouterr().out


def test_a_policy_that_would_be_taken_for_dead_is_refused():
    robot = load_robot("sim")
    check_planning_time(robot.timeouts.heartbeat_s, robot)
    with pytest.raises(UserError, match=r"takes 1.3 s for a plan, and robot sim takes one that is silent for 0.5 s"):
        check_planning_time(1.26, robot)
