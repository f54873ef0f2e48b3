"""The settings of `embodied deploy` for a policy on another computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from embodied.core.errors import UsageError
from embodied.real_robot.server.content import Encoding
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.security import Address, client_tls, read_token

_THEIRS = {"backend": "torch", "acceleration": "auto", "instruction": None, "guidance": False}


def server_settings(config: DictConfig) -> dict[str, Any] | None:
    """A record of `ServerOptions`; None where the policy runs here. Token and certificate have been read once.

    Raises:
        UsageError: settings of a server without one, settings that are for the server, or values that make no sense.
        UserError: a file cannot be read.
    """
    if config.server is None:
        for name in ("token_file", "ca"):
            if config[name] is not None:
                raise UsageError(f"{name} is for a policy on a server: write server=<address> too")
        return None
    for name, default in _THEIRS.items():
        if config[name] != default:
            raise UsageError(f"{name}={config[name]} is how the server runs the policy: leave it out here")
    if config.embodiment is not None and not config.run:
        raise UsageError(f"embodiment={config.embodiment} is which robot the server drives: name it to embodied serve")
    for name in ("server_timeout_s", "server_patience_s"):
        if isinstance(config[name], bool) or not isinstance(config[name], int | float):
            raise UsageError(f"{name} must be a positive number of seconds, got {config[name]!r}")
    address = Address.parse(str(config.server))
    read_token(config.token_file)
    client_tls(address, config.ca)
    options = ServerOptions(
        server=str(address),
        token_file=_absolute(config.token_file),
        ca=_absolute(config.ca),
        encoding=Encoding(config.pictures, config.quality),
        timeout_s=float(config.server_timeout_s),
        patience_s=float(config.server_patience_s),
    )
    return options.record()


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().resolve())
