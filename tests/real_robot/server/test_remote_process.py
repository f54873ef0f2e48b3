"""The policy's process with a policy on a server: the observation's own stamps, and no sign of life without answers."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from policy_servers import NEEDS, CountingPlanner, options, serving, write_token

from embodied.core.errors import UsageError
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.server.remote import ServerLostError, run_remote_policy
from embodied.real_robot.transports.clocks import SystemClock

NS = 1_000_000_000
ROBOT = load_robot("sim")
JOINTS, IMAGE = message_type("sensor_msgs/msg/JointState"), message_type("sensor_msgs/msg/Image")


class Sensors:
    """A transport on which a camera and joint states arrive at 20 Hz of real time; remembers when each picture did."""

    def __init__(self):
        self.clock, self._receive, self.arrived = SystemClock(), {}, []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def subscribe(self, topic, message_type, qos, receive):
        self._receive[topic] = receive

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def _send(self):
        camera, joints = ROBOT.cameras["corner4"].topic.name, ROBOT.joint_states.name
        while not self._ended.wait(0.05):
            if camera not in self._receive or joints not in self._receive:
                continue
            stamp, fill = header_message(0), len(self.arrived) % 256
            pixels = np.full((64, 64, 3), fill, np.uint8)
            image = encode(IMAGE(header=stamp, height=64, width=64, encoding="rgb8", step=192, data=pixels))
            names = list(ROBOT.state)
            state = encode(JOINTS(header=stamp, name=names, position=[0.5] * len(names)))
            now = self.clock.now()
            self._receive[joints](state, now)
            self.arrived.append(now)
            self._receive[camera](image, now)


def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def token(tmp_path):
    return write_token(tmp_path)


class Process:
    """`run_remote_policy` on a thread."""

    def __init__(self, folder, sensors, settings):
        self.mailbox, self.ended = PolicyMailbox.create(folder / "mailbox", ROBOT), threading.Event()
        self.report = self.error = None
        self._thread = threading.Thread(target=self._run, args=(sensors, settings))
        self._thread.start()

    def _run(self, sensors, settings):
        try:
            self.report = run_remote_policy(ROBOT, sensors, self.mailbox, settings, stop=self.ended.is_set)
        except (ServerLostError, UsageError) as error:
            self.error = error

    def join(self):
        self._thread.join(20)
        assert not self._thread.is_alive()

    def silent_s(self):
        return (time.monotonic_ns() - self.mailbox.read_heartbeat().beat_ns) / NS


def test_chunks_carry_the_stamps_of_the_pictures_they_were_made_from(tmp_path, token):
    delay_s = 0.02
    planner = CountingPlanner(before=lambda: time.sleep(delay_s))
    with serving(planner) as server, Sensors() as sensors:
        process, chunks = Process(tmp_path, sensors, options(server, token)), {}
        end = time.monotonic() + 20
        while len(chunks) < 15 and time.monotonic() < end:
            chunk = process.mailbox.read_chunk()
            if chunk is not None:
                chunks[chunk.number] = chunk
            time.sleep(0.005)
        process.ended.set()
        process.join()
    assert len(chunks) >= 15 and process.report.steps >= 15
    for chunk in chunks.values():
        picture = round(chunk.actions[0, 1])  # the fill of the picture, which is its number
        assert chunk.observed_ns == sensors.arrived[picture]
        assert chunk.written_ns - chunk.observed_ns >= delay_s * NS and chunk.step_ns == round(NS / ROBOT.policy_hz)
    assert {"compress", "network", "policy", "work"} <= set(process.report.stages_ms)
    assert process.report.stages_ms["policy"]["p50"] >= delay_s * 1e3


def test_a_server_that_stops_answering_is_a_process_that_shows_no_life_until_it_answers_again(tmp_path, token):
    free = threading.Event()
    free.set()
    planner = CountingPlanner(before=lambda: free.wait(20))
    with serving(planner) as server, Sensors() as sensors:
        process = Process(tmp_path, sensors, options(server, token, timeout_s=0.3, patience_s=20.0))
        until(lambda: process.mailbox.read_chunk() is not None and process.mailbox.read_chunk().number > 3)
        free.clear()
        until(lambda: process.silent_s() > 1.0)
        hung = process.mailbox.read_chunk()
        free.set()
        until(lambda: process.mailbox.read_chunk().number > hung.number + 3)
        until(lambda: process.silent_s() < 0.1)
        assert process.mailbox.read_chunk().observed_ns > hung.observed_ns
        process.ended.set()
        process.join()
    assert process.error is None and process.report.steps > 7


def test_a_server_that_stays_away_ends_the_process_with_a_message(tmp_path, token):
    with serving() as server, Sensors() as sensors:
        process = Process(tmp_path, sensors, options(server, token, patience_s=0.5))
        until(lambda: process.mailbox.read_chunk() is not None)
        server.close()
        process.join()
    assert "no policy server at 127.0.0.1" in str(process.error)


def test_told_to_end_while_the_server_is_away_it_ends_in_good_order(tmp_path, token):
    with serving() as server, Sensors() as sensors:
        process = Process(tmp_path, sensors, options(server, token, patience_s=60.0))
        until(lambda: process.mailbox.read_chunk() is not None)
        server.close()
        until(lambda: process.silent_s() > 0.5)
        process.ended.set()
        process.join()
    assert process.error is None and process.report.steps > 0


def test_a_policy_for_another_robot_is_refused_before_anything_is_opened(tmp_path, token):
    with serving(CountingPlanner(needs=dataclasses.replace(NEEDS, state_dim=3))) as server, Sensors() as sensors:
        process = Process(tmp_path, sensors, options(server, token))
        process.join()
    assert "it reads 3 values, and the robot gives 4" in str(process.error) and not sensors.arrived
