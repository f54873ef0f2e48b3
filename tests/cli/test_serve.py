"""`embodied serve`, and `embodied deploy` with a server: what they refuse, and what they hand on."""

import subprocess
import sys

import pytest
from deployments import ROOT
from policy_servers import write_token
from robot_policies import save_policy

from embodied.cli.config import compose_config
from embodied.cli.deploy import deployment
from embodied.cli.main import main
from embodied.core.errors import UsageError
from embodied.real_robot.server.content import Encoding
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.remote import RemotePolicy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy") / "small.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "run={policy}"], "token_file=<file with the secret that server and robot share> is missing"),
        (["serve", "token_file={token}"], "which policy? write run=<run folder>"),
        (["serve", "run={policy}", "token_file={token}", "listen=7460"], "an address must look like"),
        (["serve", "run={policy}", "token_file={token}", "listen=0.0.0.0:7460"], "give certificate= and key="),
        (["serve", "run={policy}", "token_file={token}", "certificate=a.pem"], "belong together"),
        (["serve", "run={policy}", "token_file={token}", "seconds=0"], "seconds must be a positive number"),
        (["deploy", "run={policy}", "token_file={token}"], "token_file is for a policy on a server"),
        (["deploy", "server=localhost:1", "token_file={token}"], "simulate=true simulates the task of a policy"),
        (["deploy", "server=localhost:1", "run={policy}"], "token_file=<file with the secret"),
        (["deploy", "server=localhost", "run={policy}", "token_file={token}"], "an address must look like"),
        (["deploy", "server=h:1", "run={policy}", "token_file={token}", "ca=none.pem"], "holds no certificate"),
        (["deploy", "server=h:1", "run={policy}", "token_file={token}", "pictures=jpg"], "did you mean jpeg?"),
        (["deploy", "server=h:1", "run={policy}", "token_file={token}", "guidance=true"], "how the server runs"),
        (["deploy", "server=h:1", "run={policy}", "token_file={token}", "server_timeout_s=0"], "must be a positive"),
    ],
)
def test_mistakes_are_told_in_one_message(policy, tmp_path, arguments, message, capsys):
    token = write_token(tmp_path)
    code = main([argument.format(policy=policy, token=token) for argument in arguments])
    said = " ".join(capsys.readouterr().err.split())
    assert code in (1, 2) and message in said and "Traceback" not in said


def test_a_robot_with_a_server_needs_no_run(tmp_path):
    token = write_token(tmp_path)
    given = ["robot=ros2_arm", "server=10.0.0.2:7460", f"token_file={token}", "pictures=raw", "server_patience_s=5"]
    settings, options = deployment(compose_config("deploy", given), None, {})
    assert settings.policy == "" and settings.simulated is None and not options.operate
    server = ServerOptions.of(settings.server)
    assert (server.server, server.token_file, server.patience_s) == ("10.0.0.2:7460", str(token), 5.0)
    assert server.encoding == Encoding("raw")
    with pytest.raises(UsageError, match="quality must be"):
        deployment(compose_config("deploy", [*given, "quality=0"]), None, {})


def test_a_policy_file_is_served_until_told(policy, tmp_path):
    token = write_token(tmp_path)
    command = [sys.executable, "-m", "embodied", "serve", f"run={policy}", f"token_file={token}", "device=cpu"]
    process = subprocess.Popen(
        [*command, "listen=127.0.0.1:0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = [process.stdout.readline() for _ in range(2)]
        assert "a plan takes" in said[0] and "no TLS, for this machine only" in said[1], said
        address = said[1].split("serving at ")[1].split(" ")[0]
        remote = RemotePolicy(ServerOptions(server=address, token_file=str(token)))
        assert remote.needs.action_dim == 4 and "torch on cpu" in remote.how
        remote.close()
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "connected" in rest and "Traceback" not in rest, rest
