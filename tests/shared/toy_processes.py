"""The policy's and the command process as real ones, on the machine's clock, around a toy arm."""

import sys
import time
from pathlib import Path

import numpy as np
from real_robots import toy_robot

from embodied.real_robot.control.loop import run_command_loop
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.pacing import SystemPacer
from embodied.real_robot.control.realtime import RealTime
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.modes import Mode
from embodied.real_robot.transports.clocks import ManualClock
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

NS = 1_000_000_000


def robot():
    """The toy robot with deadlines for a machine that is busy with other tests."""
    patient = dict.fromkeys(("deadline_s", "enable_s", "joint_state_s", "chunk_s"), 30)
    return toy_robot(engage_ramp_s=0.1, timeouts={**patient, "heartbeat_s": 2})


def run_policy(folder):
    """Swing the arm for ever, and show life."""
    box = PolicyMailbox.open(folder / "mailbox", robot())
    while True:
        now = time.monotonic_ns()
        times = now / NS + 0.05 * np.arange(8)
        actions = np.stack([0.15 * np.sin(2 * np.pi * 0.4 * times)] * 2, axis=1)
        box.write_heartbeat(now, {})
        box.write_chunk(actions, observed_ns=now, written_ns=now, step_ns=NS // 20)
        time.sleep(0.02)


class RealTimeWorld:
    """A pacer that moves the memory transport's clock with the machine's, and sends what the toy arm measures.

    The switch is held once `released`: that it was let go has then been seen, however late the first cycles are.
    """

    def __init__(self, transport):
        self.transport, self.pose, self.pacer = transport, np.zeros(2), SystemPacer(spin_ns=0)
        self.released, self.gaps = False, 0
        made = robot()
        self.names = made.axis_names
        self.joints = transport.advertise(made.joint_states.name, made.joint_states.type, SENSOR)
        self.enable = transport.advertise(made.enable.name, made.enable.type, COMMAND)

    def wait(self, deadline_ns):
        joints, switch = message_type("sensor_msgs/msg/JointState"), message_type("std_msgs/msg/Bool")
        self.joints.publish(encode(joints(name=list(self.names), position=self.pose)))
        self.enable.publish(encode(switch(data=self.released)))
        now = self.pacer.wait(deadline_ns)
        self.transport.advance((now - self.transport.clock.now()) / NS)
        return self.transport.clock.now()


def run_commands(folder):
    """The command process: each command goes to `commands`, until `stop` is there.

    A row is a time, two positions and how many gaps there were, in each of which the robot had stopped by itself. How
    many there were in the end is in `gaps`.
    """
    transport = MemoryTransport()
    transport.clock = ManualClock(start_ns=time.monotonic_ns())
    world = RealTimeWorld(transport)
    with open(folder / "commands", "wb", buffering=0) as commands:

        def note(carry, output):
            world.released, world.gaps = carry.mode is not Mode.SHADOW, carry.gaps
            if output.motion is not None and not output.shadow:
                world.pose = output.motion.position.copy()
                commands.write(np.array([time.monotonic_ns(), *world.pose, carry.gaps], np.float64).tobytes())

        run_command_loop(
            robot(), transport, PolicyMailbox.open(folder / "mailbox", robot()), live=True, pacer=world,
            board=StatusBoard.create(folder / "board"), wanted=RealTime(priority=1, lock_memory=True),
            stop=(folder / "stop").exists, after_cycle=note,
        )  # fmt: skip
    (folder / "gaps").write_text(str(world.gaps))


if __name__ == "__main__":
    {"policy": run_policy, "commands": run_commands}[sys.argv[1]](Path(sys.argv[2]))
