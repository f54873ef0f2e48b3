"""How long messages take from one process to another, from the value that is sent to the numpy array that is received.

python benchmarks/robot.py [TRANSPORT ...]    # dds, zenoh, or these; prints a table with the targets

One process sends at the rate of a camera or a robot, another receives; both on loopback. A time is from before the
message is encoded to after its array is there. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.images import pixels
from embodied.real_robot.messages.values import Message, message_type, nanoseconds, time_message
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import SENSOR, Packet, Transport

IMAGE, JOINTS = message_type("sensor_msgs/msg/Image"), message_type("sensor_msgs/msg/JointState")
WARM_UP = 20  # messages that do not count
PATIENCE_S = 30.0  # for the other process to be found


@dataclass(frozen=True, eq=False)
class Case:
    """What is sent, how often, and how fast half of it should be there."""

    title: str
    topic: str
    message: Message
    rate_hz: float
    count: int
    target_ms: float


def image(height: int, width: int) -> Message:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return IMAGE(height=height, width=width, encoding="rgb8", step=3 * width, data=noise)


CASES = (
    Case("image 640x480", "/image_vga", image(480, 640), 30.0, 240, 2.0),
    Case("image 224x224", "/image_small", image(224, 224), 30.0, 240, 1.0),
    Case("joint state of 7", "/joint_states", JOINTS(name=[f"j{n}" for n in range(7)], position=[0.0] * 7,
         velocity=[0.0] * 7), 200.0, 1000, 0.5),
)  # fmt: skip


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["send"]:
        send(open_transport(arguments[1], **json.loads(arguments[2])))
        return
    print(f"{'transport':<10}{'message':<18}{'p50 ms':>8}{'p99 ms':>8}{'target':>8}{'received':>12}")
    for name in arguments or ["dds", "zenoh"]:
        for case, ages in measure(name).items():
            p50, p99 = np.percentile(ages, [50, 99])
            verdict = "" if p50 < case.target_ms else "  missed"
            received = f"{len(ages)}/{case.count}"
            print(f"{name:<10}{case.title:<18}{p50:>8.2f}{p99:>8.2f}{case.target_ms:>8.1f}{received:>12}{verdict}")


def options_of(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the receiver and of the sender, which no other run shares."""
    if name == "dds":
        return ({"domain": 1 + os.getpid() % 200},) * 2
    endpoint = f"tcp/127.0.0.1:{20_000 + os.getpid() % 20_000}"
    return {"listen": endpoint, "connect": None}, {"connect": endpoint}


def measure(name: str) -> dict[Case, np.ndarray]:
    """Milliseconds of the messages of each case."""
    ours, theirs = options_of(name)
    transport = open_transport(name, **ours)
    ages: dict[Case, list[float]] = {case: [] for case in CASES}

    def receiver(case: Case) -> Any:
        def receive(packet: Packet, stamp_ns: int) -> None:
            message = decode(packet, type(case.message))
            array = pixels(message) if case.message.struct is IMAGE.struct else message.position
            assert array.size
            ages[case].append((time.monotonic_ns() - nanoseconds(message.header.stamp)) / 1e6)

        return receive

    for case in CASES:
        transport.subscribe(case.topic, case.message.struct.name, SENSOR, receiver(case))
    command = [sys.executable, __file__, "send", name, json.dumps(theirs)]
    subprocess.run(command, check=True)
    time.sleep(0.5)
    transport.close()
    return {case: np.array(found[WARM_UP:] or [np.inf]) for case, found in ages.items()}


def send(transport: Transport) -> None:
    """The other process: one case after the other."""
    for case in CASES:
        publisher = transport.advertise(case.topic, case.message.struct.name, SENSOR)
        end = time.monotonic() + PATIENCE_S
        while not publisher.matched() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)
        begin = time.monotonic()
        for number in range(WARM_UP + case.count):
            time.sleep(max(0.0, begin + number / case.rate_hz - time.monotonic()))
            case.message.header.stamp = time_message(time.monotonic_ns())
            publisher.publish(encode(case.message))
    time.sleep(0.5)
    transport.close()


if __name__ == "__main__":
    main()
