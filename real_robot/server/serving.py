"""The server: a policy that plans for one robot at a time.

Connections are accepted and let in on threads of their own; who has no token never holds the place of a robot. The
policy runs on the thread that calls `serve`, where it was warmed up.
"""

from __future__ import annotations

import hmac
import logging
import queue
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.real_robot.policy.planner import Planner
from embodied.real_robot.server.content import (
    PROTOCOL,
    most_bytes,
    needs_record,
    pack_plan,
    unpack_observation,
)
from embodied.real_robot.server.framing import Channel, ConnectionLostError, Message, ProtocolError
from embodied.real_robot.server.security import Address

_logger = logging.getLogger(__name__)
_CLIENT = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TICK_S = 0.1
_KEPT = 1024  # answers whose times are kept


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the server waits: `admission_s` for TLS and token, `idle_s` for the next observation, `whole_s` for the
    rest of a message that has begun and for an answer to go out. At most `waiting` may be at the door at a time.
    """

    admission_s: float = 5.0
    idle_s: float = 10.0
    whole_s: float = 5.0
    waiting: int = 8


@dataclass(eq=False)
class _Session:
    client: str
    peer: str
    channel: Channel
    plans: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))


class PolicyServer:
    """Listens from construction on; `serve` answers.

    Attributes:
        address: with the port that was given, where 0 was asked for.
        refused: connections that were not let in.
    """

    def __init__(
        self,
        planner: Planner,
        address: Address,
        *,
        token: str,
        tls: ssl.SSLContext | None,
        policy: str,
        tell: Callable[[str], None] = _logger.info,
        patience: Patience = Patience(),
    ) -> None:
        """Open the door.

        Args:
            planner: warm.
            tls: see `security.server_tls`.
            policy: what tells this policy from another, so that a robot notices an exchange while it runs.
            tell: says in a line what happens.

        Raises:
            UserError: the address cannot be listened at.
        """
        self._planner, self._token, self._tls, self._policy = planner, token, tls, policy
        self._tell, self._patience = tell, patience
        self._most, self._needs = most_bytes(planner.needs), needs_record(planner.needs)
        self._sessions: queue.SimpleQueue[_Session] = queue.SimpleQueue()
        self._seat: _Session | None = None
        self._lock, self._door = threading.Lock(), threading.BoundedSemaphore(patience.waiting)
        self._closing = threading.Event()
        self.refused = 0
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            raise UserError(f"cannot listen at {address}: {error.strerror or error}") from error
        self.address = Address(address.host, self._listener.getsockname()[1])
        self._listener.settimeout(_TICK_S)
        self._thread = threading.Thread(target=self._accept, name="policy server's door", daemon=True)
        self._thread.start()

    def serve(self, stop: Callable[[], bool]) -> None:
        """Plan for whoever is let in, one after the other, until `stop()`."""
        while not stop():
            try:
                session = self._sessions.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if session is not self._seat:  # the same robot has come again since
                session.channel.close()
                continue
            self._tell(f"robot at {session.peer} connected")
            ended = self._attend(session, stop)
            with self._lock:
                if self._seat is session:
                    self._seat = None
            session.channel.close()
            self._tell(f"robot at {session.peer}: {ended}; {_summary(session)}")

    def close(self) -> None:
        """Shut the door and end the session; a second call does nothing."""
        self._closing.set()
        self._thread.join()
        self._listener.close()
        with self._lock:
            if self._seat is not None:
                self._seat.channel.cut()
        while not self._sessions.empty():
            self._sessions.get().channel.close()

    def _attend(self, session: _Session, stop: Callable[[], bool]) -> str:
        """A session to its end; how it ended."""
        channel, patience = session.channel, self._patience
        self._planner.restart()
        welcome = {"kind": "welcome", "policy": self._policy, "how": self._planner.how[:200], "needs": self._needs}
        try:
            channel.send(welcome, timeout_s=patience.whole_s)
            while not stop():
                message = channel.receive(idle_s=patience.idle_s, whole_s=patience.whole_s, most=self._most, stop=stop)
                record, plan = self._answer(message, session)
                channel.send(record, plan, timeout_s=patience.whole_s)
        except ProtocolError as error:
            _refuse(channel, "request", str(error))
            return f"refused a request: {error}"
        except ConnectionLostError as error:
            return "the server ends" if stop() else str(error)
        return "the server ends"

    def _answer(self, message: Message, session: _Session) -> tuple[dict[str, Any], bytes]:
        begun = time.perf_counter()
        if message.text("kind") != "observe":
            raise ProtocolError("expected an observation")
        number, restart = message.number("number"), message.record.get("restart")
        observation = unpack_observation(message, self._planner.needs)
        unpacked = time.perf_counter()
        if restart is True:
            self._planner.restart()
        plan = pack_plan(self._planner(observation))
        self._planner.stages.finish()
        ended = time.perf_counter()
        session.plans += 1
        session.seconds.append(ended - begun)
        return {"kind": "plan", "number": number, "unpack_s": unpacked - begun, "plan_s": ended - unpacked}, plan

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, peer = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:  # such as too many open files: wait for some to be closed
                _logger.warning("a connection could not be accepted: %s", error)
                self._closing.wait(_TICK_S)
                continue
            if not self._door.acquire(blocking=False):
                self.refused += 1
                connection.close()
                continue
            name = str(Address(str(peer[0]), int(peer[1])))
            threading.Thread(target=self._let_in, args=(connection, name), name=f"door {name}", daemon=True).start()

    def _let_in(self, connection: socket.socket, peer: str) -> None:
        try:
            why = self._admit(connection, peer)
        finally:
            self._door.release()
        if why:
            self.refused += 1
            self._tell(f"{peer} was not let in: {why}")

    def _admit(self, connection: socket.socket, peer: str) -> str:
        """Give the connection the robot's place; or why not."""
        limit_s = self._patience.admission_s
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(limit_s)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
        except OSError as error:
            connection.close()
            return f"no TLS: {error.strerror or error}"
        channel = Channel(connection)
        try:
            hello = channel.receive(idle_s=limit_s, whole_s=limit_s, most=0)
            code, why = self._judge(hello)
            if not code:
                session = _Session(hello.text("client"), peer, channel)
                code, why = self._take_place(session)
        except ProtocolError as error:
            code, why = "request", str(error)
        except ConnectionLostError as error:
            channel.close()
            return str(error)
        if code:
            _refuse(channel, code, why)
            channel.close()
        return why

    def _judge(self, hello: Message) -> tuple[str, str]:
        if hello.text("kind") != "hello" or not _CLIENT.fullmatch(hello.text("client")):
            raise ProtocolError("expected a greeting")
        if hello.number("protocol") != PROTOCOL:
            theirs = hello.number("protocol")
            return "version", f"the server speaks version {PROTOCOL} of the protocol, the robot {theirs}"
        token = hello.text("token", most=1024)
        if not hmac.compare_digest(token.encode(errors="replace"), self._token.encode()):
            return "token", "the token is another: the server's token_file and the robot's must hold the same"
        return "", ""

    def _take_place(self, session: _Session) -> tuple[str, str]:
        with self._lock:
            before = self._seat
            if before is not None and before.client != session.client:
                return "busy", f"the server is planning for another robot, at {before.peer}"
            self._seat = session
            self._sessions.put(session)
        if before is not None:  # the same program came again: its old connection is lost, whatever TCP thinks
            before.channel.cut()
        return "", ""


def _refuse(channel: Channel, code: str, why: str) -> None:
    try:
        channel.send({"kind": "refused", "code": code, "why": why[:400]}, timeout_s=1.0)
    except ConnectionLostError as error:
        _logger.debug("nobody was there to be told %r: %s", why, error)


def _summary(session: _Session) -> str:
    if not session.seconds:
        return "no plans"
    p50, p99 = np.percentile(session.seconds, (50, 99)) * 1e3
    return f"{session.plans} plans, {p50:.1f} ms each (p50), {p99:.1f} (p99)"
