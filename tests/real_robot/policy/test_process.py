"""The policy's process on the memory transport: messages in, chunks and signs of life out."""

import signal

import numpy as np
import pytest
import torch
from robot_policies import make_policy

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.policy.process import run_policy
from embodied.real_robot.stopping import Stopped, stopping_on_signals
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.transport import SENSOR

NS = 1_000_000_000
ROBOT = load_robot("sim")
JOINTS, IMAGE = message_type("sensor_msgs/msg/JointState"), message_type("sensor_msgs/msg/Image")
POSE = {"gripper": 0.4, "hand.x": 0.1, "hand.y": 0.6, "hand.z": 0.2}  # not in the policy's order


@pytest.fixture(scope="module")
def policy():
    return make_policy()


class World:
    """Cameras and joint states at `hz`, published while the process waits."""

    def __init__(self, folder, policy, *, hz=20.0, **options):
        self.transport, self.folder, self.hz = MemoryTransport(), folder, hz
        self.mailbox = PolicyMailbox.create(folder / "mailbox", ROBOT)
        self.board = StatusBoard.create(folder / "board")
        self.inference = Inference(*policy, device=torch.device("cpu"))
        self.seen, self.chunks, self.beats = [], [], []
        self.picture, self.frozen, self.stamped, self.options = 0, False, True, options
        self.clock, self.start_ns = self.transport.clock, self.transport.clock.now()
        self._next_ns = self.start_ns
        camera, joints = ROBOT.cameras["corner4"].topic, ROBOT.joint_states
        self.camera = self.transport.advertise(camera.name, camera.type, SENSOR)
        self.joints = self.transport.advertise(joints.name, joints.type, SENSOR)

    def now_s(self):
        return (self.clock.now() - self.start_ns) / NS

    def run(self, seconds, world=lambda t: None):
        self.world = world
        return run_policy(
            ROBOT, self.transport, self.mailbox, self._watched(), stop=lambda: self.now_s() >= seconds,
            board=self.board, wait=self.wait, **self.options,
        )  # fmt: skip

    def _watched(self):
        seen, inference = self.seen, self.inference

        class Watched:
            needs, stages, how = inference.needs, inference.stages, inference.how
            restart = staticmethod(inference.restart)

            def __call__(self, observation):
                seen.append(observation)
                return inference(observation)

        return Watched()

    def wait(self, seconds):
        self.world(self.now_s())
        if self.clock.now() >= self._next_ns:
            self._next_ns += round(NS / self.hz)
            self.send()
        self.transport.advance(seconds)
        chunk, beat = self.mailbox.read_chunk(), self.mailbox.read_heartbeat()
        if chunk is not None and (not self.chunks or chunk.number > self.chunks[-1].number):
            self.chunks.append(chunk)
        self.beats.append(beat)

    def send(self):
        self.picture += not self.frozen
        stamp = header_message(self.clock.wall() if self.stamped else 0)
        pixels = np.full((48, 64, 3), self.picture % 256, np.uint8)
        self.camera.publish(encode(IMAGE(header=stamp, height=48, width=64, encoding="rgb8", step=192, data=pixels)))
        self.joints.publish(encode(JOINTS(header=stamp, name=list(POSE), position=list(POSE.values()))))


def test_observations_are_those_of_training(tmp_path, policy):
    world = World(tmp_path, policy)
    report = world.run(1.0)
    assert report.steps == len(world.seen) == 20
    observation = world.seen[-1]
    assert set(observation) == {"observation.images.corner4", "observation.state"}
    frame, state = observation["observation.images.corner4"], observation["observation.state"]
    assert frame.dtype == np.uint8 and frame.shape == (1, 64, 64, 3) and (frame == 20).all()
    assert state.dtype == np.float32 and state[0].tolist() == pytest.approx([0.1, 0.6, 0.2, 0.4])
    assert {"receive", "decode", "resize", "upload", "encode", "policy", "write", "work"} == set(report.stages_ms)


def test_chunks_are_stamped_with_the_observation_and_come_at_the_policys_rate(tmp_path, policy):
    world = World(tmp_path, policy, hz=30.0)
    world.run(2.0)
    chunks = world.chunks
    assert 36 <= len(chunks) <= 41  # 20 Hz from a camera at 30 Hz
    assert {chunk.step_ns for chunk in chunks} == {NS // 20} and {chunk.actions.shape for chunk in chunks} == {(1, 4)}
    assert chunks[0].actions[0] == pytest.approx([0.1, 0.1, 0.0, -1.0], abs=1e-4)
    assert all(0 <= chunk.written_ns - chunk.observed_ns <= 0.06 * NS for chunk in chunks)
    assert np.diff([chunk.observed_ns for chunk in chunks]).min() > 0


def test_life_is_shown_without_pictures_and_no_chunk_comes_twice_from_one(tmp_path, policy):
    world = World(tmp_path, policy)

    def silence(t):
        world.hz = 1e-3 if t > 0.5 else 20

    world.run(2.0, silence)
    assert len(world.chunks) <= 12
    gaps = np.diff(sorted({beat.beat_ns for beat in world.beats if beat}))
    assert gaps.max() <= 0.03 * NS and world.beats[-1].beat_ns >= world.clock.now() - 0.03 * NS
    age = world.clock.now() - world.beats[-1].cameras["corner4"].received_ns
    assert age > 1.3 * NS


def test_a_camera_that_hangs_is_seen_to_hang(tmp_path, policy):
    world = World(tmp_path, policy)

    def freeze(t):
        world.frozen = t > 0.5

    world.run(2.0, freeze)
    sensor = world.beats[-1].cameras["corner4"]
    assert sensor.received_ns - sensor.changed_ns > 1.3 * NS


def test_a_plan_that_is_being_made_is_broken_off_when_told_to_end(tmp_path, policy):
    """By the process's own signal handlers; what is not broken off, such as writing to the mailbox, goes on."""
    with stopping_on_signals() as stop:
        world = World(tmp_path, policy, breaking_off=stop.breaking_off)
        plan = world.inference._act

        def long_plan(observation, **options):
            if len(world.seen) == 4:
                signal.raise_signal(signal.SIGTERM)
                raise AssertionError("not broken off")
            return plan(observation, **options)

        world.inference._act = long_plan
        report = world.run(5.0)
        assert stop() and report.steps == 3 and len(world.chunks) == 3
        signal.raise_signal(signal.SIGTERM)  # outside of plans nothing is raised
        with pytest.raises(Stopped), stop.breaking_off():
            raise AssertionError("a plan is not begun")


def test_a_held_robot_begins_an_episode_with_each_step(tmp_path, policy):
    world = World(tmp_path, policy, held=lambda: True)
    restarts = []
    world.inference.restart = lambda: restarts.append(1)
    assert world.run(0.5).steps == len(restarts) > 5


def test_the_board_says_how_it_goes(tmp_path, policy):
    world = World(tmp_path, policy)
    world.run(1.0)
    record = StatusBoard.open(tmp_path / "board").read()
    assert record["state"] == "running" and record["steps"] >= 17 and record["hz"] == pytest.approx(20, abs=0.5)
    assert record["received"] == {
        "corner4": record["received"]["joint_states"],
        "joint_states": record["received"]["corner4"],
    }
    assert "torch on cpu" in record["how"] and record["stages_ms"]["work"]["p50"] > 0


def test_damaged_messages_are_counted_and_others_go_on(tmp_path, policy):
    world = World(tmp_path, policy)

    def damage(t):
        if 0.3 < t < 0.6:
            world.camera.publish(b"\x00\x01\x00\x00 no picture")
            world.joints.publish(encode(JOINTS(name=["hand.x"], position=[1.0])))
            world.joints.publish(encode(JOINTS(name=list(POSE), position=[np.nan] * 4)))

    report = world.run(1.0, damage)
    assert report.steps >= 19
    assert set(report.dropped) == {"corner4: malformed", "joint_states: names", "joint_states: finite"}


def test_a_picture_without_colour_ends_it_with_a_message(tmp_path, policy):
    world = World(tmp_path, policy)
    world.send = lambda: _depth(world)
    with pytest.raises(UserError, match="camera corner4 sends uint16"):
        world.run(1.0)


def _depth(world):
    image = IMAGE(height=8, width=8, encoding="16UC1", step=16, data=np.zeros(128, np.uint8))
    world.camera.publish(encode(image))
    world.joints.publish(encode(JOINTS(name=list(POSE), position=list(POSE.values()))))


def test_a_policy_for_another_robot_is_refused_before_anything_is_opened(tmp_path):
    world = World(tmp_path, make_policy(state=3))
    with pytest.raises(UsageError, match="it reads 3 values, and the robot gives 4"):
        world.run(1.0)
    assert not world.transport._subscriptions
