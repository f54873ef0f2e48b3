"""How long a plan takes from a policy on a server, beside the same policy in the process itself.

python benchmarks/robot_server.py [FRAMES]    # 200 of each; needs openssl for the rows with TLS

Server and robot are two processes on loopback; a frame leaves as the policy sees it, after resizing. The policy costs
nothing, so that what is left is the way there and back: a gradient with noise, JPEG or raw, with and without TLS. A
network adds its own round trip, and the time that the bytes in the table take.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from embodied.core.protocols import STATE
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.planner import Planner
from embodied.real_robot.policy.stages import Stages
from embodied.real_robot.server.content import Encoding, Pictures, pack_observation
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.remote import RemotePolicy
from embodied.real_robot.server.security import Address, read_token, server_tls
from embodied.real_robot.server.serving import PolicyServer

KEY = "observation.images.front"
SIZES = (128, 224, 480)  # 480: what is left of a camera of 640x480
WARM_UP = 20


class Nothing:
    """A policy that costs nothing."""

    def __init__(self, size: int) -> None:
        self.needs = Needs(keys=(KEY,), image_size=size, state_dim=7, action_dim=7, actions=None)
        self.stages, self.how, self._plan = Stages(), "nothing", np.zeros((16, 7))

    def restart(self) -> None:
        return

    def __call__(self, observation: object, /) -> np.ndarray:
        return self._plan


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), *sys.argv[3:])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{'frame':<10}{'pictures':<10}{'over':<14}{'bytes':>9}{'p50 ms':>9}{'p99 ms':>9}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text("a-token-for-measurements")
        pair = certificate(folder)
        for size in SIZES:
            row(f"{size}x{size}", "-", "in process", 0, times(Nothing(size), frame(size), count))
            for tls in [(), pair] if pair else [()]:
                with_server(folder, size, tls, count)


def with_server(folder: Path, size: int, pair: tuple[Path, ...], count: int) -> None:
    """The rows of one size, with TLS or without."""
    command = [sys.executable, __file__, "serve", str(size), str(folder / "token"), *map(str, pair)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    address = process.stdout.readline().strip()
    kinds: tuple[Pictures, ...] = ("jpeg", "raw")
    for pictures in kinds:
        encoding = Encoding(pictures)
        ca = str(pair[0]) if pair else None
        options = ServerOptions(server=address, token_file=str(folder / "token"), ca=ca, encoding=encoding)
        remote = RemotePolicy(options)
        taken, sent = times(remote, frame(size), count), len(pack_observation(frame(size), encoding)[1])
        row(f"{size}x{size}", pictures, "TLS" if pair else "no TLS", sent, taken)
        remote.close()
        time.sleep(0.5)  # for the place to be free
    process.stdin.close()
    process.wait()


def serve(size: int, token: str, *pair: str) -> None:
    """The other process; ends with its standard input."""
    address = Address("127.0.0.1", 0)
    tls = server_tls(address, *pair) if pair else None
    server = PolicyServer(Nothing(size), address, token=read_token(token), tls=tls, policy="nothing")
    print(server.address, flush=True)
    os.set_blocking(sys.stdin.fileno(), False)
    server.serve(lambda: sys.stdin.buffer.raw.read(1) == b"")
    server.close()


def times(planner: Planner, observation: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Milliseconds of each plan, at 20 Hz as a robot asks for them."""
    taken = []
    for _ in range(WARM_UP + count):
        begun = time.perf_counter()
        planner(observation)
        taken.append((time.perf_counter() - begun) * 1e3)
        time.sleep(max(0.0, 0.05 - (time.perf_counter() - begun)))
    return np.array(taken[WARM_UP:])


def frame(size: int) -> dict[str, np.ndarray]:
    """An observation whose picture is about as hard for JPEG as a camera's."""
    gradient = np.linspace(0, 200, size)[None, :, None, None]
    noise = np.random.default_rng(0).integers(0, 24, (1, size, size, 3))
    return {KEY: (gradient + noise).astype(np.uint8), STATE: np.zeros((1, 7), np.float32)}


def certificate(folder: Path) -> tuple[Path, ...]:
    """A self-signed pair; none where openssl is not installed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return ()
    pair = (folder / "server.pem", folder / "server.key")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(pair[1]),
         "-out", str(pair[0])],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair


def row(size: str, pictures: str, over: str, sent: int, taken: np.ndarray) -> None:
    p50, p99 = np.percentile(taken, (50, 99))
    print(f"{size:<10}{pictures:<10}{over:<14}{sent:>9}{p50:>9.2f}{p99:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
