"""Server and robot over loopback: the same plans as beside the robot, one robot at a time, nobody else."""

import random
import socket
import threading
import time

import numpy as np
import pytest
import torch
from policy_servers import (
    TOKEN,
    CountingPlanner,
    dial,
    greet,
    make_certificate,
    observation,
    options,
    serving,
    write_token,
)
from robot_policies import make_policy

from embodied.core.errors import UserError
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.server.framing import ConnectionLostError
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.remote import RefusedError, RemotePolicy, ServerLostError
from embodied.real_robot.server.security import Address
from embodied.real_robot.server.serving import Patience, PolicyServer


@pytest.fixture
def token(tmp_path):
    return write_token(tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = make_certificate(tmp_path_factory.mktemp("tls"))
    if made is None:
        pytest.skip("openssl is not installed")
    return made


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_plans_are_those_of_the_policy_in_process(token):
    policy, metadata = make_policy(head="flow", spread=0.5)
    beside, behind = (Inference(policy, metadata, device=torch.device("cpu")) for _ in range(2))
    rng = np.random.default_rng(0)
    seen = [beside.example(rng) for _ in range(10)]
    with serving(behind) as server:
        remote = RemotePolicy(options(server, token))
        assert remote.needs == beside.needs and remote.how == f"{beside.how}, at {server.address}"
        for number, each in enumerate(seen):
            if number == 5:
                beside.restart()
                remote.restart()
            np.testing.assert_array_equal(remote(each), beside(each))
            remote.stages.finish()
        remote.close()
    assert {"compress", "network", "policy", "work"} <= set(remote.stages.percentiles_ms())
    assert behind.stages.count == 10


def test_a_restart_is_told_once_and_each_robot_begins_afresh(token):
    planner = CountingPlanner()
    with serving(planner) as server:
        for _ in range(2):
            remote = RemotePolicy(options(server, token))
            assert [remote(observation())[0, 0] for _ in range(3)] == [1, 2, 3]
            remote.restart()
            assert [remote(observation())[0, 0] for _ in range(2)] == [1, 2]
            remote.close()
            until(lambda: any("5 plans" in line for line in server.said))
            server.said.clear()


def test_over_tls_plans_are_the_same_and_the_certificate_counts(token, pair, tmp_path):
    with serving(pair=pair) as server:
        remote = RemotePolicy(options(server, token, ca=str(pair[0])))
        assert remote(observation(fill=9))[0].tolist() == [1, 9, 0.5, 2]
        remote.close()
        stranger = make_certificate(tmp_path, "stranger")
        with pytest.raises(
            UserError, match=r"certificate of 127.0.0.1:.* is not to be trusted: self-signed certificate"
        ):
            RemotePolicy(options(server, token, ca=str(stranger[0])))
        named = ServerOptions(server=f"localhost:{server.address.port}", token_file=str(token), ca=str(pair[0]))
        with pytest.raises(UserError, match="not to be trusted: Hostname mismatch"):
            RemotePolicy(named)
        with pytest.raises(ServerLostError, match=r"a server with a certificate wants ca="):
            RemotePolicy(options(server, token))
    until(lambda: server.refused >= 3)


def test_an_expired_certificate_is_not_trusted(token, tmp_path):
    pair = make_certificate(tmp_path, "old", expired=True)
    if pair is None:
        pytest.skip("openssl is not installed")
    with serving(pair=pair) as server, pytest.raises(UserError, match="not to be trusted: certificate has expired"):
        RemotePolicy(options(server, token, ca=str(pair[0])))


def test_a_wrong_token_is_told_and_holds_no_place(token, tmp_path):
    with serving() as server:
        wrong = write_token(tmp_path, "another-token-0123456789", "wrong")
        begun = time.monotonic()
        with pytest.raises(RefusedError, match="refused: the token is another"):
            RemotePolicy(options(server, wrong))
        assert time.monotonic() - begun < 1.0  # no second attempt
        until(lambda: any("was not let in: the token is another" in line for line in server.said))
        assert "another-token" not in " ".join(server.said)
        RemotePolicy(options(server, token)).close()


def test_another_version_is_told(token, monkeypatch):
    with serving() as server:
        monkeypatch.setattr("embodied.real_robot.server.remote.PROTOCOL", 2)
        with pytest.raises(RefusedError, match="the server speaks version 1 of the protocol, the robot 2"):
            RemotePolicy(options(server, token))


def test_a_second_robot_is_refused_and_let_in_when_the_first_has_gone(token):
    with serving() as server:
        first = RemotePolicy(options(server, token))
        with pytest.raises(RefusedError, match=r"planning for another robot, at 127.0.0.1:"):
            RemotePolicy(options(server, token))
        assert first(observation())[0, 0] == 1
        first.close()
        until(lambda: any("ended the connection" in line for line in server.said))
        RemotePolicy(options(server, token)).close()


def test_the_same_robot_takes_its_place_again_though_its_old_connection_looks_alive(token):
    with serving() as server:
        remote = RemotePolicy(options(server, token))
        assert remote(observation())[0, 0] == 1
        old = remote._channel
        remote._reconnect("the cable was pulled", remote._end())
        assert [remote(observation())[0, 0] for _ in range(2)] == [1, 2]
        with pytest.raises(ConnectionLostError):
            old.receive(idle_s=2, whole_s=2, most=0)
        remote.close()


def test_a_silent_robot_loses_its_place(token):
    with serving(patience=Patience(idle_s=0.2)) as server:
        remote = RemotePolicy(options(server, token))
        remote(observation())
        until(lambda: any("took too long" in line for line in server.said))
        assert remote(observation())[0, 0] == 1 and remote.lost == 1  # and gets another with the next picture
        remote.close()


def test_a_server_that_is_told_to_end_does_not_wait_for_a_silent_robot(token):
    said, ended = [], threading.Event()
    server = PolicyServer(
        CountingPlanner(), Address("127.0.0.1", 0), token=TOKEN, tls=None, policy="p", tell=said.append
    )
    thread = threading.Thread(target=server.serve, args=(ended.is_set,))
    thread.start()
    remote = RemotePolicy(options(server, token))
    begun = time.monotonic()
    ended.set()
    thread.join(9)
    assert not thread.is_alive() and time.monotonic() - begun < 3 and "the server ends" in said[-1]
    server.close()
    remote.close()


def test_a_server_that_is_exchanged_for_another_policy_is_noticed(token):
    with serving() as server:
        remote = RemotePolicy(options(server, token))
        remote(observation())
    with (
        serving(policy="policy-2", port=server.address.port),
        pytest.raises(UserError, match="serves another policy now: start again"),
    ):
        remote(observation())
    remote.close()


def test_a_server_that_comes_back_is_found_and_begins_an_episode(token):
    with serving() as server:
        remote = RemotePolicy(options(server, token, patience_s=20.0))
        assert [remote(observation())[0, 0] for _ in range(2)] == [1, 2]
    plans = []
    waiting = threading.Thread(target=lambda: plans.append(remote(observation())))
    waiting.start()
    time.sleep(0.5)
    assert not plans
    with serving(port=server.address.port):
        waiting.join(15)
        assert plans[0][0, 0] == 1 and remote.lost == 1
        remote.close()


def test_a_server_that_is_gone_or_always_too_slow_is_an_error_within_its_time(token):
    with serving(CountingPlanner(before=lambda: time.sleep(0.4))) as server:
        remote = RemotePolicy(options(server, token, timeout_s=0.1, patience_s=1.0))
        begun = time.monotonic()
        with pytest.raises(ServerLostError, match=r"no plan from the policy server at .*: it took too long"):
            remote(observation())
        assert 1.0 <= time.monotonic() - begun < 4.0 and remote.lost > 1
        remote.close()
    with pytest.raises(ServerLostError, match=r"no policy server at .*: Connection refused"):
        RemotePolicy(options(server, token, patience_s=0.3))


def test_bad_requests_end_a_session_with_the_reason_and_the_server_goes_on(token):
    with serving() as server:
        for kind in ("observe", "plan"):
            connection = dial(server)
            channel, welcome = greet(connection)
            assert welcome.text("kind") == "welcome"
            channel.send({"kind": kind, "number": 1, "arrays": []}, timeout_s=5)
            refused = channel.receive(idle_s=5, whole_s=5, most=0)
            assert refused.text("code") == "request" and refused.text("why").startswith("expected")
            channel.close()
            until(lambda: server._seat is None)
        remote = RemotePolicy(options(server, token))
        remote._channel.send({"kind": "observe", "number": 1, "restart": False, "arrays": []}, timeout_s=5)
        with pytest.raises(RefusedError, match="expected 2 arrays"):
            remote(observation())
        remote.close()


def test_noise_before_and_behind_the_door_harms_nobody(token):
    rng = random.Random(1)
    with serving(patience=Patience(admission_s=0.5, whole_s=0.5)) as server:
        for number in range(60):
            with dial(server) as connection:
                if number % 3 == 0 and server._seat is None:
                    greet(connection, client=f"{number:032x}")
                noise = rng.randbytes(rng.randrange(1, 3000))
                try:
                    connection.sendall((b"EPS1" if number % 2 else b"") + noise)
                    connection.settimeout(0.05)
                    connection.recv(4096)
                except OSError:  # it was cut, or has nothing to say
                    continue
        until(lambda: server._seat is None)
        remote = RemotePolicy(options(server, token))
        assert remote(observation(fill=3))[0, 1] == 3
        remote.close()
        assert server._thread.is_alive()


def test_those_who_dawdle_at_the_door_keep_nobody_out_for_long(token):
    with serving(patience=Patience(admission_s=0.5, waiting=3)) as server:
        loiterers = [dial(server) for _ in range(8)]
        remote = RemotePolicy(options(server, token, patience_s=5.0))
        assert remote(observation())[0, 0] == 1
        remote.close()
        for each in loiterers:
            each.close()
        until(lambda: server.refused >= 8)


def test_a_port_that_is_taken_is_a_message():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(UserError, match=r"cannot listen at .*: Address already in use"):
            PolicyServer(CountingPlanner(), address, token="t", tls=None, policy="p")


def test_plans_that_make_no_sense_are_refused_on_the_robot(token):
    class Odd(CountingPlanner):
        def __call__(self, seen):
            return np.zeros((3, 5))

    with serving(Odd()) as server:
        remote = RemotePolicy(options(server, token))
        with pytest.raises(UserError, match="does not answer as it must: a plan of 120 bytes"):
            remote(observation())
        remote.close()
