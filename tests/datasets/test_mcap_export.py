"""Exporting to ROS 2 bags: read by rosbags and mcap, and by the importer without a difference."""

import json
import sys

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.exporters.mcap import FORMAT, export
from embodied.datasets.importers.rosbag import open_source
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

RNG = np.random.default_rng(0)
KEYS = {
    "observation.images.front": KeySpec("uint8", (16, 24, 3), codec="jpeg"),
    "observation.images.wrist": KeySpec("uint8", (8, 8, 3)),
    "observation.depth.front": KeySpec("uint16", (16, 24)),
    "observation.depth.wrist": KeySpec("float32", (4, 6)),
    "observation.raw.front": KeySpec("uint16", (6, 8)),
    "observation.state": KeySpec("float32", (3,), names=("shoulder", "elbow", "gripper")),
    "observation.environment_state": KeySpec("float32", (5,)),
    "action": KeySpec("float32", (2,)),
    "action_chunk": KeySpec("float64", (4, 2)),
    "next.reward": KeySpec("float32", ()),
    "next.done": KeySpec("bool", ()),
    "counts": KeySpec("int32", (3,)),
    "flags": KeySpec("bool", (2,)),
    "big": KeySpec("uint64", ()),
    "timestamp": KeySpec("float64", ()),
}


def random_frames(spec, length):
    shape = (length, *spec.shape)
    if spec.codec == "jpeg":
        ramp = np.linspace(0, 200, spec.shape[1], dtype=np.uint8)
        return (
            np.broadcast_to(ramp[None, None, :, None], shape) + np.arange(length, dtype=np.uint8)[:, None, None, None]
        )
    if spec.dtype == "bool":
        return RNG.integers(0, 2, shape).astype(bool)
    if spec.dtype.startswith("float"):
        return RNG.normal(size=shape).astype(spec.dtype)
    high = min(np.iinfo(spec.dtype).max, 2**63)
    return RNG.integers(0, high, shape, dtype=spec.dtype)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "demos"
    with EpisodeStore.create(path, keys=KEYS, fps=12.5, robot="arm") as store:
        for number, length in enumerate((5, 1)):
            frames = {key: random_frames(spec, length) for key, spec in KEYS.items()}
            frames["observation.depth.wrist"][0, 0, :2] = np.nan, np.inf
            frames["timestamp"] = np.arange(length) / 12.5
            start = 1_700_000_000_000_000_000
            notes = {"gaps": {"/x": 1}, "start_ns": start} if number == 0 else None
            store.append(frames, task=f"task {number}", seed=number, success=number == 0, origin="o", notes=notes)
    return EpisodeStore.open(path)


def exported(store, path, **options):
    export(store, path, reporter=SilentReporter(), **options)
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"ros_distro": "jazzy"}, {"images": "raw"}])
def test_importing_an_export_gives_the_same_episodes_bit_for_bit(demos, tmp_path, options):
    source = open_source(exported(demos, tmp_path / "bags", **options))
    assert dict(source.keys) == dict(demos.keys)
    assert (source.fps, source.robot, len(source)) == (demos.fps, demos.robot, len(demos))
    for episode, info in zip(source.episodes(), demos.episodes, strict=True):
        assert episode.origin == f"episode_{info.index:06d}"
        assert (episode.task, episode.seed, episode.success) == (info.task, info.seed, info.success)
        blocks = list(episode.blocks())
        for key, expected in demos.read_episode(info.index).items():
            got = np.concatenate([block[key] for block in blocks])
            assert got.dtype == expected.dtype and got.shape == expected.shape
            if demos.keys[key].codec == "jpeg" and options.get("images") != "raw":
                assert np.abs(got.astype(int) - expected).max() <= 6
            else:
                assert got.tobytes() == expected.tobytes(), key
    first = next(source.episodes())
    assert first.notes["gaps"] == {"/x": 1} and first.notes["start_ns"] == 1_700_000_000_000_000_000


def test_jpeg_for_all_cameras(demos, tmp_path):
    source = open_source(exported(demos, tmp_path / "bags", images="jpeg"))
    assert source.keys["observation.images.wrist"].codec == "jpeg"


def test_rosbags_reads_standard_messages(demos, tmp_path):
    folder = exported(demos, tmp_path / "bags") / "episode_000000"
    frames = demos.read_episode(0)
    types = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([folder], default_typestore=types) as reader:
        seen = {}
        for connection, time, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            seen.setdefault(connection.topic, []).append((time, message))
    states = [message for _, message in seen["/observation/state"]]
    assert states[0].name == ["shoulder", "elbow", "gripper"]
    assert (np.stack([state.position for state in states]) == frames["observation.state"]).all()
    actions = np.stack([message.data for _, message in seen["/action"]])
    assert actions.dtype == np.float64 and (actions == frames["action"]).all()
    depth = seen["/observation/depth/front"][2][1]
    assert (depth.encoding, depth.height, depth.width, depth.step) == ("16UC1", 16, 24, 48)
    assert (depth.data.view("<u2").reshape(16, 24) == frames["observation.depth.front"][2]).all()
    assert seen["/observation/images/wrist"][0][1].encoding == "rgb8"
    assert bytes(seen["/observation/images/front/compressed"][0][1].data[:2]) == b"\xff\xd8"
    assert [message.data for _, message in seen["/task"]] == ["task 0"]
    chunk = seen["/action_chunk"][0][1].layout.dim
    assert [(dimension.size, dimension.stride) for dimension in chunk] == [(4, 8), (2, 2)]
    times = [time for time, _ in seen["/action"]]
    assert times == [1_700_000_000_000_000_000 + k * 80_000_000 for k in range(5)]
    stamp = states[3].header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == times[3]


def test_the_mcap_library_reads_it_with_definitions_and_custom_data(demos, tmp_path):
    folder = exported(demos, tmp_path / "bags") / "episode_000001"
    with (folder / "episode_000001.mcap").open("rb") as file:
        reader = make_reader(file)
        messages = list(reader.iter_messages())
        assert reader.get_header().profile == "ros2"
    assert len(messages) == 1 + len(KEYS)
    assert all(schema.encoding == "ros2msg" and channel.message_encoding == "cdr" for schema, channel, _ in messages)
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["storage_identifier"], information["message_count"]) == ("mcap", 1 + len(KEYS))
    assert json.loads(information["custom_data"]["embodied"])["success"] is False


def test_a_bare_file_of_an_export_says_the_same(demos, tmp_path):
    folder = exported(demos, tmp_path / "bags") / "episode_000000"
    source = open_source(folder / "episode_000000.mcap")
    assert dict(source.keys) == dict(demos.keys) and next(source.episodes()).success is True


def test_another_rate_and_fewer_topics_can_be_asked_for(demos, tmp_path):
    folder = exported(demos, tmp_path / "bags") / "episode_000000"
    source = open_source(folder, fps=25, topics=["/action", "/observation/state"], align="interpolate")
    assert list(source.keys) == ["observation.state", "action", "timestamp"]
    (block,) = next(source.episodes()).blocks()
    actions = demos.read_episode(0)["action"]
    assert block["action"][::2] == pytest.approx(actions)
    assert block["action"][1::2] == pytest.approx((actions[1:] + actions[:-1]) / 2, abs=1e-6)
    assert block["timestamp"] == pytest.approx(np.arange(9) / 25)


def test_names_that_ros_does_not_allow_are_changed_and_come_back(tmp_path):
    keys = {"observation.images.0": KeySpec("uint8", (4, 4, 3)), "gripper-width (m)": KeySpec("float32", (1,))}
    with EpisodeStore.create(tmp_path / "s", keys=keys, fps=10) as store:
        store.append({key: random_frames(spec, 2) for key, spec in keys.items()}, task="")
    folder = exported(store, tmp_path / "bags") / "episode_000000"
    with AnyReader([folder]) as reader:
        assert set(reader.topics) == {"/observation/images/_0", "/gripper_width__m_", "/task"}
    assert set(open_source(folder).keys) == {*keys, "timestamp"}


def test_what_is_there_is_not_touched_and_wrong_options_get_one_message(demos, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        exported(demos, tmp_path / "there")
    for options, message in (
        ({"ros_distro": "humbel"}, "did you mean humble"),
        ({"images": "jpg"}, "did you mean jpeg"),
        ({"compression": "gzip"}, "choose one of none, zstd"),
    ):
        with pytest.raises(UsageError, match=message):
            exported(demos, tmp_path / "bags", **options)
    with EpisodeStore.create(tmp_path / "empty", keys={"action": KEYS["action"]}, fps=10) as empty:
        pass
    with pytest.raises(UsageError, match="has no episodes"):
        exported(empty, tmp_path / "bags")
    keys = {"a.b": KEYS["action"], "a-b": KEYS["action"], "a_b": KEYS["action"]}
    with EpisodeStore.create(tmp_path / "twins", keys=keys, fps=10) as twins:
        twins.append({key: random_frames(spec, 2) for key, spec in keys.items()}, task="")
    with pytest.raises(UsageError, match="would share a topic"):
        exported(twins, tmp_path / "bags")
    assert not (tmp_path / "bags").exists() and FORMAT.name == "mcap"


def test_a_failing_export_leaves_nothing(demos, tmp_path, monkeypatch):
    reads = iter(range(20))

    def failing(self, key, start, stop, original=EpisodeStore.read):
        if next(reads) == 17:
            raise OSError(28, "No space left on device")
        return original(self, key, start, stop)

    monkeypatch.setattr(EpisodeStore, "read", failing)
    with pytest.raises(UserError, match="no space left"):
        exported(demos, tmp_path / "out" / "bags")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_record_is_one_message(demos, tmp_path):
    folder = exported(demos, tmp_path / "bags") / "episode_000000"
    text = (folder / "metadata.yaml").read_text()
    for old, new in (('"fps": 12.5', '"fps": "x"'), ('"version": 1', '"version": [')):
        assert old in text
        (folder / "metadata.yaml").write_text(text.replace(old, new))
        with pytest.raises(UserError, match="record 'embodied'"):
            open_source(folder)
    (folder / "metadata.yaml").write_text(text.replace('"/action"', '"/actoin"'))
    with pytest.raises(UserError, match="/actoin, which holds action, is not in it"):
        open_source(folder)
    (folder / "metadata.yaml").write_text(text.replace('"version": 1', '"version": 2'))
    assert "/action" in open_source(folder, fps=10).keys  # of a newer embodied: an ordinary bag


def test_exporting_needs_rosbags_and_says_so(demos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
    with pytest.raises(MissingExtraError, match=r"rosbags is not installed: .*embodied-learning\[ros\]"):
        exported(demos, tmp_path / "bags")
    assert not (tmp_path / "bags").exists()
