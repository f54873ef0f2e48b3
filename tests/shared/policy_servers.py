"""Policy servers on loopback for tests, and what they need: tokens, certificates, a policy without a network."""

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager

import numpy as np

from embodied.policies.action_space import ActionSpace
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.stages import Stages
from embodied.real_robot.server.content import Encoding
from embodied.real_robot.server.framing import Channel
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.security import Address, server_tls
from embodied.real_robot.server.serving import Patience, PolicyServer

TOKEN = "a-token-of-tests-0123456789"
KEY, STATE = "observation.images.corner4", "observation.state"
SPACE = ActionSpace(low=(-1.0,) * 4, high=(1.0,) * 4, names=("hand.dx", "hand.dy", "hand.dz", "gripper"), gripper=(3,))
NEEDS = Needs(keys=(KEY,), image_size=64, state_dim=4, action_dim=4, actions=SPACE)


class CountingPlanner:
    """Plans [count, mean of the picture, first of the state, restarts], `horizon` times; remembers what it saw."""

    def __init__(self, *, needs=NEEDS, horizon=3, before=lambda: None):
        self.needs, self.stages, self.how = needs, Stages(), "counting"
        self.horizon, self.before = horizon, before
        self.seen, self.restarts, self.count = [], 0, 0

    def restart(self):
        self.restarts, self.count = self.restarts + 1, 0

    def __call__(self, observation):
        self.before()
        self.count += 1
        self.seen.append(observation)
        row = [self.count, observation[KEY].mean(), observation[STATE][0, 0], self.restarts]
        return np.tile(np.array(row, np.float64), (self.horizon, 1))


def observation(fill=7, state=0.5):
    return {KEY: np.full((1, 64, 64, 3), fill, np.uint8), STATE: np.full((1, 4), state, np.float32)}


def write_token(folder, text=TOKEN, name="token"):
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def make_certificate(folder, name="server", *, expired=False, address="IP:127.0.0.1"):
    """Paths of a self-signed certificate and its key, as docs/robot.md says; None where openssl is not installed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-subj", "/CN=policy-server", "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
         "-addext", f"subjectAltName={address}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    if expired:
        again = [openssl, "x509", "-in", certificate, "-signkey", key, "-days", "-1", "-out", certificate]
        subprocess.run(again, check=True, capture_output=True)
    return certificate, key


@contextmanager
def serving(planner=None, *, pair=None, policy="policy-1", port=0, patience=None):
    """A server on a thread; gives it, with `said`: its lines."""
    address, said = Address("127.0.0.1", port), []
    tls = None if pair is None else server_tls(address, *pair)
    server = PolicyServer(
        planner or CountingPlanner(), address, token=TOKEN, tls=tls, policy=policy, tell=said.append,
        patience=patience or Patience(),
    )  # fmt: skip
    server.said, ended = said, threading.Event()
    thread = threading.Thread(target=server.serve, args=(ended.is_set,))
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        server.close()
        thread.join(20)
        assert not thread.is_alive()


def options(server, token_file, **changes):
    """Of a robot that looks for it, with pictures as they are."""
    settings = {"encoding": Encoding("raw"), "patience_s": 1.0, "timeout_s": 5.0, **changes}
    return ServerOptions(server=str(server.address), token_file=str(token_file), **settings)


def dial(server):
    """A bare connection."""
    return socket.create_connection(server.address, timeout=5)


def greet(connection, *, token=TOKEN, client="0" * 32, protocol=1):
    """Say hello over a bare connection; what comes back."""
    channel = Channel(connection)
    channel.send({"kind": "hello", "protocol": protocol, "token": token, "client": client}, timeout_s=5)
    return channel, channel.receive(idle_s=5, whole_s=5, most=0)
