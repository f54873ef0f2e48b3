"""The simulated robot on the memory transport: what it publishes, how it follows, episodes, faults."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated_worlds import NS, World, blind_robot, listen

from embodied.core.errors import UsageError
from embodied.envs.experts.behaviours import make_expert
from embodied.envs.task_env import TaskEnv
from embodied.real_robot.description.description import Gripper, Topic
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.images import pixels
from embodied.real_robot.messages.values import message_type, nanoseconds
from embodied.real_robot.simulator.episodes import ACTIVE, FAULTS, RESET, STATUS, EpisodeClient, text_packet
from embodied.real_robot.simulator.faults import SensorFaults
from embodied.real_robot.transports.transport import COMMAND

pytestmark = pytest.mark.sim
HAMMER = {"task": "hammer-v3"}
ARRAY = message_type("std_msgs/msg/Float64MultiArray")


@pytest.fixture
def world(tmp_path):
    made = World(blind_robot(), tmp_path, env=HAMMER, seeds=(1000, 1001))
    yield made
    made.simulated.close()


def commander(world):
    """Sends commanded positions [N]."""
    topic = world.robot.command
    publisher = world.transport.advertise(topic.name, topic.type, COMMAND)
    return lambda values: publisher.publish(encode(ARRAY(data=np.asarray(values, np.float64))))


def test_it_measures_what_the_environment_observes_at_the_robots_rate(tmp_path):
    robot = load_robot("sim")
    world = World(robot, tmp_path, env={**HAMMER, "image_size": 24}, seeds=(7,))
    joints, frames = (listen(world.transport, topic) for topic in (robot.joint_states, robot.cameras["corner4"].topic))
    world.step(4)
    expected, _ = TaskEnv(**HAMMER, image_size=24).reset(seed=7)
    assert joints[0].name == list(robot.state)
    assert np.array_equal(np.float32(joints[0].position), expected["observation.state"])
    assert np.array_equal(pixels(frames[0]), expected["observation.images.corner4"])
    for messages in (joints, frames):
        assert np.diff([nanoseconds(message.header.stamp) for message in messages]).tolist() == [NS // 20] * 3
    world.simulated.close()


def test_nothing_moves_before_the_first_command_and_a_step_takes_a_period(world):
    world.step(5)
    assert world.simulated.status.phase == "ready" and not world.executed
    send, pose = commander(world), world.simulated.observation["observation.state"].astype(float)
    for k in range(3):
        send(pose + np.array([0.005 * (k + 1), 0, 0, -2]))  # 5 mm a step in x; the gripper at -1
        world.step()
    status = world.simulated.status
    assert (status.phase, status.steps, status.held_steps) == ("running", 3, 0)
    assert np.stack(world.executed) == pytest.approx(np.tile([0.5, 0, 0, -1], (3, 1)), abs=1e-6)


def test_a_way_too_long_for_one_step_is_gone_in_several(world):
    world.step(2)
    send, pose = commander(world), world.simulated.observation["observation.state"].astype(float)
    pose[3] = 1.0
    for _ in range(4):
        send(pose + np.array([0, 0.025, 0, 0]))
        world.step()
    assert np.stack(world.executed)[:, 1] == pytest.approx([1, 1, 0.5, 0], abs=1e-5)
    assert (np.stack(world.executed)[:, 3] == 1).all()


def test_it_holds_when_commands_stop_coming_and_goes_on_with_the_next(world):
    active = listen(world.transport, ACTIVE)
    world.step(2)
    send, pose = commander(world), world.simulated.observation["observation.state"].astype(float)
    pose[3] = -1.0
    send(pose + np.array([0.01, 0, 0, 0]))
    world.step(10)
    held = np.stack(world.executed)
    moving = np.abs(held[:, 0]) > 1e-6
    assert moving[0] and not moving[1:].any() and (held[:, 3] == -1).all()
    assert world.simulated.status.held_steps == 10 - 5  # the command counts for 0.25 s
    assert [message.data for message in active] == [True, False]
    send(pose + np.array([0.02, 0, 0, 0]))
    world.step(2)
    assert world.executed[-2][0] == pytest.approx(1, abs=1e-5)
    assert [message.data for message in active] == [True, False, True]


def test_a_first_command_far_from_the_hand_is_refused(world):
    told = listen(world.transport, STATUS)
    world.step(2)
    send, pose = commander(world), world.simulated.observation["observation.state"].astype(float)
    send(pose + np.array([0, 0.2, 0, 0]))
    world.step(2)
    assert world.simulated.status.phase == "ready" and not world.executed
    assert json.loads(told[-1].data)["refused"] == "hand.y is 0.2 away from the first command (limit 0.05)"


def test_malformed_commands_and_requests_are_dropped_and_counted(world):
    world.step(2)
    for values in ([np.nan] * 4, [0.0] * 3, [0.0] * 5, [np.inf, 0, 0, 0]):
        commander(world)(values)
    publisher = world.transport.advertise(RESET.name, RESET.type, COMMAND)
    for text in ("no json", "[1]", '{"seed": -1}', '{"seed": true}', '{"seed": "1"}', '{"request": 1}', "[" * 20_000):
        publisher.publish(text_packet(text))
    world.step(2)
    assert world.simulated.dropped == {world.robot.command.name: 4, RESET.name: 7}
    assert not world.executed and world.simulated.status.number == 1


def test_episodes_come_by_seed_or_in_order_and_a_request_is_served_once(world):
    client, told = EpisodeClient(world.transport), listen(world.transport, STATUS)
    world.step(2)
    for asked in ({"seed": 5, "request": "a"}, {"seed": 5, "request": "a"}, {"request": "b"}, {"seed": 3}):
        client._resets.publish(text_packet(json.dumps(asked)))
        world.step(2)
    seeds = [(json.loads(message.data)["number"], json.loads(message.data)["seed"]) for message in told]
    assert seeds == [(1, 1000), (2, 5), (3, 1001), (4, 3)]
    assert client.status.seed == 3 and client.status.phase == "ready"


def test_the_scripted_expert_succeeds_through_the_whole_safety_chain(world):
    """Late by up to 45 ms, of a period of 50: the success in process, at every seed."""
    expert = make_expert("scripted", world.simulated.environment.simulation)
    world.policy = expert.act
    for latency_s, seed in ((0.015, 1000), (0.03, 1001), (0.045, 1002)):
        world.latency_s = latency_s
        expert.reset(seed)
        status = world.run_episode(seed)
        assert (status.phase, status.success, status.held_steps) == ("ended", True, 0), world.modes[-1]
        assert 50 < status.steps < 90
    # In the same process the observation after an action is that after the step: nothing else happens to the world.
    twin = TaskEnv(**HAMMER, images=False)
    observation, _ = twin.reset(seed=1000)
    for action, before in zip(world.executed[:60], world.observed[:60], strict=True):
        assert np.array_equal(before["observation.state"], observation["observation.state"])
        observation, *_ = twin.step(action)


def with_faults(tmp_path, faults, periods=13):
    """Joint states and frames that arrive, with the moments of their arrival."""
    robot = load_robot("sim")
    world = World(robot, tmp_path, env={**HAMMER, "image_size": 16}, faults=faults, fault_seed=3)
    joints, frames = (listen(world.transport, topic) for topic in (robot.joint_states, robot.cameras["corner4"].topic))
    world.step(periods)
    world.simulated.close()
    return joints, frames


def test_silent_sensors_say_nothing(tmp_path):
    assert [len(heard) for heard in with_faults(tmp_path, SensorFaults(silent_joints=True))] == [0, 13]
    assert [len(heard) for heard in with_faults(tmp_path, SensorFaults(silent_cameras=True))] == [13, 0]


def test_some_messages_are_lost(tmp_path):
    joints, frames = with_faults(tmp_path, SensorFaults(loss=0.5), periods=40)
    assert 8 <= len(joints) <= 32 and 8 <= len(frames) <= 32


def test_delayed_joint_states_keep_their_stamps_and_measurements_teleport(tmp_path):
    plain, _ = with_faults(tmp_path, SensorFaults())
    delayed, frames = with_faults(tmp_path, SensorFaults(joint_delay_s=0.3, teleport=0.25))
    assert len(plain) == 13 and len(delayed) == 7 and len(frames) == 13
    assert nanoseconds(delayed[-1].header.stamp) == nanoseconds(frames[6].header.stamp)
    assert delayed[0].position[0] - plain[0].position[0] == pytest.approx(0.25)


def test_a_frozen_camera_sends_its_last_picture_with_new_stamps(tmp_path):
    robot = load_robot("sim")
    world = World(robot, tmp_path, env={**HAMMER, "image_size": 16}, seeds=(1, 2))
    frames = listen(world.transport, robot.cameras["corner4"].topic)
    faults = world.transport.advertise(FAULTS.name, FAULTS.type, COMMAND)
    world.step(2)
    faults.publish(text_packet('{"frozen_camera": true}'))
    world.simulated.ask(2)
    world.step(4)
    faults.publish(text_packet('{"frozen_camera": 1}'))  # not understood: nothing changes
    world.step(2)
    assert all(np.array_equal(frame.data, frames[0].data) for frame in frames)
    assert len({nanoseconds(frame.header.stamp) for frame in frames}) == len(frames)
    faults.publish(text_packet("{}"))
    world.step(3)
    assert not np.array_equal(frames[-1].data, frames[0].data) and world.simulated.dropped[FAULTS.name] == 1
    world.simulated.close()


@pytest.mark.parametrize(
    ("changes", "env", "message"),
    [
        ({"kind": "twist"}, HAMMER, "cannot be simulated: a simulated robot takes positions"),
        ({"joint_states": None}, HAMMER, "it has no joint_states"),
        ({"state": ("hand.x", "finger")}, HAMMER, "unknown joint of metaworld hammer-v3 'finger'"),
        ({}, {"suite": "pixmc", "task": None}, "an action of pixmc"),
        ({}, {"task": "hamer-v3"}, "did you mean hammer-v3"),
        ({}, {**HAMMER, "seeds": 3}, "seeds"),
    ],
)
def test_robots_that_do_not_fit_the_environment(tmp_path, changes, env, message):
    with pytest.raises(UsageError, match=message):
        World(replace(blind_robot(), **changes), tmp_path, env=env)


def test_cameras_and_grippers_that_cannot_be_simulated(tmp_path):
    robot = load_robot("sim")
    with pytest.raises(UsageError, match=r"leaves out observation\.images\.corner4 of robot sim"):
        World(robot, tmp_path, env={**HAMMER, "camera": "topview"})
    camera = replace(robot.cameras["corner4"], topic=Topic("/c", "sensor_msgs/msg/CompressedImage"))
    with pytest.raises(UsageError, match="camera corner4: a simulated camera sends sensor_msgs/msg/Image"):
        World(replace(robot, cameras={"corner4": camera}), tmp_path, env=HAMMER)
    hand = Gripper(axis="gripper", opened=-1, closed=1, action=(-1, 1), topic=Topic("/g", robot.command.type))
    with pytest.raises(UsageError, match="takes positions of all axes as one"):
        World(replace(robot, gripper=hand), tmp_path, env=HAMMER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"frozen_camra": True}, "unknown fault 'frozen_camra': did you mean frozen_camera"),
        ({"loss": 2}, r"faults.loss must be in \[0, 1\]"),
        ({"loss": "much"}, "faults.loss must be a number"),
        ({"silent_joints": 1}, "faults.silent_joints must be true or false"),
        ({"joint_delay_s": -1}, "faults.joint_delay_s must be in"),
        ({"teleport": float("nan")}, "faults.teleport must be finite"),
    ],
)
def test_faults_that_make_no_sense(content, message):
    from embodied.real_robot.simulator.faults import read_faults

    with pytest.raises(UsageError, match=message):
        read_faults(content)
