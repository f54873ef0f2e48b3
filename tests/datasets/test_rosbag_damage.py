"""Recordings that are damaged, cut off, empty, foreign or malicious: one message, never anything else."""

import random
import struct
import sys
from functools import cache

import lz4.frame
import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from embodied.core.errors import MissingExtraError, UserError
from embodied.datasets.files.mcap_files import McapFile, decompress
from embodied.datasets.importers.rosbag import open_source

T0, STEP, NAME = 1_700_000_000 * 10**9, 10**8, "sensor_msgs/msg/JointState"


@cache
def store(ros1=False):
    return get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)


def joint_state(number, ros1=False):
    types, time = store(ros1).types, T0 + number * STEP
    stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
    head = types["std_msgs/msg/Header"](stamp=stamp, frame_id="", **({"seq": 0} if ros1 else {}))
    values = np.array([number, -number], float)
    message = types[NAME](header=head, name=["a", "b"], position=values, velocity=values, effort=np.zeros(0))
    write = store(ros1).serialize_ros1 if ros1 else store().serialize_cdr
    return T0 + number * STEP, bytes(write(message, NAME))


def write_mcap(path, messages, topic="/joints", **options):
    options = {"compression": CompressionType.ZSTD, **options}
    with path.open("wb") as file:
        writer = McapWriter(file, **options)
        writer.start(profile="ros2")
        definition = store().generate_msgdef(NAME, ros_version=2)[0].encode()
        channel = writer.register_channel(topic, "cdr", writer.register_schema(NAME, "ros2msg", definition))
        for log, raw in messages:
            writer.add_message(channel, log, raw, log)
        writer.finish()
    return path


def write_ros2(path, storage="mcap", count=6):
    with rosbag2.Writer(path, version=8, storage_plugin=rosbag2.StoragePlugin[storage.upper()]) as writer:
        connection = writer.add_connection("/joints", NAME, typestore=store())
        for number in range(count):
            writer.write(connection, *joint_state(number))
    return path


def write_ros1(path, compression=None):
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression])
    with writer:
        connection = writer.add_connection("/joints", NAME, typestore=store(ros1=True))
        for number in range(6):
            writer.write(connection, *joint_state(number, ros1=True))
    return path


MESSAGES = [joint_state(number) for number in range(6)]
WRITERS = {
    "zstd.mcap": lambda path: write_mcap(path, MESSAGES, chunk_size=300),
    "plain.mcap": lambda path: write_mcap(path, MESSAGES, compression=CompressionType.NONE, enable_crcs=False),
    "unchunked.mcap": lambda path: write_mcap(path, MESSAGES, use_chunking=False),
    "sqlite.db3": lambda path: write_ros2(path.parent / "bag", "sqlite3") / "bag.db3",
    "plain.bag": write_ros1,
    "lz4.bag": lambda path: write_ros1(path, "LZ4"),
}


def read_all(path):
    source = open_source(path, fps=10, gaps="hold")
    return [len(block["timestamp"]) for episode in source.episodes() for block in episode.blocks()]


def damaged(data, rng):
    """The bytes after a cut, some flipped bits, an overwritten number or a missing piece."""
    kind, place = rng.randrange(4), rng.randrange(len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + rng.choice([b"\xff" * 8, rng.randbytes(8)]) + data[place + 8 :]
    return data[:place] + data[place + rng.randrange(1, 100) :]


@pytest.mark.parametrize("name", WRITERS)
def test_random_damage_gives_a_message_or_does_not_matter(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    assert read_all(path) == [6]
    data, rng, messages = path.read_bytes(), random.Random(0), 0
    broken = tmp_path / f"broken{path.suffix}"
    for _ in range(40):
        broken.write_bytes(damaged(data, rng))
        try:
            read_all(broken)
        except UserError as error:
            assert "broken" in str(error) and "\n" not in str(error)
            messages += 1
    assert messages > 10


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_recording_that_was_cut_off_says_how_to_keep_the_rest(tmp_path, keep):
    path = write_mcap(tmp_path / "a.mcap", MESSAGES, chunk_size=300)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"a\.mcap was cut off: it has no footer.*mcap recover"):
        open_source(path, fps=10)
    bag = write_ros1(tmp_path / "a.bag")
    bag.write_bytes(bag.read_bytes()[: int(keep * bag.stat().st_size)])
    with pytest.raises(UserError, match=r"a\.bag is damaged or was cut off .*rosbag reindex"):
        open_source(bag, fps=10)


def test_a_flipped_byte_in_a_chunk_is_found_and_named(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", MESSAGES, compression=CompressionType.NONE)
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<d", 3.0))
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a chunk that is not what was written .* at byte \d+"):
        open_source(path, fps=10)


def test_empty_recordings_and_empty_files(tmp_path):
    with pytest.raises(UserError, match=r"holds nothing that can be imported \(/joints: it has no messages\)"):
        open_source(write_mcap(tmp_path / "a.mcap", []), fps=10)
    for name in ("b.mcap", "b.bag", "b.db3"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=name):
            open_source(tmp_path / name, fps=10)
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(tmp_path / "none", fps=10)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no ROS recording in"):
        open_source(tmp_path / "nothing", fps=10)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"a\.txt is no ROS recording"):
        open_source(tmp_path / "a.txt", fps=10)


def edited(path, **changes):
    information = yaml.safe_load((path / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"].update(changes)
    (path / "metadata.yaml").write_text(yaml.safe_dump(information))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage_identifier": "leveldb"}, "the storage 'leveldb' cannot be read.*ros2 bag convert"),
        ({"relative_file_paths": ["gone.mcap"]}, r"is incomplete: gone\.mcap is missing"),
        ({"relative_file_paths": ["../../bag.mcap", "/etc/passwd"]}, "passwd is missing"),
        ({"relative_file_paths": 3}, "metadata.yaml is damaged"),
        ({"compression_mode": "FILE", "compression_format": "rar"}, "compression 'rar' by 'file' cannot be read"),
        ({"compression_mode": "FILE", "compression_format": "zstd"}, "is damaged"),
        ({"compression_mode": "MESSAGE", "compression_format": "zstd"}, "a compressed message of /joints"),
    ],
)
def test_folders_whose_metadata_does_not_fit(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_source(edited(write_ros2(tmp_path / "bag"), **changes), fps=10)


@pytest.mark.parametrize("text", ["", "- 1", "{", "a: &a [*a]", "!!python/object/apply:os.system ['false']"])
def test_metadata_that_is_no_metadata(tmp_path, text):
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(UserError, match=r"metadata\.yaml is damaged .*ros2 bag reindex"):
        open_source(tmp_path, fps=10)


def test_a_sqlite_file_that_was_not_closed_is_not_read_by_half(tmp_path):
    path = write_ros2(tmp_path / "bag", "sqlite3")
    (path / "bag.db3-wal").write_bytes(b"more")
    with pytest.raises(UserError, match=r"was not closed, a part of it is in bag\.db3-wal"):
        open_source(path, fps=10)


def test_a_wrong_clock_does_not_make_endless_episodes(tmp_path):
    late = [(log + 10**17, raw) for log, raw in MESSAGES[-1:]]
    with pytest.raises(UserError, match=r"spans 27778 hours, more than 10000000 frames"):
        open_source(write_mcap(tmp_path / "a.mcap", MESSAGES + late), fps=1000, gaps="hold", clock="log")


def bomb(path, packed, compression, claimed):
    """A file with one chunk that says it holds `claimed` bytes."""
    body = struct.pack("<QQQI", 0, 2**63, claimed, 0) + struct.pack("<I", len(compression)) + compression.encode()
    body += struct.pack("<Q", len(packed)) + packed
    magic, header = b"\x89MCAP0\r\n", struct.pack("<BQ", 1, 8) + bytes(8)
    chunk = struct.pack("<BQ", 6, len(body)) + body
    footer = struct.pack("<BQQQI", 2, 20, 0, 0, 0)
    path.write_bytes(magic + header + chunk + footer + magic)
    return path


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("claimed", [1000, 2**40])
def test_decompression_bombs_are_stopped_at_what_they_claim_or_may(tmp_path, compression, claimed):
    zeros = bytes(1 << 24)
    packed = zstandard.compress(zeros) if compression == "zstd" else lz4.frame.compress(zeros)
    assert len(decompress(packed, compression, 1000)) == 1001
    with pytest.raises(UserError, match="is damaged"):
        McapFile(bomb(tmp_path / "a.mcap", packed, compression, claimed))


def test_unknown_compression_and_other_encodings_are_named(tmp_path):
    with pytest.raises(UserError, match="compressed with 'brotli', not zstd or lz4"):
        McapFile(bomb(tmp_path / "a.mcap", b"x", "brotli", 1))
    with (tmp_path / "b.mcap").open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        schema = writer.register_schema("foxglove.Pose", "protobuf", b"\x00")
        channel = writer.register_channel("/pose", "protobuf", schema)
        writer.add_message(channel, T0, b"\x00", T0)
        writer.finish()
    with pytest.raises(UserError, match=r"/pose: its messages are protobuf"):
        open_source(tmp_path / "b.mcap", fps=10)


def test_a_message_that_does_not_fit_is_named(tmp_path):
    log, raw = MESSAGES[3]
    broken = [*MESSAGES[:3], (log, raw[:60]), *MESSAGES[4:]]
    (episode,) = open_source(write_mcap(tmp_path / "a.mcap", broken), fps=10).episodes()
    with pytest.raises(UserError, match=r"a\.mcap: message of /joints .* cannot be used: it ends after 56 bytes"):
        list(episode.blocks())


def test_a_recording_that_changes_between_its_two_readings_is_noticed(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", MESSAGES)
    (episode,) = open_source(path, fps=10).episodes()
    write_mcap(path, MESSAGES[:3])
    with pytest.raises(UserError, match="ended earlier than when it was first read"):
        list(episode.blocks())


@pytest.mark.parametrize("module", ["mcap", "rosbags.interfaces"])
def test_missing_packages_name_the_extra(tmp_path, monkeypatch, module):
    paths = {"mcap": write_mcap(tmp_path / "a.mcap", MESSAGES), "rosbags.interfaces": write_ros1(tmp_path / "a.bag")}
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"is not installed: .*embodied-learning\[ros\]"):
        open_source(paths[module], fps=10)
