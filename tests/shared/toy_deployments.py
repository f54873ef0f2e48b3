"""A toy arm, its operator and its policy around the command loop, on the memory transport and its clock."""

import itertools
import json

import numpy as np

from embodied.real_robot.control.loop import run_command_loop
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.realtime import RealTime
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.supervisors import Sensor
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import COMMAND, LATCHED, SENSOR

NS = 1_000_000_000
_numbers = itertools.count()


class Deployment:
    """The world of one run: `world(t)` changes the attributes, `t` in s from the start.

    Attributes:
        enabled, pressed, reset: what the operator does; `enabled` None = no messages; `reset` is sent once.
        policy: gives actions [H, N] at a time, or None: writes none.
        alive: whether the policy's process shows life.
        joints: whether joint states are sent; `pose` is what they say, and follows commands while `follows`.
        frozen_s: since when the cameras send the same picture, or None.
        stall_s: by how much the next cycle is too late.
        commands, shadows: messages with their times; `modes`: mode and reason of each cycle.
    """

    def __init__(self, robot, folder, *, seed=0):
        self.robot, self.transport = robot, MemoryTransport(seed=seed)
        self.mailbox = PolicyMailbox.create(folder / f"mailbox{next(_numbers)}", robot)
        self.enabled, self.pressed, self.reset = None, False, False
        self.policy = lambda t: np.tile([0.1, -0.1], (4, 1))[:, : len(robot.axes)]
        self.alive, self.joints, self.follows, self.frozen_s, self.stall_s = True, True, True, None, 0.0
        self.pose = np.zeros(len(robot.axes))
        self.commands, self.shadows, self.modes, self.carries, self.status = [], [], [], [], []
        self._start_ns = self.transport.clock.now()
        self._next_chunk = 0.0
        self._operator = {
            topic.name: (self.transport.advertise(topic.name, topic.type, COMMAND), message_type(topic.type))
            for topic in (robot.enable, robot.estop, robot.reset)
        }
        if robot.joint_states:
            self._joints = self.transport.advertise(robot.joint_states.name, robot.joint_states.type, SENSOR)
        for prefix, kept in (("", self.commands), ("/shadow", self.shadows)):
            self._listen(prefix + robot.command.name, robot.command.type, kept)
        text = message_type(robot.status.type)
        self.transport.subscribe(
            robot.status.name, robot.status.type, LATCHED,
            lambda packet, _: self.status.append(json.loads(decode(packet, text).data)),
        )  # fmt: skip

    @property
    def now_s(self):
        """Since the start."""
        return (self.transport.clock.now() - self._start_ns) / NS

    def run(self, seconds, world=lambda t: None, *, live=True, **options):
        """Run the loop; the report."""
        self.world = world
        return run_command_loop(
            self.robot, self.transport, self.mailbox, stop=lambda: self.now_s >= seconds, live=live, pacer=self,
            wanted=RealTime(freeze_garbage=False), after_cycle=self._note, **options,
        )  # fmt: skip

    def wait(self, deadline_ns):
        """The pacer: the world goes on until the deadline, or longer where it stalls."""
        self.world(self.now_s)
        self._send()
        ahead = (deadline_ns - self.transport.clock.now()) / NS + self.stall_s
        self.stall_s = 0.0
        self.transport.advance(max(0.0, ahead))
        return max(self.transport.clock.now(), deadline_ns)

    def publish_joints(self, names, positions, *, stamp_ns=None):
        """A joint state, stamped now unless told otherwise."""
        stamp_ns = self.transport.clock.wall() if stamp_ns is None else stamp_ns
        time = message_type("builtin_interfaces/msg/Time")(sec=stamp_ns // NS, nanosec=stamp_ns % NS)
        header = message_type("std_msgs/msg/Header")(stamp=time)
        kind = message_type("sensor_msgs/msg/JointState")
        self._joints.publish(encode(kind(header=header, name=list(names), position=np.asarray(positions, float))))

    def _listen(self, topic, kind, kept):
        made = message_type(kind)

        def receive(packet, stamp_ns):
            kept.append(((stamp_ns - self._start_ns) / NS, decode(packet, made)))
            if kept is self.commands and self.follows and kind.endswith("Float64MultiArray"):
                self.pose = np.array(kept[-1][1].data)

        self.transport.subscribe(topic, kind, COMMAND, receive)

    def _send(self):
        now = self.transport.clock.now()
        if self.joints and self.robot.joint_states:
            self.publish_joints(self.robot.axis_names, self.pose)
        for topic, value in ((self.robot.enable, self.enabled), (self.robot.estop, self.pressed)):
            publisher, kind = self._operator[topic.name]
            if value is not None:
                publisher.publish(encode(kind(data=value)))
        if self.reset:
            publisher, kind = self._operator[self.robot.reset.name]
            publisher.publish(encode(kind()))
            self.reset = False
        if self.alive:
            changed = now if self.frozen_s is None else self._start_ns + round(self.frozen_s * NS)
            self.mailbox.write_heartbeat(now, {name: Sensor(now, 0, changed) for name in self.robot.cameras})
            if self.policy is not None and self.now_s >= self._next_chunk:
                self._next_chunk = self.now_s + 1 / self.robot.policy_hz
                step_ns = round(NS / self.robot.policy_hz)
                self.mailbox.write_chunk(self.policy(self.now_s), observed_ns=now, written_ns=now, step_ns=step_ns)

    def _note(self, carry, output):
        self.modes.append((self.now_s, carry.mode.value, carry.reason))
        self.carries.append(carry)

    def mode_at(self, t):
        """The mode of the last cycle before `t`."""
        return [mode for at, mode, _ in self.modes if at <= t][-1]

    def positions(self):
        """Times [T] and commanded positions [T, N]."""
        return np.array([t for t, _ in self.commands]), np.array([message.data for _, message in self.commands])

    def assert_within_limits(self, *, outside=0.0):
        """Differences of successive commands, 1 / command_hz apart by count, keep the robot's limits.

        `outside`: how far outside its position limits the robot may have been engaged.
        """
        _, way = self.positions()
        limits, period = self.robot.limits(), 1 / self.robot.command_hz
        assert (way >= limits.low - outside).all() and (way <= limits.high + outside).all()
        for order, limit in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
            assert (np.abs(np.diff(way, n=order, axis=0)) / period**order <= limit * (1 + 1e-6)).all()


def enable_after(deployment, start_s):
    """A world in which the switch is let go before `start_s` and held after."""

    def world(t):
        deployment.enabled = t >= start_s

    return world
