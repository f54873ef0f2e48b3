"""Where a robot's policy is, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embodied.core.errors import UsageError
from embodied.real_robot.server.content import Encoding


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where the policy is.

    Attributes:
        server: `192.168.1.20:7460`.
        token_file: holds the secret that the server's holds.
        ca: see `security.client_tls`.
        encoding: of pictures on the way.
        timeout_s: for a plan; then the connection counts as lost.
        patience_s: how long a lost server is looked for before this process ends.
    """

    server: str
    token_file: str | None
    ca: str | None = None
    encoding: Encoding = field(default_factory=Encoding)
    timeout_s: float = 1.0
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("timeout_s", "patience_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} must be a positive number of seconds, got {getattr(self, name)}")

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ServerOptions:
        """The inverse of `record`."""
        return cls(**{**record, "encoding": Encoding(**record["encoding"])})
