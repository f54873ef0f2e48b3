"""The self-test, the leading of episodes, and the folder that processes share; without processes."""

import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
from deployments import ROOT

from embodied.core.errors import UserError
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.deployment.episodes import Episodes
from embodied.real_robot.deployment.self_test import self_test
from embodied.real_robot.deployment.session import Session, Settings
from embodied.real_robot.description.reading import load_robot

NS = 1_000_000_000
SIM = load_robot("sim")


def records(*, frames=20, joints=20, steps=20, p50=10.0, stale=()):
    """Boards that are a second apart."""
    stages = {"work": {"p50": p50, "p99": 2 * p50}}
    before = {"time_ns": 0, "steps": 5, "received": {"corner4": 7, "joint_states": 7}, "stages_ms": stages}
    received = {"corner4": 7 + frames, "joint_states": 7 + joints}
    after = {"time_ns": NS, "steps": 5 + steps, "received": received, "stages_ms": stages}
    return {"stale": list(stale)}, before, after


def failed(**changes):
    return [check.name for check in self_test(SIM, *records(**changes)) if not check.passed]


def test_a_robot_that_is_heard_and_a_policy_that_is_quick_pass():
    assert failed() == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"frames": 13}, "corner4"),
        ({"joints": 7}, "joint_states"),
        ({"steps": 13}, "policy's rate"),
        ({"p50": 51.0}, "picture to action"),
        ({"stale": ["camera corner4: nothing yet"]}, "command process"),
    ],
)
def test_each_thing_that_is_wrong_is_named(changes, name):
    assert failed(**changes) == [name]


class Client:
    """A simulator that does what it is asked for at once."""

    def __init__(self):
        self.status, self.asked = None, []

    def ask(self, seed, *, request):
        request = request or f"request {len(self.asked)}"
        self.asked.append((seed, request))
        self.say(request, "ready", seed=seed)
        return request

    def say(self, request, phase, *, seed=0, success=False, steps=0, held_steps=0):
        self.status = SimpleNamespace(
            request=request, phase=phase, seed=seed, success=success, steps=steps, held_steps=held_steps
        )


class Stage:
    """Episodes of two seeds around a command process that does as it is told."""

    def __init__(self, seeds=(7, 8)):
        self.client, self.live = Client(), False
        self.operator = SimpleNamespace(enabled=False, acknowledged=0)
        self.operator.acknowledge = lambda: setattr(self.operator, "acknowledged", self.operator.acknowledged + 1)
        self.episodes = Episodes(
            self.client, self.operator, lambda live: setattr(self, "live", live), seeds, episode_s=10
        )
        self.now, self.mode, self.stuck = NS, "shadow", False

    def tick(self, seconds=0.1):
        self.now += round(seconds * NS)
        if self.mode != "fault" and not self.stuck:
            self.mode = ("active" if self.operator.enabled else "hold") if self.live else "shadow"
        record = {"mode": self.mode, "reason": "why", "stale": [], "enabled": self.operator.enabled}
        self.episodes.tick(self.now, record, {"observed_ns": self.now})

    def until(self, condition):
        for _ in range(100):
            if condition():
                return
            self.tick()
        raise AssertionError(self.episodes.stage)


def test_each_episode_begins_let_go_and_held_and_its_end_is_noted():
    stage = Stage()
    for number, success in enumerate((True, False)):
        stage.until(lambda: not stage.operator.enabled)
        stage.until(lambda: stage.operator.enabled)
        assert stage.mode == "hold" and len(stage.client.asked) == number + 1
        stage.until(lambda: stage.mode == "active")
        request = stage.client.asked[-1][1]
        stage.client.say(request, "ended", success=success, steps=30 + number, held_steps=number)
        stage.tick()
    assert stage.episodes.done
    assert [(each.seed, each.success, each.steps, each.reason) for each in stage.episodes.outcomes] == [
        (7, True, 30, ""),
        (8, False, 31, ""),
    ]


def test_an_episode_that_ends_in_a_fault_fails_and_is_acknowledged_with_the_switch_let_go():
    stage = Stage()
    stage.until(lambda: stage.mode == "active")
    stage.mode = "fault"
    stage.tick()
    (outcome,) = stage.episodes.outcomes
    assert not outcome.success and outcome.reason == "fault: why"
    stage.tick()
    assert stage.operator.acknowledged == 1 and not stage.operator.enabled and not stage.live


def test_an_episode_that_does_not_end_is_given_up():
    stage = Stage((1,))
    stage.until(lambda: stage.mode == "active")
    stage.tick(11)
    assert stage.episodes.done and stage.episodes.outcomes[0].reason == "not over after 11 s"


def test_what_leads_to_an_episode_must_not_take_for_ever():
    stage = Stage()
    stage.stuck, stage.mode = True, "hold"
    stage.tick()
    with pytest.raises(UserError, match=r"let go took longer than 60 s \(mode hold: why"):
        stage.tick(61)


def test_the_shared_folder_is_private_and_gone_at_the_end():
    settings = Settings(robot="sim", policy="p.safetensors", simulated={"task": "hammer-v3"}, seeds=[3])
    session = Session.create(settings)
    try:
        assert stat.S_IMODE(session.folder.stat().st_mode) == 0o700
        assert Session(session.folder).settings() == settings
        PolicyMailbox.open(session.mailbox, SIM)
        assert not session.is_live()
        session.set_live(True)
        assert Session(session.folder).is_live()
        session.set_live(False)
        session.set_live(False)
        assert not session.is_live()
    finally:
        session.remove()
    assert not session.folder.exists()
    with pytest.raises(UserError, match="is not the folder of a deployment"):
        session.settings()


def test_the_command_process_and_the_launcher_have_no_torch():
    code = (
        "import sys; import embodied.real_robot.deployment.roles, embodied.real_robot.control.loop;"
        "import embodied.real_robot.deployment.launcher;"
        "from embodied.real_robot.transports.opening import transports; transports();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
