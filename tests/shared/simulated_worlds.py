"""The simulated robot, an operator and a policy around the command loop, on the memory transport and its clock."""

import itertools
from dataclasses import replace

import numpy as np

from embodied.real_robot.control.loop import run_command_loop
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.realtime import RealTime
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.supervisors import Sensor
from embodied.real_robot.simulator.simulated_robot import SimulatedRobot
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

NS = 1_000_000_000
_numbers = itertools.count()


def blind_robot(**changes):
    """The shipped simulated robot without cameras, which is ten times faster."""
    return replace(load_robot("sim"), cameras={}, **changes)


class World:
    """One simulator, stepped at the policy's rate, and what happens around it.

    Args:
        policy: `policy(observation) -> action [N]` of the environment's whole observation, or None: there is none.
        latency_s: from an observation to its action in the mailbox.
    """

    def __init__(self, robot, folder, *, env, seeds=(0,), policy=None, latency_s=0.015, **options):
        self.robot, self.transport, self.folder = robot, MemoryTransport(), folder
        self.simulated = SimulatedRobot(robot, self.transport, env=env, seeds=seeds, **options)
        self.policy, self.latency_s, self.enabled = policy, latency_s, True
        self.executed, self.observed, self.modes, self.mailbox = [], [], [], None
        self._enable = self.transport.advertise(robot.enable.name, robot.enable.type, COMMAND)
        self._period_ns = round(NS / robot.policy_hz)
        self._next_ns = self.transport.clock.now()
        self._waiting = []

    def wait(self, deadline_ns):
        """The pacer of the command loop: the world goes on until its deadline."""
        while self._next_ns <= deadline_ns:
            self._advance(self._next_ns)
            self._next_ns += self._period_ns
            before = self.simulated.observation
            action = self.simulated.step()
            if action is not None:
                self.executed.append(action)
                self.observed.append(before)
            self._think()
        self._advance(deadline_ns)
        self._deliver()
        return self.transport.clock.now()

    def step(self, periods=1):
        """Only the simulator, without a command loop."""
        for _ in range(periods):
            self.wait(self._next_ns)

    def run_episode(self, seed, *, most_s=60.0):
        """One episode through a command loop of its own; the status at its end."""
        self.simulated.ask(seed, f"test {next(_numbers)}")
        self.step()
        self.mailbox = PolicyMailbox.create(self.folder / f"mailbox{next(_numbers)}", self.robot)
        begun = self.transport.clock.now()

        def stop():
            elapsed = (self.transport.clock.now() - begun) / NS
            self.enabled = elapsed > 0.1
            return self.simulated.status.phase == "ended" or elapsed > most_s

        run_command_loop(
            self.robot, self.transport, self.mailbox, stop=stop, live=True, pacer=self,
            wanted=RealTime(freeze_garbage=False),
            after_cycle=lambda carry, output: self.modes.append((carry.mode.value, carry.reason)),
        )  # fmt: skip
        self.mailbox = None
        return self.simulated.status

    def _advance(self, time_ns):
        self.transport.advance(max(0, time_ns - self.transport.clock.now()) / NS)

    def _think(self):
        now = self.transport.clock.now()
        self._enable.publish(encode(message_type(self.robot.enable.type)(data=self.enabled)))
        if self.policy is not None:
            action = self.policy(self.simulated.observation)
            self._waiting.append((now + round(self.latency_s * NS), now, np.asarray(action)))

    def _deliver(self):
        now = self.transport.clock.now()
        if self.mailbox is None:
            self._waiting.clear()
            return
        self.mailbox.write_heartbeat(now, {name: Sensor(now, 0, now) for name in self.robot.cameras})
        while self._waiting and self._waiting[0][0] <= now:
            _, observed, action = self._waiting.pop(0)
            self.mailbox.write_chunk(action[None], observed_ns=observed, written_ns=now, step_ns=self._period_ns)


def listen(transport, topic):
    """What arrives on a topic, decoded: a list that grows."""
    heard, kind = [], message_type(topic.type)
    transport.subscribe(topic.name, topic.type, SENSOR, lambda packet, stamp: heard.append(decode(packet, kind)))
    return heard
