"""`embodied deploy`: what it refuses, and the whole path on the simulated robot."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deployments import ROOT, busy_robot, child_of
from robot_policies import save_policy

from embodied.cli.config import compose_config
from embodied.cli.deploy import deployment, policy_file
from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy") / "small.safetensors")


def settled(policy, *arguments):
    """Settings and options of a command."""
    config = compose_config("deploy", [f"run={policy}", "device=cpu", *arguments])
    return deployment(config, policy_file(config), load_checkpoint(policy)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which policy? write run=<run folder>"),
        (["run={policy}", "robot=sm"], "did you mean sim?"),
        (["run={policy}", "episodes=3"], "write robot=sim live=true episodes=20"),
        (["run={policy}", "compare=true"], "write robot=sim live=true episodes=20"),
        (["run={policy}", "live=true", "episodes=0"], "episodes must be a whole number of at least 1"),
        (["run={policy}", "robot=ros2_arm", "operate=true"], "ros2_arm needs a person"),
        (["run={policy}", "seconds=-1"], "seconds must be a positive number"),
        (["run={policy}", "recrod=a.mcap"], "did you mean record or seconds?"),
        (["run={policy}", "view=lin"], "unknown view 'lin'"),
        (["run=nothing.safetensors"], "no checkpoint at nothing.safetensors"),
    ],
)
def test_mistakes_are_told_in_one_message(policy, arguments, message, capsys):
    code = main(["deploy", *(argument.format(policy=policy) for argument in arguments)])
    said = capsys.readouterr().err
    assert code in (1, 2) and message in said and "Traceback" not in said


def test_nothing_moves_unless_told_to(policy):
    settings, options = settled(policy)
    assert not settings.live and options.seeds is None and options.operate
    assert settings.simulated["task"] == "hammer-v3" and settings.instruction == "hammer the nail into the box"


def test_a_real_robot_has_its_own_operator_and_its_own_network(policy):
    settings, options = settled(policy, "robot=ros2_arm", "live=true", "domain=7", "interface=eth0")
    assert settings.live and settings.simulated is None and not options.operate
    assert settings.transport_options == {"domain": 7, "interface": "eth0"}


def test_episodes_are_those_of_evaluate(policy):
    _, options = settled(policy, "live=true", "episodes=3", "seed=2")
    assert options.seeds == (2_002_000, 2_002_001, 2_002_002)


def run(policy, *settings):
    command = [sys.executable, "-m", "embodied", "deploy", f"run={policy}", "device=cpu", *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def left_behind(policy):
    """Folders of deployments of a policy that are still there."""
    found = [path for path in Path("/dev/shm").glob("embodied-*/settings.json") if str(policy) in path.read_text()]
    return [path.parent for path in found]


@pytest.mark.sim
@pytest.mark.slow
def test_episodes_on_the_simulated_robot_are_run_recorded_and_reported(tmp_path):
    """A policy that stands still fails both ways, with the same steps."""
    pytest.importorskip("cyclonedds")
    from mcap.reader import make_reader

    env = {"suite": "metaworld", "task": "hammer-v3", "camera": "corner4", "image_size": 64, "horizon": 15}
    policy = save_policy(tmp_path / "still.safetensors", action=(0.0, 0.0, 0.0, -1.0), env=env)
    process = run(
        policy, f"robot={busy_robot(tmp_path)}", "live=true", "episodes=2", "compare=true", "domain=173",
        f"record={tmp_path / 'all.mcap'}",
    )  # fmt: skip
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "on the robot: success 0% (0 of 2, 95 % interval 0% to 66%)" in said
    assert "the same outcome in 2 of 2 episodes" in said and "picture to action" in said
    with open(tmp_path / "all.mcap", "rb") as handle:
        topics = {channel.topic for _, channel, _ in make_reader(handle).iter_messages()}
    assert {"/sim/corner4/image_raw", "/sim/hand_controller/commands", "/embodied/status"} <= topics
    assert not left_behind(policy)


@pytest.mark.sim
@pytest.mark.slow
def test_ctrl_c_ends_everything_in_order(policy, tmp_path):
    pytest.importorskip("cyclonedds")
    for _ in range(3):  # a machine that stands still for a moment fails the self-test
        process, lines = run(policy, f"robot={busy_robot(tmp_path)}", "domain=174"), [""]
        while "shadow | shadow" not in lines[-1] and (line := process.stdout.readline()):
            lines.append(line)
        if "shadow | shadow" in lines[-1]:
            break
        process.communicate(timeout=60)
        assert "the self-test failed" in "".join(lines)
    assert left_behind(policy)
    pids = [child_of(process, role) for role in ("policy", "commands", "simulator")]
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest
    assert "last mode: shadow" in rest and not left_behind(policy)
    time.sleep(0.2)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
