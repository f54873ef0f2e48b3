"""On the robot: a policy that runs on a server, in the place of one's own in the policy's process.

What the command process relies on does not change. Stamps never leave the robot: a plan is written with those of the
observation that it was made from. While the server does not answer, this thread shows no sign of life, so that the
command process brings the robot to rest as it does when a policy of one's own hangs or dies; and a plan that comes too
late is too old, and refused there.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from embodied.core.errors import UserError
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.process import BreakingOff, PolicyReport, run_policy
from embodied.real_robot.policy.stages import Stages
from embodied.real_robot.server.content import PROTOCOL, pack_observation, read_needs, unpack_plan
from embodied.real_robot.server.framing import Channel, ConnectionLostError, Message, ProtocolError
from embodied.real_robot.server.options import ServerOptions
from embodied.real_robot.server.security import Address, client_tls, read_token
from embodied.real_robot.transports.transport import Transport

_logger = logging.getLogger(__name__)
_MOST = 1 << 20  # bytes of a plan
_AGAIN_S = 0.2  # between attempts to connect
_ATTEMPT_S = 5.0  # for one of them: as long as the server takes to let in


class ServerLostError(UserError):
    """The server is not there, or no longer."""


class RefusedError(UserError):
    """The server does not take this robot."""


def run_remote_policy(
    robot: RobotDescription,
    transport: Transport,
    mailbox: PolicyMailbox,
    options: ServerOptions,
    *,
    stop: Callable[[], bool],
    breaking_off: BreakingOff = nullcontext,
    held: Callable[[], bool] = lambda: False,
    board: StatusBoard | None = None,
    wait: Callable[[float], None] | None = None,
    same_names: bool = True,
) -> PolicyReport:
    """`policy.process.run_policy` with the policy of a server.

    Raises:
        Stopped: by `breaking_off`, which is around the search for the server too.
        UsageError: policy and robot do not fit, or an option is wrong.
        ServerLostError: the server was not there for `patience_s`.
        UserError: the server refuses this robot or another policy runs there now, its certificate is not trusted, or a
            camera sends what the policy cannot see.
    """
    with breaking_off():
        remote = RemotePolicy(options, stop=stop)
    told: dict[str, Any] = {"stop": stop, "breaking_off": breaking_off, "held": held, "board": board, "wait": wait}
    try:
        return run_policy(robot, transport, mailbox, remote, same_names=same_names, **told)
    except ServerLostError:
        if not stop():
            raise
        return PolicyReport(remote.stages.count, remote.stages.percentiles_ms(), {}, 0)
    finally:
        remote.close()


class _Welcome(NamedTuple):
    policy: str
    how: str
    needs: Needs


class RemotePolicy:
    """A `policy.planner.Planner` on a server. A connection that is lost is made again.

    Attributes:
        lost: connections that were.
    """

    def __init__(self, options: ServerOptions, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Connect. Raises as `run_remote_policy` does.

        Args:
            stop: gives up waiting when true.
        """
        self._options, self._stop = options, stop
        self._address, self._token = Address.parse(options.server), read_token(options.token_file)
        self._tls = client_tls(self._address, options.ca)
        self._client = secrets.token_hex(16)  # so that the server knows this program when it comes again
        self._number, self._restart, self.lost = 0, True, 0
        self._channel, welcome = self._connected("", self._end())
        self._policy, self.needs, self.stages = welcome.policy, welcome.needs, Stages()
        self.how = f"{welcome.how}, at {self._address}"

    def restart(self) -> None:
        """Forget the episode; the server is told with the next observation."""
        self._restart = True

    def __call__(self, observation: Mapping[str, np.ndarray], /) -> np.ndarray:
        """The server's plan, float64 [H, A]; from another connection where this one is lost.

        Raises:
            ServerLostError: there was none for `patience_s`, or `stop()` came first.
            UserError: see `run_remote_policy`.
        """
        with self.stages.measure("compress"):
            arrays, data = pack_observation(observation, self._options.encoding)
        end = self._end()  # of all attempts with this observation: a server that is always too slow is no server
        while True:
            self._number += 1
            record = {"kind": "observe", "number": self._number, "restart": self._restart, "arrays": arrays}
            try:
                return self._plan(record, data)
            except ConnectionLostError as error:
                self._reconnect(str(error), end)
            except ProtocolError as error:
                raise UserError(f"the policy server at {self._address} does not answer as it must: {error}") from error

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _plan(self, record: dict[str, Any], data: bytes) -> np.ndarray:
        limit_s = self._options.timeout_s
        sent = time.perf_counter()
        self._channel.send(record, data, timeout_s=limit_s)
        message = self._channel.receive(idle_s=limit_s, whole_s=limit_s, most=_MOST)
        taken_s = time.perf_counter() - sent
        if message.text("kind") == "refused":
            raise RefusedError(f"the policy server at {self._address} refused: {message.text('why', most=400)}")
        if message.text("kind") != "plan" or message.number("number") != record["number"]:
            raise ProtocolError("expected the plan for this observation")
        actions = unpack_plan(message, self.needs)
        unpack_s, plan_s = _seconds(message, "unpack_s"), _seconds(message, "plan_s")
        for stage, seconds in (("compress", unpack_s), ("policy", plan_s), ("network", taken_s - unpack_s - plan_s)):
            self.stages.add(stage, max(0.0, seconds))
        self._restart = False
        return actions

    def _end(self) -> float:
        return time.monotonic() + self._options.patience_s

    def _reconnect(self, why: str, end: float) -> None:
        self.lost += 1
        self._channel.close()
        if self._stop() or time.monotonic() > end:
            raise ServerLostError(f"no plan from the policy server at {self._address}: {why}")
        _logger.warning("the policy server at %s is lost: %s; looking for it", self._address, why)
        self._channel, welcome = self._connected(why, end)
        if (welcome.policy, welcome.needs) != (self._policy, self.needs):
            raise UserError(f"the policy server at {self._address} serves another policy now: start again")
        self._restart = True

    def _connected(self, why: str, end: float) -> tuple[Channel, _Welcome]:
        known = bool(why)
        while True:
            try:
                return self._greeted(self._connection())
            except ConnectionLostError as error:
                why = str(error)
            except _BusyError as error:
                if not known:
                    raise
                why = str(error)
            except ProtocolError as error:
                raise UserError(f"{self._address} does not answer as a policy server does: {error}") from error
            if self._stop() or time.monotonic() + _AGAIN_S > end:
                raise ServerLostError(f"no policy server at {self._address}: {why}")
            time.sleep(_AGAIN_S)

    def _connection(self) -> socket.socket:
        limit_s = min(_ATTEMPT_S, self._options.patience_s)
        try:
            connection = socket.create_connection(self._address, timeout=limit_s)
        except OSError as error:
            raise ConnectionLostError(error.strerror or str(error)) from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return connection
            return self._tls.wrap_socket(connection, server_hostname=self._address.host)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise UserError(
                f"the certificate of {self._address} is not to be trusted: {error.verify_message}; give ca=<the file "
                "that the server has as certificate=>, made for that address"
            ) from error
        except OSError as error:
            connection.close()
            raise ConnectionLostError(f"no TLS there: {error.strerror or error}") from error

    def _greeted(self, connection: socket.socket) -> tuple[Channel, _Welcome]:
        channel = Channel(connection)
        try:
            hello = {"kind": "hello", "protocol": PROTOCOL, "token": self._token, "client": self._client}
            channel.send(hello, timeout_s=_ATTEMPT_S)
            message = channel.receive(idle_s=_ATTEMPT_S, whole_s=_ATTEMPT_S, most=0)
            kind = message.text("kind")
            if kind == "refused":
                kinds = {"busy": _BusyError}
                why = f"the policy server at {self._address} refused: {message.text('why', most=400)}"
                raise kinds.get(message.text("code"), RefusedError)(why)
            if kind != "welcome":
                raise ProtocolError("expected a welcome")
            needs = read_needs(message.record.get("needs"))
            return channel, _Welcome(message.text("policy"), message.text("how"), needs)
        except BaseException as error:
            channel.close()
            if isinstance(error, ConnectionLostError) and self._tls is None:
                raise ConnectionLostError(f"{error} (a server with a certificate wants ca=)") from error
            raise


class _BusyError(RefusedError):
    """There is another robot."""


def _seconds(message: Message, name: str) -> float:
    value = message.record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ProtocolError(f"{name} must be a number of seconds")
    return float(value)
