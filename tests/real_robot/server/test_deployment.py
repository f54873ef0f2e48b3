"""`embodied serve` and `embodied deploy server=` as processes: the simulated robot over DDS, its policy over TLS.

The bound is the stated one of a policy that is silent, plus `BUSY_S` for a machine that does other things.
"""

import socket

import pytest
from deployments import Bystander, busy_robot, kill, start, start_simulator, until_running
from policy_servers import make_certificate, write_token
from robot_policies import save_policy

from embodied.real_robot.control.cycle import rest_bound_s

pytest.importorskip("cyclonedds")
pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.xdist_group("robots")]
DOMAIN, BUSY_S = 177, 2.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def site(tmp_path):
    """Simulator, server, deployment, somebody beside them; what starts another server, and where they say things."""
    pair = make_certificate(tmp_path)
    if pair is None:
        pytest.skip("openssl is not installed")
    policy = save_policy(tmp_path / "slow.safetensors", action=(0.1, 0.1, 0.05, -1.0))
    token, robot, log, server_log = write_token(tmp_path), busy_robot(tmp_path), tmp_path / "log", tmp_path / "server"
    address = f"127.0.0.1:{free_port()}"
    processes, bystander = [], Bystander(DOMAIN, robot=robot)

    def serve():
        processes.append(
            start(
                "-m", "embodied", "serve", f"run={policy}", f"listen={address}", f"token_file={token}", "device=cpu",
                f"certificate={pair[0]}", f"key={pair[1]}", log=server_log,
            )
        )  # fmt: skip
        return processes[-1]

    try:
        server = serve()
        processes.append(start_simulator(DOMAIN, log))
        deploy = (
            "-m", "embodied", "deploy", f"robot={robot}", f"domain={DOMAIN}", "live=true", "simulate=false",
            "operate=false", f"server={address}", f"token_file={token}", f"ca={pair[0]}", "server_patience_s=90",
        )  # fmt: skip
        bystander.deploy = until_running(lambda: start(*deploy, log=log), log)
        processes.append(bystander.deploy)
        yield bystander, server, serve, log, server_log
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait(60)
        bystander.transport.close()


def test_without_its_server_the_robot_comes_to_rest_and_goes_on_when_it_is_back(site):
    bystander, server, serve, log, server_log = site
    robot = bystander.robot
    bystander.engage()
    bystander.until(lambda: bystander.moved(0) > 0.001, 30)

    killed = kill(server.pid)
    taken, reason = bystander.until_mode("fault", robot.timeouts.heartbeat_s + BUSY_S)
    assert "the policy's process: nothing for" in reason
    bystander.wait(2.0)
    rest_s = bystander.rest_after(killed)
    print(f"fault {taken:.2f} s and rest {rest_s:.2f} s after kill -9 of the server")
    assert rest_s < rest_bound_s(robot) + BUSY_S

    serve()
    bystander.until(lambda: server_log.read_text().count("connected") == 2)
    bystander.enabled = False
    while bystander.mode == "fault":
        bystander.say(robot.reset)
        bystander.wait(0.2)
    bystander.engage()
    assert bystander.deploy.poll() is None and "Traceback" not in log.read_text() + server_log.read_text()
