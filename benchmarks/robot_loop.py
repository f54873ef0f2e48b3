"""Lateness of the command loop at 100 and 200 Hz: on an idle machine, beside two CPU hogs, normal and SCHED_FIFO.

python benchmarks/robot_loop.py [--seconds 20]

Lateness is how long after its deadline a cycle begins; `cycle` is the median time that one takes. Each row is a process
of its own that runs the whole command loop of `ros2_arm` (safety chain with the workspace box, brake tails, status
board) on the memory transport, in shadow mode, with a policy that swings the arm. SCHED_FIFO rows need root or an
rtprio limit; what is refused is named. Leave the machine alone meanwhile: the idle rows are only as idle as it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embodied.real_robot.control.cycle import Carry, Output
from embodied.real_robot.control.loop import run_command_loop
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.pacing import SystemPacer
from embodied.real_robot.control.realtime import RealTime
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.supervisors import Sensor
from embodied.real_robot.transports.clocks import ManualClock
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import SENSOR

TARGET_MS = 1.0  # p99 at 100 Hz: idle, and with hogs where FIFO is granted
NS = 1_000_000_000
ROWS = [(hz, hogs, fifo) for hz in (100, 200) for hogs in (0, 2) for fifo in (False, True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(run_loop(float(options.row[0]), options.row[1] == "fifo", options.seconds)))
        return
    print("  Hz hogs scheduling   p50 ms   p99 ms  p99.9 ms   max ms  cycle ms  target")
    for hz, hogs, fifo in ROWS:
        print(row(hz, hogs, fifo, options.seconds), flush=True)


def row(hz: int, hogs: int, fifo: bool, seconds: float) -> str:
    """One line of the table."""
    workers = [multiprocessing.Process(target=hog, daemon=True) for _ in range(hogs)]
    for worker in workers:
        worker.start()
    scheduling = "fifo" if fifo else "normal"
    command = [sys.executable, __file__, "--seconds", str(seconds), "--row", str(hz), scheduling]
    try:
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    widths = {"p50": 8, "p99": 8, "p999": 9, "max": 8, "cycle": 9}
    times = " ".join(f"{found[name]:{width}.3f}" for name, width in widths.items())
    verdict = ""
    if hz == 100 and (fifo or not hogs):
        verdict = f"p99 < {TARGET_MS:g}: {'met' if found['p99'] < TARGET_MS else 'missed'}"
    if found["refused"]:
        verdict += f" refused: {found['refused']}"
    return f"{hz:4d} {hogs:4d} {scheduling:10} {times}  {verdict}"


def hog() -> None:
    """Work that needs a CPU all the time."""
    values = np.ones((64, 64))
    while True:
        values = values @ values
        values /= values.max()


class World:
    """A pacer that notes how long cycles take and, while it waits, plays robot and policy."""

    def __init__(self, transport: MemoryTransport, robot: RobotDescription, mailbox: PolicyMailbox) -> None:
        assert robot.joint_states is not None
        self._transport, self._robot, self._mailbox = transport, robot, mailbox
        self._joints = transport.advertise(robot.joint_states.name, robot.joint_states.type, SENSOR)
        self._pacer = SystemPacer()
        self._began = 0
        self.pose = robot.column("home")
        self.cycles_ms: list[float] = []

    def wait(self, deadline_ns: int) -> int:
        now = time.monotonic_ns()
        if self._began:
            self.cycles_ms.append((now - self._began) / 1e6)
        self._mailbox.write_heartbeat(now, {name: Sensor(now, 0, now) for name in self._robot.cameras})
        if len(self.cycles_ms) % 5 == 0:
            times = now / NS + np.arange(8)[:, None] / 20
            swing = self._robot.column("home") + 0.15 * np.sin(2 * times) * self._robot.column("measured")
            self._mailbox.write_chunk(swing, observed_ns=now, written_ns=now, step_ns=NS // 20)
        kind = message_type("sensor_msgs/msg/JointState")
        self._joints.publish(encode(kind(name=list(self._robot.axis_names), position=self.pose)))
        self._transport.advance(max(0, time.monotonic_ns() - self._transport.clock.now()) / NS)
        begins = self._pacer.wait(deadline_ns)
        self._transport.advance((begins - self._transport.clock.now()) / NS)
        self._began = time.monotonic_ns()
        return begins

    def note(self, carry: Carry, output: Output) -> None:
        """The arm does what it is told."""
        if output.motion is not None:
            self.pose = output.motion.position


def run_loop(hz: float, fifo: bool, seconds: float) -> dict[str, Any]:
    """Lateness of one run, ms."""
    robot = replace(load_robot("ros2_arm"), command_hz=hz)
    with tempfile.TemporaryDirectory() as folder:
        mailbox = PolicyMailbox.create(Path(folder) / "mailbox", robot)
        transport = MemoryTransport()
        transport.clock = ManualClock(start_ns=time.monotonic_ns())
        world = World(transport, robot, mailbox)
        end = time.monotonic() + seconds
        report = run_command_loop(
            robot,
            transport,
            mailbox,
            stop=lambda: time.monotonic() > end,
            board=StatusBoard.create(Path(folder) / "board"),
            wanted=RealTime(priority=50 if fifo else None, cpu=0 if fifo else None, lock_memory=fifo),
            pacer=world,
            after_cycle=world.note,
        )
    return {
        "p50": report.late_p50_ms,
        "p99": report.late_p99_ms,
        "p999": report.late_p999_ms,
        "max": report.late_max_ms,
        "cycle": float(np.median(world.cycles_ms)),
        "refused": "; ".join(report.refused),
    }


if __name__ == "__main__":
    main()
