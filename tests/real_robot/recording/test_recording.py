"""What is recorded is replayed, imported, and read by others; a full disk ends a recording and nothing else."""

import resource
import signal
import threading
import time

import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.messages.cdr_reading import decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.recording.recorder import Recorder
from embodied.real_robot.recording.topics import TopicRecorder
from embodied.real_robot.transports.memory import MemoryTransport
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, LATCHED, SENSOR

pytest.importorskip("mcap")
JOINTS, IMAGE = message_type("sensor_msgs/msg/JointState"), message_type("sensor_msgs/msg/Image")
KINDS = {"/joint_states": JOINTS, "/camera/image": IMAGE}
START = 1_700_000_000_000_000_000


def packets(number):
    stamp = START + number * 50_000_000
    pixels = np.full((8, 8, 3), number, np.uint8)
    image = IMAGE(header=header_message(stamp), height=8, width=8, encoding="rgb8", step=24, data=pixels)
    joints = JOINTS(header=header_message(stamp), name=["a", "b"], position=[number, -number])
    return {"/joint_states": encode(joints), "/camera/image": encode(image)}


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / "run.mcap"
    with Recorder(path) as recorder:
        for topic, kind in KINDS.items():
            recorder.add_topic(topic, kind.struct.name)
        for number in range(40):
            for topic, packet in packets(number).items():
                recorder.write(topic, packet, START + number * 50_000_000)
    return path


def test_a_replay_is_the_recording(bag):
    transport = open_transport("bag", path=bag, rate=None)
    assert transport.topics == {topic: kind.struct.name for topic, kind in KINDS.items()}
    heard = []
    for topic, kind in KINDS.items():
        subscription = transport.subscribe(
            topic, kind.struct.name, SENSOR, lambda packet, stamp, topic=topic: heard.append((topic, packet, stamp))
        )
        assert subscription.matched() == 1
    walls = []
    transport.subscribe("/joint_states", JOINTS.struct.name, LATCHED, lambda *_: walls.append(transport.clock.wall()))
    assert transport.play() == 80
    expected = [(topic, packet) for number in range(40) for topic, packet in packets(number).items()]
    assert [(topic, packet) for topic, packet, _ in heard] == expected
    assert walls == [START + number * 50_000_000 for number in range(40)]
    stamps = [stamp for topic, _, stamp in heard if topic == "/joint_states"]
    assert set(np.diff(stamps)) == {50_000_000}


def test_a_replay_keeps_its_pace_and_stops(bag):
    transport = open_transport("bag", path=bag.parent, rate=20.0)
    heard = []

    def receive(packet, stamp):
        heard.append(decode(packet, JOINTS).position[0])
        if len(heard) == 30:
            transport.close()

    transport.subscribe("/joint_states", JOINTS.struct.name, COMMAND, receive)
    began = time.monotonic()
    transport.play()
    assert heard == list(range(30))
    assert time.monotonic() - began >= 29 * 0.05 / 20 * 0.99

    transport = open_transport("bag", path=bag, rate=None)
    transport.subscribe("/joint_states", JOINTS.struct.name, COMMAND, lambda *_: None)
    assert transport.play(stop_after_s=0.5) == 11


def test_what_a_replayed_program_says_goes_nowhere_else(bag):
    transport = open_transport("bag", path=bag, rate=None)
    commands, heard = transport.advertise("/command", JOINTS.struct.name, COMMAND), []
    transport.subscribe("/joint_states", JOINTS.struct.name, COMMAND, lambda packet, stamp: commands.publish(packet))
    transport.subscribe("/command", JOINTS.struct.name, COMMAND, lambda packet, stamp: heard.append(packet))
    transport.play()
    assert len(heard) == 40


def test_topics_that_do_not_fit_the_recording(bag, tmp_path):
    transport = open_transport("bag", path=bag)
    with pytest.raises(UsageError, match="did you mean /joint_states"):
        transport.subscribe("/joint_state", JOINTS.struct.name, SENSOR, print)
    with pytest.raises(UsageError, match="recorded as sensor_msgs/msg/JointState, not sensor_msgs/msg/Image"):
        transport.subscribe("/joint_states", IMAGE.struct.name, SENSOR, print)
    assert transport.subscribe("/nothing_like_it", IMAGE.struct.name, SENSOR, print).matched() == 0
    with pytest.raises(UserError, match=r"neither an \.mcap file"):
        open_transport("bag", path=tmp_path / "none.mcap")
    (tmp_path / "bad.mcap").write_bytes(bag.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"cut off|damaged"):
        open_transport("bag", path=tmp_path / "bad.mcap")


def test_others_read_it(bag):
    from mcap.reader import make_reader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.EMPTY)
    with bag.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        found = list(reader.iter_messages())
    for schema in {schema.name: schema for schema, _, _ in found}.values():
        assert schema.encoding == "ros2msg"
        types = get_types_from_msg(schema.data.decode(), schema.name)
        store.register({name: each for name, each in types.items() if name not in store.fielddefs})
    positions = [
        store.deserialize_cdr(message.data, schema.name).position.tolist()
        for schema, channel, message in found
        if channel.topic == "/joint_states"
    ]
    assert positions == [[number, -number] for number in range(40)]
    assert all(message.log_time == START + (message.sequence - 1) * 50_000_000 for _, _, message in found)


def test_it_imports_as_an_episode(bag):
    from embodied.datasets.formats import open_source

    name, source = open_source(str(bag), options={"fps": 20.0})
    assert name == "rosbag"
    (episode,) = list(source.episodes())
    blocks = list(episode.blocks())
    frames = {key: np.concatenate([block[key] for block in blocks]) for key in source.keys}
    (pixels,) = (each for each in frames.values() if each.ndim == 4)
    (state,) = (each for each in frames.values() if each.shape[1:] == (2,))
    assert state[:, 0].tolist() == list(range(len(state))) and len(state) >= 39
    assert [int(each.max()) for each in pixels] == list(range(len(state)))


def test_topics_are_recorded_as_they_arrive(tmp_path):
    network = MemoryTransport()
    recorder = TopicRecorder(
        network,
        {topic: (kind.struct.name, SENSOR) for topic, kind in KINDS.items()},
        Recorder(tmp_path / "live.mcap"),
    )
    publishers = {topic: network.advertise(topic, kind.struct.name, COMMAND) for topic, kind in KINDS.items()}
    sent = []
    for number in range(20):
        for topic, packet in packets(number).items():
            publishers[topic].publish(packet)
            sent.append((topic, network.clock.wall(), packet))
        network.advance(0.05)
    assert not (tmp_path / "live.mcap").exists()
    recorder.close()
    recorder.close()
    assert recorder.lost == 0 and not list(tmp_path.glob("*.part"))
    from embodied.datasets.files.mcap_files import McapFile

    assert [(topic, log, packet) for topic, log, packet in McapFile(tmp_path / "live.mcap").messages(KINDS)] == sent


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a.mcap").touch()
    (tmp_path / "b.mcap.part").touch()
    for name in ("a.mcap", "b.mcap"):
        with pytest.raises(UserError, match="exists already"):
            Recorder(tmp_path / name)
    with pytest.raises(UserError, match=r"ends in \.mcap"):
        Recorder(tmp_path / "c.bag")
    recorder = Recorder(tmp_path / "d.mcap")
    recorder.add_topic("/x", JOINTS.struct.name)
    with pytest.raises(UserError, match="recorded as"):
        recorder.add_topic("/x", IMAGE.struct.name)
    with pytest.raises(UsageError, match="unknown message type"):
        recorder.add_topic("/y", "sensor_msgs/msg/Imagee")
    recorder.close()


def test_a_slow_disk_loses_what_is_too_much_and_counts_it(tmp_path, monkeypatch):
    network, gate = MemoryTransport(), threading.Event()
    write = Recorder.write
    monkeypatch.setattr(Recorder, "write", lambda *arguments: (gate.wait(30), write(*arguments)))
    recorder = TopicRecorder(
        network, {"/joint_states": (JOINTS.struct.name, SENSOR)}, Recorder(tmp_path / "slow.mcap"),
        most_waiting_bytes=1000,
    )  # fmt: skip
    publisher = network.advertise("/joint_states", JOINTS.struct.name, COMMAND)
    for number in range(100):
        publisher.publish(packets(number)["/joint_states"])
        network.advance(0.01)
    gate.set()
    recorder.close()
    assert 80 < recorder.lost < 99


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path):
    network = MemoryTransport()
    recorder = TopicRecorder(
        network, {"/camera/image": (IMAGE.struct.name, SENSOR)}, Recorder(tmp_path / "full.mcap", compression="none")
    )
    heard = []
    network.subscribe("/camera/image", IMAGE.struct.name, SENSOR, lambda packet, stamp: heard.append(stamp))
    publisher = network.advertise("/camera/image", IMAGE.struct.name, COMMAND)
    image = IMAGE(height=512, width=512, encoding="rgb8", step=1536, data=np.zeros((512, 512, 3), np.uint8))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, before[1]))
        for _ in range(40):
            publisher.publish(encode(image))
            network.advance(0.05)
        with pytest.raises(UserError, match="recording failed: File too large"):
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(heard) == 40 and recorder.lost > 20
    assert (tmp_path / "full.mcap.part").stat().st_size <= 6 << 20 and not (tmp_path / "full.mcap").exists()
