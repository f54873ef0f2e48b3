"""Recordings become episodes: of the simulated robot with the whole loop, and of arms with other messages."""

from contextlib import closing

import numpy as np
import pytest
import simplejpeg
from real_robots import toy_base, toy_content, toy_robot
from simulated_worlds import World

from embodied.core.errors import UsageError, UserError
from embodied.datasets.importers.ros_frames import FrameReader
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.envs.experts.behaviours import make_expert
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import duration_message, header_message, message_type
from embodied.real_robot.recording.appending import append_recording
from embodied.real_robot.recording.commanded_actions import CommandedActions
from embodied.real_robot.recording.episodes import open_recording
from embodied.real_robot.recording.process import recorded_topics
from embodied.real_robot.recording.recorder import Recorder
from embodied.real_robot.recording.topics import TopicRecorder
from embodied.real_robot.simulator.episodes import ACTIVE

pytest.importorskip("mcap")
START = 1_700_000_000_000_000_000
MS = 1_000_000


def frames_of(episode):
    blocks = list(episode.blocks())
    return {key: np.concatenate([np.asarray(block[key]) for block in blocks]) for key in blocks[0]}


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """Two episodes of the scripted expert through the safety chain, recorded: the world and the file."""
    folder = tmp_path_factory.mktemp("driven")
    robot = load_robot("sim")
    world = World(robot, folder, env={"task": "hammer-v3", "image_size": 24})
    recorder = TopicRecorder(world.transport, recorded_topics(robot), Recorder(folder / "run.mcap"))
    expert = make_expert("scripted", world.simulated.environment.simulation)
    world.policy, world.ends = expert.act, [0]
    for seed in (1000, 1001):
        expert.reset(seed)
        world.run_episode(seed)
        world.ends.append(len(world.executed))
    world.step(20)
    recorder.close()
    world.simulated.close()
    return world, folder / "run.mcap"


@pytest.mark.sim
def test_a_driven_robot_comes_back_as_its_episodes(driven):
    world, path = driven
    with closing(open_recording(path, world.robot)) as source:
        assert set(source.keys) == {"observation.images.corner4", "observation.state", "action"}
        assert source.keys["action"].names == world.robot.axis_names and source.fps == 20 and source.robot == "sim"
        episodes = list(source.episodes())
        assert [(e.seed, e.success, e.task) for e in episodes] == [
            (1000, True, "hammer the nail into the box"),
            (1001, True, "hammer the nail into the box"),
        ]
        for number, episode in enumerate(episodes):
            begin, end = world.ends[number : number + 2]
            frames = frames_of(episode)
            assert len(frames["action"]) == episode.length == end - begin - 2  # not the first, nor the last
            observed = world.observed[begin + 1 : end - 1]
            for key in ("observation.state", "observation.images.corner4"):
                assert np.array_equal(frames[key], np.stack([each[key] for each in observed])), key
            executed = np.stack(world.executed[begin + 1 : end - 1])
            # Commands are taken between two frames, which the robot heard up to one of its periods of 10 ms earlier.
            assert np.abs(frames["action"] - executed).mean(0).max() < 0.05
            assert np.abs((frames["action"] - executed).sum(0)[:3]).max() < 0.5  # of a step; nothing is lost


@pytest.mark.sim
def test_the_command_line_imports_it_with_the_robots_name(driven, tmp_path, capsys):
    from embodied.cli.main import main

    _, path = driven
    to = tmp_path / "store"
    assert main(["data", "import", str(path), str(to), "robot=sim"]) == 0
    assert main(["data", "import", str(path), str(to), "robot=sim"]) == 0  # nothing is added twice
    store = EpisodeStore.open(to)
    assert [(info.seed, info.success) for info in store.episodes] == [(1000, True), (1001, True)]
    assert store.robot == "sim" and store.keys["observation.images.corner4"].shape == (24, 24, 3)
    for arguments, code, message in (
        (["robot=sin"], 2, "did you mean sim"),
        (["robot=ros2_arm"], 2, "unknown topic of robot ros2_arm"),
        (["robot=sim", "options.command=live"], 2, "did you mean commands"),
        (["robot=sim", "options.commands=shaddow"], 2, "did you mean shadow"),
        (["robot=sim", "options.commands=shadow"], 2, "has no messages of /shadow/sim/hand_controller/commands"),
        (["robot=sim", "format=lerobot"], 2, "robot= is for ROS recordings"),
    ):
        capsys.readouterr()
        assert main(["data", "import", str(path), str(tmp_path / "other"), *arguments]) == code
        assert message in capsys.readouterr().err.replace("\n", " ")


def record(path, robot, rows, *, gripper=False, beside=lambda recorder, stamp: None):
    """A recording of a hundred periods of 10 ms: `rows(k)` gives measured [N] and commanded [N] positions."""
    kinds = {topic.name: message_type(topic.type) for topic in (robot.command, robot.joint_states) if topic}
    with Recorder(path) as recorder:
        for topic, kind in kinds.items():
            recorder.add_topic(topic, kind.struct.name)
        if gripper:
            own = robot.gripper.topic
            recorder.add_topic(own.name, own.type)
            for stamp, value in ((START, 0.08), (START + 500 * MS, 0.0)):  # sent on change
                recorder.write(own.name, encode(message_type(own.type)(data=[value])), stamp)
        for k in range(100):
            stamp = START + 10 * k * MS
            measured, commanded = rows(k)
            beside(recorder, stamp)
            if robot.joint_states:
                names = [axis.name for axis in robot.axes if axis.measured][::-1]  # another order than the axes'
                message = kinds[robot.joint_states.name](
                    header=header_message(stamp), name=names, position=np.asarray(measured, float)[: len(names)][::-1]
                )
                recorder.write(robot.joint_states.name, encode(message), stamp)
            recorder.write(robot.command.name, encode(commanded_message(robot, commanded)), stamp)
    return path


def commanded_message(robot, values):
    kind = message_type(robot.command.type)
    if robot.command.type.endswith("Float64MultiArray"):
        return kind(data=np.asarray(values, float))
    if robot.command.type.endswith("Twist"):
        message = kind()
        message.linear.x = float(values[0])
        return message
    point = message_type("trajectory_msgs/msg/JointTrajectoryPoint")
    names = [name for name in robot.axis_names if robot.gripper is None or name != robot.gripper.axis]
    points = [point(positions=np.asarray(values, float), time_from_start=duration_message(0.01))]
    return kind(joint_names=names, points=points)


def test_frames_that_come_in_several_blocks_are_the_same(tmp_path, monkeypatch):
    robot = toy_robot()
    path = record(tmp_path / "a.mcap", robot, lambda k: ([0.001 * k, 0], [0.002 * k, 0]))
    with closing(open_recording(path, robot)) as source:
        whole = frames_of(next(source.episodes()))
        blocks = FrameReader.blocks
        monkeypatch.setattr(FrameReader, "blocks", lambda reader: blocks(reader, block_bytes=150))
        parts = list(next(source.episodes()).blocks())
    assert len(parts) == 5
    for key, values in whole.items():
        assert np.array_equal(np.concatenate([part[key] for part in parts]), values)


def test_frames_in_which_a_simulated_robot_held_are_left_out(tmp_path):
    robot = toy_robot()
    active, joint_state = message_type(ACTIVE.type), message_type("sensor_msgs/msg/JointState")

    def mark(recorder, stamp):
        recorder.add_topic(ACTIVE.name, ACTIVE.type)
        if stamp == START + 100 * MS:
            recorder.write(ACTIVE.name, encode(active(data=True)), stamp)
        elif stamp == START + 990 * MS:  # told 1.5 s after the last command; the next one comes a second later
            recorder.write(ACTIVE.name, encode(active(data=False)), stamp + 1500 * MS)
            recorder.write(robot.command.name, encode(commanded_message(robot, [0, 0])), stamp + 2500 * MS)
            for later in range(stamp + 10 * MS, stamp + 2500 * MS, 10 * MS):
                joints = joint_state(header=header_message(later), name=["one", "two"], position=np.zeros(2))
                recorder.write("/joint_states", encode(joints), later)

    path = record(tmp_path / "a.mcap", robot, lambda k: ([0, 0], [0.001 * k, 0]), beside=mark)
    with closing(open_recording(path, robot)) as source:
        (episode,) = source.episodes()
        assert 17 <= len(frames_of(episode)["action"]) <= 28
    with pytest.raises(UserError, match="was silent for"):
        open_recording(path, robot, gaps="error")


def test_recordings_are_added_to_one_store_once_with_their_jpeg_files(tmp_path):
    camera = {"topic": "/front", "type": "sensor_msgs/msg/CompressedImage", "input": "observation.images.front"}
    robot = toy_robot(cameras={"front": camera})
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 200
    file = simplejpeg.encode_jpeg(picture, quality=96)
    front = message_type(camera["type"])

    def image(recorder, stamp):
        recorder.add_topic("/front", front.struct.name)
        message = front(header=header_message(stamp), format="jpeg", data=np.frombuffer(file, np.uint8))
        recorder.write("/front", encode(message), stamp)

    for name in ("a", "b"):
        path = record(tmp_path / f"{name}.mcap", robot, lambda k: ([0, 0], [0.001 * k, 0]), beside=image)
        for _ in range(2):
            with closing(open_recording(path, robot)) as source:
                added = append_recording(source, tmp_path / "store")
        assert added.episodes == 0
    store = EpisodeStore.open(tmp_path / "store")
    assert [info.origin for info in store.episodes] == ["a.mcap", "b.mcap"] and added.total == 2
    assert store.read_encoded("observation.images.front", 0, 1) == [file]
    other = toy_robot(name="other", cameras={"front": camera})
    with closing(open_recording(path, other)) as source, pytest.raises(UsageError, match="was made with robot=toy"):
        append_recording(source, tmp_path / "store")


def test_targets_of_joints_are_the_next_commands(tmp_path):
    robot = toy_robot(command={"type": "trajectory_msgs/msg/JointTrajectory", "topic": "/arm/joint_trajectory"})
    path = record(tmp_path / "a.mcap", robot, lambda k: ([0.001 * k, -0.002 * k], [0.001 * k + 0.01, -0.002 * k]))
    with closing(open_recording(path, robot)) as source:
        (episode,) = source.episodes()
        frames = frames_of(episode)
    assert len(frames["action"]) == 19 and (episode.success, episode.seed) == (None, None)
    assert frames["observation.state"][3].tolist() == pytest.approx([0.015, -0.03])
    assert frames["action"][3].tolist() == pytest.approx([0.03, -0.04])


def test_displacements_are_in_units_of_the_action_and_a_gripper_with_its_own_topic_stays_valid(tmp_path):
    content = toy_content()
    array = "std_msgs/msg/Float64MultiArray"
    scaled = {name: {**axis, "scale": 0.02} for name, axis in content["axes"].items()}
    hand = {"unit": "m", "low": 0.0, "high": 0.1, "velocity": 1, "acceleration": 9, "jerk": 99, "measured": False}
    robot = toy_robot(
        axes={**scaled, "hand": hand},
        command={"kind": "joint_delta"},
        gripper={"axis": "hand", "opened": 0.08, "closed": 0.0, "action": [-1.0, 1.0], "topic": "/hand", "type": array},
    )
    path = record(tmp_path / "a.mcap", robot, lambda k: ([0, 0], [0.002 * k, -0.001 * k]), gripper=True)
    with closing(open_recording(path, robot)) as source:
        frames = frames_of(next(source.episodes()))
    assert frames["action"][:, :2] == pytest.approx(np.tile([0.5, -0.25], (19, 1)))
    assert frames["action"][:, 2].tolist() == [-1.0] * 9 + [1.0] * 10


def test_speeds_of_a_base_need_no_joint_states(tmp_path):
    robot = toy_base()
    path = record(tmp_path / "a.mcap", robot, lambda k: (None, [0.3]))
    with closing(open_recording(path, robot)) as source:
        assert set(source.keys) == {"action"}
        assert frames_of(next(source.episodes()))["action"] == pytest.approx(np.full((19, 1), 0.3))


def test_actions_and_commands_are_inverse_to_one_another():
    actions = CommandedActions(load_robot("sim"))
    before = np.array([0.1, 0.5, 0.2, -1.0])
    wanted = np.array([[0.5, -1.0, 0.0, 1.0], [0.0, 0.25, 1.0, -0.3]])
    after = actions.moved(before, wanted)
    assert after[0] == pytest.approx([0.105, 0.49, 0.2, 1.0])
    assert actions(before, after) == pytest.approx(wanted)


def test_what_does_not_fit_the_robot(tmp_path):
    robot = toy_robot()
    path = record(tmp_path / "a.mcap", robot, lambda k: ([0, 0], [0, 0]))
    other = toy_robot(command={"topic": "/arm/command"})
    with pytest.raises(UsageError, match=r"unknown topic of robot toy in .*'/arm/command': did you mean /arm/commands"):
        open_recording(path, other)
    with pytest.raises(UsageError, match=r"/arm/commands is std_msgs/msg/Float64MultiArray, robot toy has trajectory"):
        open_recording(path, toy_robot(command={"type": "trajectory_msgs/msg/JointTrajectory"}))
    third = {**toy_content()["axes"], "three": {**toy_content()["axes"]["one"]}}
    with pytest.raises(UsageError, match="unknown joint of /joint_states"):
        open_recording(path, toy_robot(axes=third))
    with pytest.raises(UserError, match="there is no such file"):
        open_recording(tmp_path / "none.mcap", robot)


def test_commands_of_another_length_do_not_fit(tmp_path):
    robot = toy_robot()
    path = record(tmp_path / "a.mcap", robot, lambda k: ([0, 0], [0, 0, 0]))
    with pytest.raises(UsageError, match=r"/arm/commands has .*\[T, 3\], the robot 2 axes: one, two"):
        open_recording(path, robot)
