"""Messages on a stream: what is sent arrives, what is none is refused, and nothing is waited for without end."""

import random
import socket
import struct
import time

import pytest

from embodied.real_robot.server.framing import MAX_RECORD, Channel, ConnectionLostError, ProtocolError


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


def receive(channel, *, seconds=2.0, most=1000):
    return channel.receive(idle_s=seconds, whole_s=seconds, most=most)


def test_records_and_bytes_arrive_as_they_were(ends):
    channel, theirs = ends
    Channel(theirs).send({"kind": "é", "number": 3}, b"\x00\xff" * 5, timeout_s=2)
    Channel(theirs).send({}, timeout_s=2)
    message = receive(channel)
    assert message.text("kind") == "é" and message.number("number") == 3 and bytes(message.data) == b"\x00\xff" * 5
    assert receive(channel).record == {}


@pytest.mark.parametrize(
    ("head", "record", "message"),
    [
        (("ABCD", 2, 0), b"{}", "no message of a policy server"),
        (("EPS1", MAX_RECORD + 1, 0), b"", "more than"),
        (("EPS1", 2, 1001), b"{}", "more than 16384 . 1000"),
        (("EPS1", 0, 0), b"", "no JSON"),
        (("EPS1", 4, 0), b"\xff\xfe\x00\x00", "no JSON"),
        (("EPS1", 4, 0), b"[{}]", "no JSON object"),
        (("EPS1", 8000, 0), b"[" * 8000, "no JSON"),
        (("EPS1", 9, 0), b'{"a":NaN}', "NaN is no number"),
    ],
)
def test_what_is_no_message_is_refused_without_reading_on(ends, head, record, message):
    channel, theirs = ends
    theirs.sendall(struct.pack("<4sII", head[0].encode(), *head[1:]) + record)
    with pytest.raises(ProtocolError, match=message):
        receive(channel)


def test_fields_are_checked(ends):
    channel, theirs = ends
    Channel(theirs).send({"text": "a" * 201, "number": True, "small": -1}, timeout_s=2)
    message = receive(channel)
    for name in ("number", "small", "missing"):
        with pytest.raises(ProtocolError, match=f"{name} must be a whole number"):
            message.number(name)
    for name in ("text", "number", "missing"):
        with pytest.raises(ProtocolError, match=f"{name} must be a text"):
            message.text(name)


def test_one_that_dawdles_or_leaves_is_lost(ends):
    channel, theirs = ends
    with pytest.raises(ConnectionLostError, match="too long"):
        receive(channel, seconds=0.1)
    theirs.sendall(b"EPS1")
    begun = time.monotonic()
    with pytest.raises(ConnectionLostError, match="too long"):
        receive(channel, seconds=0.2)
    assert time.monotonic() - begun < 1.5
    theirs.close()
    with pytest.raises(ConnectionLostError, match="ended the connection"):
        receive(channel)


def test_one_that_takes_nothing_is_lost(ends):
    channel, _ = ends
    with pytest.raises(ConnectionLostError, match="too long"):
        channel.send({}, bytes(16 << 20), timeout_s=0.2)


def test_noise_is_refused_or_lost_and_nothing_else():
    rng = random.Random(0)
    for _ in range(300):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            head = struct.pack("<4sII", b"EPS1", rng.choice((0, 5, 30, 2**31)), rng.choice((0, 8, 2**32 - 1)))
            theirs.sendall((head if rng.random() < 0.7 else b"") + rng.randbytes(rng.randrange(60)))
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises((ProtocolError, ConnectionLostError)):
                receive(Channel(ours))
