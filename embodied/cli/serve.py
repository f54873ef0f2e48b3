"""Serve a trained policy to a robot whose own computer is too small for it.

The robot's computer runs embodied deploy with server=<address> token_file=... ca=... instead of run=...: cameras, joint
states, commands and the whole safety layer stay there. One robot at a time. See docs/robot.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig
from rich.console import Console

from embodied.cli.config import compose_config
from embodied.cli.deploy import instruction, policy_file
from embodied.cli.evaluate import embodiment
from embodied.cli.robot_connection import seconds_of
from embodied.cli.settings import resolve_device
from embodied.policies.artifact import read_description
from embodied.real_robot.policy.acceleration import Acceleration
from embodied.real_robot.policy.backends import Backend
from embodied.real_robot.policy.inference import Inference, load_inference
from embodied.real_robot.server.security import Address, read_token, server_tls
from embodied.real_robot.server.serving import PolicyServer
from embodied.real_robot.stopping import stop_on_signals


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied serve`, until Ctrl-C or for seconds=."""
    config, console = compose_config("serve", arguments), Console()
    address = Address.parse(str(config.listen))
    token, tls = read_token(config.token_file), server_tls(address, config.certificate, config.key)
    path, lasting_s = policy_file(config), seconds_of(config)

    def tell(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)

    inference = load(config)
    taken = inference.warm_up()["work"]
    server = PolicyServer(inference, address, token=token, tls=tls, policy=digest(path, embodiment(config)), tell=tell)
    stop, end = stop_on_signals(), time.monotonic() + lasting_s
    try:
        secured = "TLS" if tls is not None else "no TLS, for this machine only"
        tell(f"{inference.how}; a plan takes {taken['p50']:.1f} ms (p50), {taken['p99']:.1f} (p99)")
        tell(f"serving at {server.address} ({secured}); Ctrl-C ends it")
        server.serve(lambda: stop() or time.monotonic() >= end)
    finally:
        server.close()
    return 0


def digest(path: Path, robot: str | None = None) -> str:
    """SHA-256 (hex) of the policy file, so that a robot notices when another policy takes its place.

    Args:
        robot: whose part of a policy of several it is.
    """
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256")
    found.update((robot or "").encode())
    return found.hexdigest()


def load(config: DictConfig) -> Inference:
    """The policy of the settings. Raises as `policy.inference.load_inference` does."""
    path = policy_file(config)
    metadata = read_description(path, embodiment(config))
    return load_inference(
        path,
        embodiment=embodiment(config),
        device=torch.device(resolve_device(str(config.device))),
        backend=cast(Backend, str(config.backend)),
        acceleration=cast(Acceleration, str(config.acceleration)),
        instruction=instruction(config, metadata["env"]),
    )
