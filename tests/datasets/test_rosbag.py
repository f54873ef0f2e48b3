"""Importing recordings that rosbags and mcap wrote: storages, time, episodes, options."""

import json
from functools import cache

import numpy as np
import pytest
import yaml
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from embodied.core.errors import UsageError, UserError
from embodied.datasets.importers.ros_frames import FrameReader, MessageShelf
from embodied.datasets.importers.rosbag import FORMAT, open_source

NS = 10**9
T0 = 1_700_000_000 * NS
STEP = NS // 10


@cache
def store(ros1=False):
    return get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)


def make(kind, ros1=False, /, **fields):
    return store(ros1).types[kind](**fields)


def header(ns, ros1=False):
    stamp = make("builtin_interfaces/msg/Time", ros1, sec=ns // NS, nanosec=ns % NS)
    return make("std_msgs/msg/Header", ros1, stamp=stamp, frame_id="base", **({"seq": 1} if ros1 else {}))


def image(number, ns, ros1=False):
    data = np.full(4 * 6 * 3, number, np.uint8)
    size = {"height": 4, "width": 6, "step": 18, "is_bigendian": 0, "encoding": "rgb8"}
    return "sensor_msgs/msg/Image", make("sensor_msgs/msg/Image", ros1, header=header(ns, ros1), data=data, **size)


def joints(values, ns, ros1=False, names=("a", "b")):
    empty = np.zeros(0)
    fields = {"name": list(names), "position": np.asarray(values, float), "velocity": empty, "effort": empty}
    name = "sensor_msgs/msg/JointState"
    return name, make(name, ros1, header=header(ns, ros1), **fields)


def number(value):
    return "std_msgs/msg/Float64", make("std_msgs/msg/Float64", data=float(value))


def flag(value):
    return "std_msgs/msg/Bool", make("std_msgs/msg/Bool", data=value)


def text(value, ros1=False):
    return "std_msgs/msg/String", make("std_msgs/msg/String", ros1, data=value)


def write_ros2(path, entries, storage="mcap", compression=None):
    """`entries`: topic, log time in ns, (type, message); in the order they are written."""
    writer = rosbag2.Writer(path, version=8, storage_plugin=rosbag2.StoragePlugin[storage.upper()])
    if compression:
        writer.set_compression(rosbag2.CompressionMode[compression.upper()], rosbag2.CompressionFormat.ZSTD)
    with writer:
        known = {}
        for topic, log, (name, message) in entries:
            if topic not in known:
                known[topic] = writer.add_connection(topic, name, typestore=store())
            writer.write(known[topic], log, store().serialize_cdr(message, name))
    return path


def write_ros1(path, entries, compression=None):
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
    with writer:
        known = {}
        for topic, log, (name, message) in entries:
            if topic not in known:
                known[topic] = writer.add_connection(topic, name, typestore=store(ros1=True))
            writer.write(known[topic], log, store(ros1=True).serialize_ros1(message, name))
    return path


def write_mcap(path, entries, **options):
    """With mcap's own writer, as a recorder without ROS does."""
    with path.open("wb") as file:
        writer = McapWriter(file, **options)
        writer.start(profile="ros2", library="test")
        known = {}
        for topic, log, (name, message) in entries:
            if topic not in known:
                definition = store().generate_msgdef(name, ros_version=2)[0].encode()
                schema = writer.register_schema(name, "ros2msg", definition)
                known[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(known[topic], log, bytes(store().serialize_cdr(message, name)), log)
        writer.finish()
    return path


def robot(frames=10, ros1=False, start=T0):
    """A camera at 10 Hz stamped 40 ms before it is logged, joints at 20 Hz, and a task."""
    entries = [("/task", start, text("push the cup", ros1))]
    for k in range(frames):
        at = start + k * STEP
        entries.append(("/cam/image_raw", at + 40_000_000, image(k, at, ros1)))
        for half in (0, 1):
            stamp = at + half * STEP // 2
            entries.append(("/joint_states", stamp + 1_000_000, joints([k + half / 2, -k], stamp, ros1)))
    return sorted(entries, key=lambda entry: entry[1])


def read(source, episode=0):
    blocks = list(list(source.episodes())[episode].blocks())
    return {key: np.concatenate([block[key] for block in blocks]) for key in source.keys}


def check_robot(source, frames=10):
    (episode,) = source.episodes()
    assert episode.task == "push the cup"
    assert source.keys["/cam/image_raw"].codec == "zstd" and source.keys["/joint_states/position"].names == ("a", "b")
    arrays = read(source)
    assert {key: (array.dtype.name, array.shape[1:]) for key, array in arrays.items()} == {
        key: (spec.dtype, spec.shape) for key, spec in source.keys.items()
    }
    assert arrays["/cam/image_raw"][:, 0, 0, 0].tolist() == list(range(frames))
    assert arrays["/joint_states/position"].tolist() == [[k, -k] for k in range(frames)]
    assert arrays["timestamp"] == pytest.approx(np.arange(frames) / 10)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", [None, "message", "file"])
def test_ros2_bags_of_both_storages_and_compressions(tmp_path, storage, compression):
    source = open_source(write_ros2(tmp_path / "bag", robot(), storage, compression), fps=10)
    check_robot(source)
    assert len(source) == 1 and FORMAT.recognizes(tmp_path / "bag")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": CompressionType.NONE},
        {"compression": CompressionType.LZ4, "chunk_size": 500},
        {"compression": CompressionType.ZSTD, "chunk_size": 500},
        {"use_chunking": False},
        {"index_types": IndexType.NONE, "repeat_channels": False, "repeat_schemas": False, "use_statistics": False},
    ],
    ids=["plain", "lz4", "zstd", "unchunked", "no index"],
)
def test_bare_mcap_files_whatever_their_chunks_and_index(tmp_path, options):
    check_robot(open_source(write_mcap(tmp_path / "run.mcap", robot(), **options), fps=10))


@pytest.mark.parametrize("compression", [None, "bz2", "lz4"])
def test_ros1_bags(tmp_path, compression):
    check_robot(open_source(write_ros1(tmp_path / "run.bag", robot(ros1=True), compression), fps=10))


def test_a_bare_sqlite3_file_and_a_split_bag(tmp_path):
    whole = write_ros2(tmp_path / "one", robot(), "sqlite3")
    check_robot(open_source(whole / "one.db3", fps=10))
    entries = robot()
    for part, half in (("one", entries[:14]), ("two", entries[14:])):
        write_ros2(tmp_path / "parts" / part, half)
    split = tmp_path / "split"
    split.mkdir()
    for part in ("one", "two"):
        (tmp_path / "parts" / part / f"{part}.mcap").rename(split / f"{part}.mcap")
    metadata = yaml.safe_load((tmp_path / "parts" / "one" / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] = ["one.mcap", "two.mcap"]
    (split / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    check_robot(open_source(split, fps=10))


def test_a_folder_of_recordings_is_an_episode_each_in_natural_order(tmp_path):
    for name, frames in (("run_10", 4), ("run_2", 3)):
        write_ros2(tmp_path / "all" / name, robot(frames))
    write_mcap(tmp_path / "all" / "run_1.mcap", robot(5))
    source = open_source(tmp_path / "all", fps=10)
    episodes = list(source.episodes())
    assert [episode.origin for episode in episodes] == ["run_1.mcap", "run_2", "run_10"] and len(source) == 3
    assert [sum(len(block["timestamp"]) for block in episode.blocks()) for episode in episodes] == [5, 3, 4]
    assert [episode.task for episode in episodes] == ["push the cup"] * 3


def test_recordings_that_do_not_fit_the_first_fail_when_they_are_read_and_the_others_do_not(tmp_path):
    write_mcap(tmp_path / "a.mcap", robot(3))
    write_mcap(tmp_path / "b.mcap", [(topic.replace("cam", "cams"), log, m) for topic, log, m in robot(3)])
    write_mcap(tmp_path / "c.mcap", robot(3))
    a, b, c = open_source(tmp_path, fps=10).episodes()
    assert (b.task, dict(b.notes)) == ("", {})
    with pytest.raises(UserError, match=r"b\.mcap has no topic /cam/image_raw.*is it /cams/image_raw\?"):
        list(b.blocks())
    assert len(next(a.blocks())["timestamp"]) == len(next(c.blocks())["timestamp"]) == 3


def test_topics_that_are_left_out_may_be_missing_elsewhere(tmp_path):
    write_mcap(tmp_path / "a.mcap", [*robot(3), ("/note", T0, text("hi")), ("/once", T0 + 1, number(1))])
    write_mcap(tmp_path / "b.mcap", robot(3)[1:])  # and this one has no task
    a, b = open_source(tmp_path, fps=10).episodes()
    assert (a.task, b.task) == ("push the cup", "") and len(next(b.blocks())["timestamp"]) == 3


def test_alignment_methods_by_topic(tmp_path):
    entries = [("/cmd", T0 + k * STEP + STEP // 4, number(k)) for k in range(-1, 6)]
    entries += [("/clock_topic", T0 + k * STEP, number(k)) for k in range(6)]
    path = write_mcap(tmp_path / "a.mcap", entries)
    options = {"fps": 10, "clock": "log"}
    values = {
        method: read(open_source(path, align={"/cmd": method}, **options))["/cmd"].tolist()
        for method in ("previous", "nearest", "next", "interpolate")
    }
    assert values["previous"] == [-1, 0, 1, 2, 3, 4]
    assert values["nearest"] == [0, 1, 2, 3, 4, 5]
    assert values["next"] == [0, 1, 2, 3, 4, 5]
    assert values["interpolate"] == pytest.approx([k - 0.25 for k in range(6)])


def test_interpolation_leaves_images_and_turns_quaternions_on_their_arc(tmp_path):
    def pose(angle):
        quaternion = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=np.sin(angle / 2), w=np.cos(angle / 2))
        position = make("geometry_msgs/msg/Point", x=angle, y=0.0, z=0.0)
        return "geometry_msgs/msg/Pose", make("geometry_msgs/msg/Pose", position=position, orientation=quaternion)

    entries = [("/pose", T0 + k * STEP, pose(k * 1.0)) for k in range(3)]
    entries += [("/cam", T0 + k * STEP, image(k * 10, T0 + k * STEP)) for k in range(3)]
    source = open_source(
        write_mcap(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[1])), fps=40, align="interpolate"
    )
    arrays = read(source)
    assert source.keys["/pose"].names[:1] + source.keys["/pose"].names[-1:] == ("position.x", "orientation.w")
    turned = 2 * np.arctan2(arrays["/pose"][:, 5], arrays["/pose"][:, 6])
    assert turned == pytest.approx(np.arange(9) / 4) and arrays["/pose"][:, 0] == pytest.approx(np.arange(9) / 4)
    assert set(arrays["/cam"].ravel().tolist()) == {0, 10, 20}


def test_angles_are_interpolated_the_shorter_way(tmp_path):
    entries = [("/joint_states", T0 + k * STEP, joints([a, a], T0 + k * STEP)) for k, a in enumerate([3.0, -3.0])]
    path = write_mcap(tmp_path / "a.mcap", entries)
    options = {"fps": 20, "align": "interpolate"}
    plain = read(open_source(path, **options))["/joint_states/position"][1, 0]
    turned = read(open_source(path, angles=["/joint_states/position"], **options))["/joint_states/position"][1, 0]
    assert plain == pytest.approx(0) and np.cos(turned) == pytest.approx(-1)


def with_pause(path, tmp_gap=6):
    """Ten frames of two topics at 10 Hz, the numbers silent for 0.7 s after frame 2."""
    entries = [("/cam", T0 + k * STEP, image(k, T0 + k * STEP)) for k in range(12)]
    entries += [("/x", T0 + k * STEP, number(k)) for k in (0, 1, 2, 2 + tmp_gap + 1, 10, 11)]
    return write_mcap(path, sorted(entries, key=lambda entry: entry[1]))


def test_gaps_are_an_error_that_says_where_and_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"/x was silent for 0\.700 s from 0\.200 s on.*gaps=hold.*gaps=drop"):
        open_source(with_pause(tmp_path / "a.mcap"), fps=10, max_age_s=0.25)


def test_gaps_are_held_dropped_or_cut_and_reported(tmp_path):
    path = with_pause(tmp_path / "a.mcap")
    options = {"fps": 10, "max_age_s": 0.25}
    held = open_source(path, gaps="hold", **options)
    assert read(held)["/x"].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2, 9, 10, 11]
    (episode,) = held.episodes()
    assert episode.notes["gaps"] == {
        "/x": {"count": 1, "frames": 4, "longest_s": pytest.approx(0.7), "at_s": pytest.approx(0.2)}
    }
    dropped = open_source(path, gaps="drop", **options)
    assert read(dropped)["/x"].tolist() == [0, 1, 2, 2, 2, 9, 10, 11]
    assert read(dropped)["timestamp"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.9, 1.0, 1.1])
    assert next(dropped.episodes()).notes["frames_left_out"] == 4
    cut = open_source(path, episodes="gap", **options)
    assert [episode.origin for episode in cut.episodes()] == ["a.mcap#0", "a.mcap#1"] and len(cut) == 2
    assert [read(cut, k)["/x"].tolist() for k in (0, 1)] == [[0, 1, 2, 2, 2], [9, 10, 11]]
    assert read(cut, 1)["/cam"][:, 0, 0, 0].tolist() == [9, 10, 11] and read(cut, 1)["timestamp"][0] == 0


def test_latched_topics_have_no_gaps_and_do_not_end_an_episode(tmp_path):
    entries = [("/cam", T0 + k * STEP, image(k, T0 + k * STEP)) for k in range(20)]
    entries += [("/gripper", T0, number(0)), ("/gripper", T0 + 5 * STEP, number(1))]
    path = write_mcap(tmp_path / "a.mcap", sorted(entries, key=lambda entry: entry[1]))
    arrays = read(open_source(path, fps=10, latched=["/gripper"]))
    assert arrays["/gripper"].tolist() == [0] * 5 + [1] * 15


def test_episodes_are_marked_by_a_topic(tmp_path):
    marks = [("/record", T0 + k * STEP, flag(on)) for k, on in [(2, True), (3, True), (5, False), (7, True)]]
    names = [("/name", T0 + k * STEP, text(name)) for k, name in [(1, "open"), (6, "close")]]
    entries = [("/x", T0 + k * STEP, number(k)) for k in range(10)]
    path = write_mcap(tmp_path / "a.mcap", sorted(entries + marks + names, key=lambda entry: entry[1]))
    by_flag = open_source(path, fps=10, topics=["/x"], episodes="/record", task_topic="/name")
    assert [read(by_flag, k)["/x"].tolist() for k in range(len(by_flag))] == [[2, 3, 4], [7, 8, 9]]
    assert [episode.task for episode in by_flag.episodes()] == ["open", "close"]
    by_text = open_source(path, fps=10, topics=["/x"], episodes="/name")
    assert [read(by_text, k)["/x"].tolist() for k in range(len(by_text))] == [[1, 2, 3, 4, 5], [6, 7, 8, 9]]


def test_times_out_of_order_twice_and_unset_are_put_right_and_reported(tmp_path):
    late = {1: STEP + 1}  # of the image 1, which comes after 2
    entries = [("/cam", T0 + k * STEP + late.get(k, 0) + 500, image(k, T0 + k * STEP)) for k in (0, 1, 2, 4, 4, 5)]
    entries.append(("/cam", T0 + 3 * STEP + 500, image(3, 0)))  # its stamp was never set
    entries.sort(key=lambda entry: entry[1])
    source = open_source(write_mcap(tmp_path / "a.mcap", entries), fps=10)
    assert read(source)["/cam"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    notes = next(source.episodes()).notes["topics"]["/cam"]
    assert (notes["out_of_order"], notes["duplicates"], notes["broken_stamps"]) == (1, 1, 1)


def test_log_time_is_used_where_headers_are_of_another_clock(tmp_path):
    entries = [("/cam", T0 + k * STEP, image(k, k * STEP)) for k in range(5)]
    entries += [("/x", T0 + k * STEP, number(k)) for k in range(5)]
    source = open_source(write_mcap(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[1])), fps=10)
    assert read(source)["/cam"][:, 0, 0, 0].tolist() == read(source)["/x"].tolist() == [0, 1, 2, 3, 4]
    notes = next(source.episodes()).notes["topics"]["/cam"]
    assert notes["clock"] == "log" and notes["log_minus_header_s"] == pytest.approx(1_700_000_000)
    assert next(source.episodes()).notes["start_ns"] == T0


def test_the_clock_can_be_chosen(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", robot())
    assert next(open_source(path, fps=10, clock="log").episodes()).notes["start_ns"] == T0 + 40_000_000
    assert next(open_source(path, fps=10).episodes()).notes["topics"]["/cam/image_raw"]["log_minus_header_s"] == 0.04


def test_topics_kept_apart_in_the_file_wait_on_disk_and_come_out_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(MessageShelf.__init__, "__kwdefaults__", {"memory": 0})
    entries = sorted(robot(20), key=lambda entry: entry[0])  # all of the camera, then all joints
    path = write_mcap(tmp_path / "a.mcap", entries)
    check_robot(open_source(path, fps=10), frames=20)


def test_a_message_shelf_gives_back_what_it_was_given_from_memory_and_disk():
    shelf = MessageShelf(memory=10)
    messages = {("/a", k): bytes([k]) * (k + 1) for k in range(6)}
    for label, raw in messages.items():
        shelf.put(label, raw)
    assert [shelf.take(label) for label in reversed(messages)] == list(reversed(messages.values()))
    assert ("/a", 0) not in shelf
    shelf.close()


def test_blocks_are_of_about_the_size_asked_for(tmp_path, monkeypatch):
    source = open_source(write_mcap(tmp_path / "a.mcap", robot()), fps=10)
    monkeypatch.setattr(FrameReader.blocks, "__kwdefaults__", {"block_bytes": 3 * (4 * 6 * 3 + 2 * 8)})
    (episode,) = source.episodes()
    assert [len(block["timestamp"]) for block in episode.blocks()] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 10, "topics": ["/cam/image_rw"]}, r"unknown topic of .*did you mean /cam/image_raw\?"),
        ({"fps": 10, "align": "nearset"}, r"unknown align 'nearset': did you mean nearest\?"),
        ({"fps": 10, "align": {"/joint_state": "next"}}, r"unknown topic of align.*did you mean /joint_states\?"),
        ({"fps": 10, "align": {"/cam/image_raw": "interpolate"}}, "cannot be interpolated"),
        ({"fps": 10, "gaps": "fill"}, "unknown gaps 'fill'"),
        ({"fps": 10, "clock": "loog"}, "did you mean log"),
        ({"fps": 10, "episodes": "bags"}, "did you mean bag"),
        ({"fps": 10, "episodes": "/record"}, "unknown topic"),
        ({"fps": 10, "max_age_s": 0}, "max_age_s must be positive"),
        ({"fps": 10, "max_age_s": "long"}, "max_age_s must be positive, got 'long'"),
        ({"fps": 1e308}, "fps must be at most 1000000"),
        ({"fps": "fast"}, "fps must be positive, got 'fast'"),
        ({"fps": 10, "align": ["next"]}, "align must be a method, or methods by topic"),
        ({"fps": 10, "topics": [3]}, "topics must be a list of names"),
        ({"fps": 10, "latched": "/gripper"}, "unknown topic of .* '/gripper'"),
        ({"fps": -1}, "fps must be positive"),
        ({}, r"options.fps \(its topics: .*/cam/image_raw 10 Hz"),
        ({"fps": 10, "angles": ["/cam/image_raw"]}, "not a vector of floats"),
        ({"fps": 10, "latched": ["/cam/image_raw", "/joint_states"]}, "at least one topic must not be latched"),
        ({"fps": 10, "task_topic": "/joint_states"}, "task_topic: /joint_states .* is sensor_msgs/msg/JointState"),
        ({"fps": 10, "topics": ["/task"]}, "/task cannot be imported: it is text"),
    ],
)
def test_wrong_options_get_one_message(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        open_source(write_mcap(tmp_path / "a.mcap", robot(3)), **options)


def test_topics_that_never_overlap_are_named(tmp_path):
    entries = [("/x", T0 + k, number(k)) for k in range(3)] + [("/y", T0 + NS + k, number(k)) for k in range(3)]
    with pytest.raises(UserError, match=r"/y begins 1\.000 s after /x ends"):
        open_source(write_mcap(tmp_path / "a.mcap", entries), fps=10)


def test_provenance_and_notes_are_json_and_say_what_was_left_out(tmp_path):
    entries = [*robot(), ("/once", T0 + 1, number(1)), ("/chatter", T0 + 2, text("hello"))]
    source = open_source(write_mcap(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[1])), fps=10)
    assert set(source.provenance["skipped"]) == {"/once", "/chatter"}
    assert "one message" in source.provenance["skipped"]["/once"]
    assert json.loads(json.dumps(source.provenance)) and json.dumps(next(source.episodes()).notes)


def test_an_array_whose_key_is_another_topic_gets_another_key(tmp_path):
    entries = [("/joints", T0 + k * STEP, joints([k, k], T0 + k * STEP)) for k in range(3)]
    entries += [("/joints/position", T0 + k * STEP, number(k)) for k in range(3)]
    source = open_source(write_mcap(tmp_path / "a.mcap", entries), fps=10)
    assert set(source.keys) == {"/joints.position", "/joints/position", "timestamp"}


def test_ros1_messages_in_mcap_and_standard_types_defined_in_idl(tmp_path):
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros1")
        definition = store(ros1=True).generate_msgdef("sensor_msgs/msg/JointState")[0].encode()
        schema = writer.register_schema("sensor_msgs/JointState", "ros1msg", definition)
        channel = writer.register_channel("/joints", "ros1", schema)
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2idl", b"module std_msgs {}")
        other = writer.register_channel("/x", "cdr", schema)
        for k in range(4):
            log = T0 + k * STEP
            name, message = joints([k, -k], log, True)
            writer.add_message(channel, log, bytes(store(ros1=True).serialize_ros1(message, name)), log)
            name, message = number(k)
            writer.add_message(other, log, bytes(store().serialize_cdr(message, name)), log)
        writer.finish()
    arrays = read(open_source(tmp_path / "a.mcap", fps=10))
    assert arrays["/joints/position"].tolist() == [[k, -k] for k in range(4)] and arrays["/x"].tolist() == [0, 1, 2, 3]


def test_recognizes_only_recordings(tmp_path):
    for folder in ("rec", "photos"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos" / "metadata.yaml").write_text("of: something else")
    write_mcap(tmp_path / "rec" / "a.mcap", robot(2))
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    assert FORMAT.recognizes(tmp_path / "rec") and FORMAT.recognizes(tmp_path / "rec" / "a.mcap")
    assert not FORMAT.recognizes(tmp_path / "photos") and not FORMAT.recognizes(tmp_path / "none")
