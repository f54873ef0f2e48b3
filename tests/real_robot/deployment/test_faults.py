"""What happens to the simulated robot when something breaks: real processes over DDS on loopback.

Bounds are the stated ones plus `BUSY_S`, for a machine that does other things. Episodes begin as long ones: the hand
moves slowly, and the world goes on for 250 steps.
"""

import re
import time

import pytest
from deployments import Bystander, busy_robot, child_of, fill_disk, kill, start_deploy, start_simulator, until_running
from robot_policies import save_policy

from embodied.real_robot.control.cycle import rest_bound_s

pytest.importorskip("cyclonedds")
pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.xdist_group("robots")]
BUSY_S = 2.0
FROZEN = re.compile(r"camera corner4 sends the same picture for ([\d.]+) s \(limit 3\)")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy") / "slow.safetensors", action=(0.1, 0.1, 0.05, -1.0))


@pytest.fixture
def site(request, tmp_path, policy):
    """Simulator, deployment and somebody beside them, on a DDS domain of the test's own."""
    domain, settings, changes = request.param
    log = tmp_path / "log"
    robot = busy_robot(tmp_path, **changes)
    processes = [start_simulator(domain, log)]
    bystander = Bystander(domain, robot=robot)
    try:
        settings = [f"robot={robot}", "live=true", "simulate=false", "operate=false", *settings]
        settings = [setting.format(folder=tmp_path) for setting in settings]
        new_scene = bystander.new_scene if "frozen_s" in changes else lambda: None
        bystander.deploy = until_running(lambda: start_deploy(policy, domain, log, *settings), log, new_scene)
        processes.append(bystander.deploy)
        yield bystander, bystander.deploy, log
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait(60)
        bystander.transport.close()


@pytest.mark.parametrize("site", [(171, ["record={folder}/all.mcap"], {})], indirect=True)
def test_sensors_switches_the_recorders_disk_and_the_policy_fail_one_after_the_other(site):
    bystander, deploy, log = site
    robot = bystander.robot

    # A switch that is held from the start moves nothing until it was let go.
    bystander.enabled = True
    bystander.until(lambda: bystander.mode is not None)
    bystander.wait(3.0)
    assert bystander.mode == "shadow" and not bystander.commands
    bystander.engage()
    fill_disk(child_of(deploy, "recorder"))
    began = time.monotonic_ns()
    bystander.until(lambda: bystander.moved(began) > 0.002, 30)

    # Joint states a second late by their stamps: hold, within the limit on stamps, the delay itself and a period.
    bystander.harm(joint_delay_s=1.0)
    taken, reason = bystander.until_mode("hold", 20)
    assert taken < robot.timeouts.joint_state_s + 1.0 + BUSY_S and "joint states" in reason
    bystander.harm()
    bystander.until_mode("active", 20)

    # One message of five lost: nothing stops.
    bystander.harm(loss=0.2)
    before = len(bystander.modes)
    bystander.wait(3.0)
    assert {mode for _, mode, _ in bystander.modes[before:]} == {"active"}
    bystander.harm()

    # The stop, for a moment only: a fault, until it is reset with the switch let go.
    pressed = time.monotonic_ns()
    bystander.say(robot.estop, data=True)
    bystander.say(robot.estop, data=False)
    taken, reason = bystander.until_mode("fault", 20)
    assert taken < 2 / robot.command_hz + BUSY_S and reason == "emergency stop"
    bystander.wait(robot.stopping_s + 0.5)
    assert bystander.rest_after(pressed) < 2 / robot.command_hz + robot.stopping_s + BUSY_S
    bystander.say(robot.reset)
    bystander.wait(0.5)
    assert bystander.mode == "fault"
    bystander.enabled = False
    bystander.wait(0.2)
    bystander.say(robot.reset)
    bystander.until_mode("hold", 20)
    bystander.engage()

    # The recorder's disk has been full since the robot was engaged: the robot goes on.
    bystander.until(lambda: "the robot goes on without a recording" in log.read_text(), 60)
    bystander.wait(0.5)
    assert bystander.mode == "active"

    # kill -9 of the policy: at rest within the stated bound, and deploy ends with what happened.
    killed = kill(child_of(deploy, "policy"))
    _, reason = bystander.until_mode("fault", robot.timeouts.heartbeat_s + BUSY_S)
    assert "the policy's process: nothing for" in reason
    deploy.wait(60)
    assert bystander.rest_after(killed) < rest_bound_s(robot) + BUSY_S
    assert deploy.returncode == 1 and "policy: killed by SIGKILL" in log.read_text()


@pytest.mark.parametrize("site", [(172, ["restart=true"], {})], indirect=True)
def test_a_policy_that_is_started_again_goes_on_and_without_the_command_process_the_robot_holds(site):
    bystander, deploy, log = site
    bystander.engage()
    bystander.wait(0.5)
    kill(child_of(deploy, "policy"))
    bystander.until_mode("fault", 30)
    bystander.until(lambda: "starting it again" in log.read_text(), 30)
    bystander.enabled = False

    def reset():
        bystander.say(bystander.robot.reset)
        bystander.wait(0.2)
        return bystander.mode != "fault"

    bystander.until(reset)
    bystander.engage()

    kill(child_of(deploy, "commands"))
    bystander.enabled = None
    deploy.wait(60)
    assert deploy.returncode == 1 and "commands: killed by SIGKILL" in log.read_text()
    bystander.deploy = None
    held = bystander.episodes.status.held_steps
    bystander.until(lambda: bystander.episodes.status.held_steps > held + 10, 30)  # the simulated robot's own timeout


@pytest.mark.parametrize("site", [(175, [], {"frozen_s": 3.0})], indirect=True)
def test_a_camera_that_hangs_holds_the_robot(site):
    """The scene stands still until the robot moves; new episodes, which look different, keep the camera alive."""
    bystander, _, _ = site
    bystander.enabled = False

    def engaged():
        bystander.new_scene()
        bystander.enabled = bystander.mode in ("hold", "active")
        bystander.wait(0.5)
        return bystander.mode == "active"

    bystander.until(engaged)
    bystander.wait(4.0)
    assert bystander.mode == "active"
    bystander.harm(frozen_camera=True)

    def frozen_for():
        return [float(found[1]) for text in bystander.stale if (found := FROZEN.match(text))]

    bystander.until(frozen_for, 20)  # a starved simulator may have led to hold a moment earlier
    assert 3.0 <= frozen_for()[0] < 3.0 + BUSY_S and bystander.mode == "hold"
