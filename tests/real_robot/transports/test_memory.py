"""The transport in memory: its clock, its faults, its QoS."""

import pytest

from embodied.core.errors import UsageError
from embodied.real_robot.transports.memory import Faults, MemoryTransport
from embodied.real_robot.transports.transport import COMMAND, LATCHED, SENSOR, QoS, TransportError

KIND = "std_msgs/msg/String"


def exchange(faults, *, seed=0, count=1000, period_s=0.01):
    """Numbers and times of what arrives of `count` messages."""
    network = MemoryTransport(seed=seed)
    network.set_faults("/a", faults)
    begin, arrived = network.clock.now(), []
    network.subscribe("/a", KIND, SENSOR, lambda packet, stamp: arrived.append((int(packet), (stamp - begin) / 1e9)))
    publisher = network.advertise("/a", KIND, SENSOR)
    for number in range(count):
        publisher.publish(b"%d" % number)
        network.advance(period_s)
    network.advance(10)
    return arrived


def test_without_faults_everything_arrives_in_order_at_once():
    assert exchange(Faults(), count=50) == [(n, pytest.approx(n * 0.01)) for n in range(50)]


def test_loss_is_of_the_share_asked_for_and_repeats_with_the_seed():
    arrived = exchange(Faults(loss=0.2))
    assert 750 < len(arrived) < 850
    assert arrived == exchange(Faults(loss=0.2)) != exchange(Faults(loss=0.2), seed=1)
    assert exchange(Faults(loss=1.0)) == []


def test_delay_and_jitter():
    for number, time_s in exchange(Faults(delay_s=0.25)):
        assert time_s == pytest.approx(number * 0.01 + 0.25)
    arrived = exchange(Faults(delay_s=0.1, jitter_s=0.05))
    ages = [time_s - number * 0.01 for number, time_s in arrived]
    assert min(ages) >= 0.1 - 1e-9 and max(ages) <= 0.15 + 1e-9 and len(arrived) == 1000
    assert [number for number, _ in arrived] != sorted(number for number, _ in arrived)
    assert [time_s for _, time_s in arrived] == sorted(time_s for _, time_s in arrived)


def test_duplicates():
    assert 1250 < len(exchange(Faults(duplicates=0.3))) < 1350


def test_a_callback_may_publish_and_close():
    network = MemoryTransport()
    log = []
    back = network.advertise("/b", KIND, COMMAND)
    network.set_faults("/b", Faults(delay_s=0.5))
    network.subscribe("/a", KIND, COMMAND, lambda packet, stamp: back.publish(packet + b"!"))
    network.subscribe("/b", KIND, COMMAND, lambda packet, stamp: (log.append(packet), network.close()))
    publisher = network.advertise("/a", KIND, COMMAND)
    publisher.publish(b"x")
    network.advance(0.4)
    assert log == []
    publisher.publish(b"y")
    network.advance(5)
    assert log == [b"x!"]
    with pytest.raises(TransportError, match="closed"):
        publisher.publish(b"z")


@pytest.mark.parametrize(
    ("offered", "wanted", "match"),
    [
        (COMMAND, SENSOR, True),
        (SENSOR, COMMAND, False),
        (SENSOR, SENSOR, True),
        (LATCHED, COMMAND, True),
        (COMMAND, LATCHED, False),
    ],
)
def test_qos_matches_as_in_dds(offered, wanted, match):
    network = MemoryTransport()
    heard = []
    publisher = network.advertise("/a", KIND, offered)
    subscription = network.subscribe("/a", KIND, wanted, lambda packet, stamp: heard.append(packet))
    network.subscribe("/a", "std_msgs/msg/Bool", wanted, lambda packet, stamp: heard.append("wrong type"))
    assert publisher.matched() == subscription.matched() == int(match)
    publisher.publish(b"x")
    network.advance(0)
    assert heard == [b"x"] * match


def test_late_readers_of_a_latched_topic():
    network = MemoryTransport()
    publisher = network.advertise("/a", KIND, QoS(depth=2, transient_local=True))
    for packet in (b"1", b"2", b"3"):
        publisher.publish(packet)
    heard = {"latched": [], "volatile": []}
    network.subscribe("/a", KIND, LATCHED, lambda packet, stamp: heard["latched"].append(packet))
    network.subscribe("/a", KIND, COMMAND, lambda packet, stamp: heard["volatile"].append(packet))
    network.advance(0)
    assert heard == {"latched": [b"2", b"3"], "volatile": []}


def test_the_sender_may_reuse_its_buffer():
    network = MemoryTransport()
    heard = []
    network.subscribe("/a", KIND, COMMAND, lambda packet, stamp: heard.append(bytes(packet)))
    buffer = bytearray(b"one")
    network.advertise("/a", KIND, COMMAND).publish(memoryview(buffer))
    buffer[:] = b"two"
    network.advance(0)
    assert heard == [b"one"]


def test_clocks():
    network = MemoryTransport()
    now, wall = network.clock.now(), network.clock.wall()
    network.advance(1.5)
    assert network.clock.now() - now == network.clock.wall() - wall == 1_500_000_000
    network.clock.wall_offset_ns += 7
    assert network.clock.wall() - wall == 1_500_000_007
    with pytest.raises(ValueError, match="negative"):
        network.clock.advance(-1)


@pytest.mark.parametrize("faults", [{"loss": 1.1}, {"duplicates": -0.1}, {"delay_s": -1}, {"jitter_s": float("nan")}])
def test_faults_that_make_no_sense(faults):
    with pytest.raises(UsageError, match=next(iter(faults))):
        Faults(**faults)
