"""`embodied deploy` as a process, and somebody beside the robot who hears all, holds the switch and does harm."""

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

import embodied
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.simulator.episodes import FAULTS, EpisodeClient
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, LATCHED

NS = 1_000_000_000
ROOT = Path(embodied.__file__).resolve().parents[1]
_PATIENT = {
    "policy_hz": 5, "command_hz": 50, "deadline_s": 5.0, "heartbeat_s": 1.0, "chunk_s": 2.0, "camera_s": 1.5,
    "joint_state_s": 0.75, "source_s": 0.7, "enable_s": 2.0,
}  # fmt: skip
PATIENCE_S = 120.0  # for processes to start on a busy machine


def busy_robot(folder, **changes):
    """A description of `sim` for a machine that does other things: slower, and patient with starved processes."""
    text = (files("embodied.real_robot") / "robots" / "sim.yaml").read_text()
    for name, value in {**_PATIENT, **changes}.items():
        text, count = re.subn(rf"(?m)^  {name}: .*$", f"  {name}: {value}", text)
        assert count == 1, name
    path = folder / "busy_sim.yaml"
    path.write_text(text)
    return path


def start(*arguments, log):
    """A Python process of the project."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with open(log, "ab") as output:
        return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, stdout=output, stderr=output)


def start_simulator(domain, log):
    """The simulated robot, by itself."""
    env = {"image_size": 192, "horizon": 500}
    return start(
        "-m", "embodied.real_robot.simulator", "--task", "hammer-v3", "--env", json.dumps(env),
        "--options", json.dumps({"domain": domain}), log=log,
    )  # fmt: skip


def start_deploy(policy, domain, log, *settings):
    """`embodied deploy` on a robot that is there already and has a person of its own."""
    return start(
        "-m", "embodied", "deploy", f"run={policy}", f"domain={domain}", "device=cpu", *settings, log=log,
    )  # fmt: skip


def until_running(start_it, log, meanwhile=lambda: None):
    """A deployment whose self-test has passed; where the machine stood still meanwhile it gets two more tries."""
    for _ in range(3):
        process = start_it()
        end = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < end:
            if re.search(r"(?m)^running", log.read_text()):
                return process
            meanwhile()
            time.sleep(0.5)
        process.kill()
        process.wait()
        if "the self-test failed" not in log.read_text():
            break
    raise AssertionError(f"deploy does not run:\n{log.read_text()[-3000:]}")


def child_of(process, role):
    """The pid of a deployment's process."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if role.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"no process {role}")


def kill(pid):
    """As nothing can be prepared for; the moment on the monotonic clock, ns."""
    now = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return now


def fill_disk(pid):
    """From now on no file of a process may grow."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))


class Bystander:
    """Says what the switch is while it waits.

    Attributes:
        enabled: of the switch; None: the topic is silent.
        deploy: the process that must not end while waiting, if any.
        modes: moment ns, mode and reason by each status message; commands: moments ns and values.
        stale: what was not fresh by the last status message.
    """

    def __init__(self, domain, *, robot="sim"):
        self.robot = load_robot(robot)
        self.transport = open_transport("dds", domain=domain)
        self.enabled, self.modes, self.commands, self.stale, self.deploy = None, [], [], [], None
        self.episodes, self._seeds = EpisodeClient(self.transport), itertools.count()
        self._publishers = {
            topic.name: (self.transport.advertise(topic.name, topic.type, COMMAND), message_type(topic.type))
            for topic in (self.robot.enable, self.robot.estop, self.robot.reset, FAULTS)
        }
        self._listen(self.robot.status, LATCHED, self._hear_status)
        self._listen(
            self.robot.command, COMMAND, lambda message, at: self.commands.append((at, np.array(message.data)))
        )

    def _listen(self, topic, qos, use):
        kind = message_type(topic.type)
        self.transport.subscribe(topic.name, topic.type, qos, lambda packet, at: use(decode(packet, kind), at))

    def _hear_status(self, message, at):
        record = json.loads(message.data)
        self.modes.append((record["time_ns"], record["mode"], record["reason"]))
        self.stale = record["stale"]

    def say(self, topic, **content):
        """One message."""
        publisher, kind = self._publishers[topic.name]
        publisher.publish(encode(kind(**content)))

    def new_scene(self):
        """Another episode of the simulated robot, which looks different."""
        self.episodes.ask(next(self._seeds))

    def harm(self, **faults):
        """Faults of the simulated robot's sensors from now on."""
        self.say(FAULTS, data=json.dumps(faults))

    def wait(self, seconds):
        """Hold the switch as it is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.enabled is not None:
                self.say(self.robot.enable, data=self.enabled)
            time.sleep(0.02)

    def until(self, condition, seconds=PATIENCE_S):
        """Wait for it; how long it took, s."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < seconds, f"waited {seconds} s; last {self.modes[-3:]}"
            assert self.deploy is None or self.deploy.poll() is None, "deploy has ended"
            self.wait(0.02)
        return time.monotonic() - begin

    @property
    def mode(self):
        return self.modes[-1][1] if self.modes else None

    def until_mode(self, mode, seconds=PATIENCE_S):
        """Wait for a mode; how long it took, s, and its reason."""
        taken = self.until(lambda: self.mode == mode, seconds)
        return taken, next(reason for _, found, reason in reversed(self.modes) if found == mode)

    def engage(self):
        """Let go of the switch, then hold it until the robot moves."""
        self.enabled = False
        self.wait(0.3)
        self.until(lambda: self.mode == "hold")
        self.enabled = True
        self.until(lambda: self.mode == "active")

    def rest_after(self, moment_ns):
        """How long after a moment the last command came that differed from the one before, s."""
        moments, values = [at for at, _ in self.commands], np.array([value for _, value in self.commands])
        changed = np.flatnonzero(np.abs(np.diff(values, axis=0)).max(1) > 0) + 1
        return max(0.0, (moments[changed[-1]] - moment_ns) / NS)

    def moved(self, since_ns):
        """How far commands went since a moment, of any axis."""
        values = np.array([value for at, value in self.commands if at >= since_ns])
        return float(np.ptp(values, axis=0).max()) if len(values) else 0.0
