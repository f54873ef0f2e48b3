"""Transports by name, and what their options refuse before anything is opened."""

import builtins
import platform
import sys

import pytest

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.real_robot.transports import dds_library
from embodied.real_robot.transports.allocator import keep_buffers
from embodied.real_robot.transports.opening import open_transport, transport_names, transports
from embodied.real_robot.transports.transport import QoS, check_topic, check_type


def test_they_are_found_by_name():
    assert transport_names() == ("bag", "dds", "memory", "ros1", "zenoh") == tuple(transports())
    with pytest.raises(UsageError, match="did you mean zenoh"):
        open_transport("zenoe")
    with pytest.raises(UsageError, match="option of transport dds 'domian': did you mean domain"):
        open_transport("dds", domian=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dds", {"interface": "eth0"}, "needs a domain"),
        ("dds", {"domain": 233}, "0 .. 232"),
        ("dds", {"domain": 1, "interface": 'x"/>'}, "interface must be"),
        ("zenoh", {"listen": "tcp/0.0.0.0:7447"}, "needs a domain"),
        ("zenoh", {"connect": "tcp/192.168.1.5:7447"}, "needs a domain"),
        ("zenoh", {"connect": "tcp/robot.local:7447"}, "needs a domain"),
        ("zenoh", {"connect": "here"}, "connect must look like"),
        ("zenoh", {"domain": -1}, "0 .. 232"),
        ("zenoh", {"node": "a/b"}, "node must be"),
        ("bag", {"path": "x.mcap", "rate": 0}, "rate must be"),
    ],
)
def test_options_that_make_no_sense(name, options, message):
    with pytest.raises(UsageError, match=message):
        open_transport(name, **options)


def test_an_interface_that_is_not_there():
    pytest.importorskip("cyclonedds")
    with pytest.raises(UserError, match="is nosuch0 a network interface"):
        open_transport("dds", domain=201, interface="nosuch0")


def test_one_line_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_zenoh(name, *rest):
        if name == "zenoh":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_zenoh)
    monkeypatch.delitem(sys.modules, "zenoh", raising=False)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[zenoh\]"):
        open_transport("zenoh")
    monkeypatch.setattr(dds_library, "find_spec", lambda name: None)
    dds_library.library.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"embodied-learning\[dds\]"):
            open_transport("dds", domain=200)
    finally:
        dds_library.library.cache_clear()


@pytest.mark.parametrize("topic", ["joint_states", "/", "/a//b", "/1a", "/a b", "/a__b", "/a/", "/" + "a" * 300])
def test_topics_that_ros_does_not_allow(topic):
    with pytest.raises(UsageError, match="topic must be"):
        check_topic(topic)


def test_types_and_qos():
    assert check_type("sensor_msgs/msg/Image") == ("sensor_msgs", "Image")
    for wrong in ("sensor_msgs/Image", "Image", "a/srv/B"):
        with pytest.raises(UsageError, match="message type must look like"):
            check_type(wrong)
    for options in ({"depth": 0}, {"max_blocking_s": float("nan")}, {"max_blocking_s": -1}):
        with pytest.raises(UsageError, match=next(iter(options))):
            QoS(**options)


def test_buffers_are_kept_where_the_c_library_can():
    assert keep_buffers() == (platform.libc_ver()[0] == "glibc")
