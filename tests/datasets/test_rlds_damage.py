"""Folders of TensorFlow Datasets that are damaged, or unlike their features: one message, and the others go on."""

import json

import numpy as np
import pytest
from rlds_folders import BRIDGE, encode, features_dict, image, read, steps, tensor, write, write_bridge

from embodied.core.errors import UserError
from embodied.datasets.importers.rlds import open_source


@pytest.fixture
def bridge(tmp_path):
    return write_bridge(tmp_path)


def test_a_flipped_byte_is_found_when_its_episode_is_read(bridge):
    folder, _ = bridge
    path = folder / "bridge-train.tfrecord-00000-of-00002"
    data = bytearray(path.read_bytes())
    data[-2000] ^= 4
    path.write_bytes(data)
    first, second, third = open_source(folder, fps=5).episodes()
    with pytest.raises(UserError, match=r"record 1 of .*00000-of-00002 \(at byte \d+\) is damaged: its checksum"):
        list(second.blocks())
    assert len(read(first)["action"]) == 4 and len(read(third)["action"]) == 5


def test_damage_in_the_first_record_leaves_the_others(bridge):
    folder, _ = bridge
    path = folder / "bridge-train.tfrecord-00000-of-00002"
    data = bytearray(path.read_bytes())
    data[500] ^= 4
    path.write_bytes(data)
    first, second, _ = open_source(folder, fps=5).episodes()
    with pytest.raises(UserError, match=r"record 0 .* is damaged"):
        list(first.blocks())
    assert len(read(second)["action"]) == 3


def changed(episode, **values):
    return episode | {f"steps/{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reward": ([0.0], "float")}, "steps/observation/image_0 has 4 steps, but steps/reward has 1"),
        ({"action": (np.zeros(30), "float")}, r"has 4\.28571 steps"),
        ({"is_first": ([1, 0, 0, 2], "int")}, "steps/is_first: 2 does not fit bool, unlike features.json"),
        ({"observation/state": ([b"x"] * 28, "byte")}, "expected float32, got bytes"),
        ({"observation/image_0": ([b"junk"] * 4, "byte")}, "step 0 of steps/observation/image_0 .* cannot be read"),
        (
            {"observation/image_0": ([encode(np.zeros((8, 8, 3), np.uint8))] * 4, "byte")},
            r"uint8 \[8, 8, 3\], but features.json says uint8 \[16, 24, 3\]",
        ),
    ],
)
def test_a_record_unlike_features_json_is_one_message(bridge, values, message):
    folder, episodes = bridge
    write(folder, BRIDGE, [episodes[1]], [changed(episodes[0], **values)])
    _, broken = open_source(folder, fps=5).episodes()
    with pytest.raises(UserError, match=message):
        list(broken.blocks())


def test_a_picture_whose_size_changes_is_one_message(tmp_path):
    small, large = (encode(np.zeros((size, size, 3), np.uint8), "PNG") for size in (8, 9))
    features = features_dict(steps=steps(image=image(-1, -1, 3), is_first=tensor("bool")))
    episodes = [
        {"steps/image": ([first, second], "byte"), "steps/is_first": ([1, 0], "int")}
        for first, second in ((small, small), (large, large), (small, large))
    ]
    _, other, mixed = open_source(write(tmp_path / "1.0.0", features, episodes), fps=1).episodes()
    with pytest.raises(UserError, match=r"image of record 1 .* is \[9, 9, 3\] per step, not \[8, 8, 3\], unlike"):
        list(other.blocks())
    with pytest.raises(UserError, match=r"changes its shape, \[8, 8, 3\] to \[9, 9, 3\]: leave it out .*image"):
        list(mixed.blocks())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps({"featuresDict": {"features": {"steps": {"sequence": {}}}}}), "damaged, or not as TFDS writes it"),
        (json.dumps(features_dict(steps=steps(x=tensor("int32", "many")))), "damaged, or not as TFDS writes it"),
        (json.dumps(features_dict(image=image(4, 4, 3))), "names no steps"),
        (json.dumps(features_dict(steps=steps(x=tensor("complex64")))), "holds no steps with a value"),
    ],
)
def test_a_broken_features_file_is_one_message(bridge, content, message):
    folder, _ = bridge
    (folder / "features.json").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(folder, fps=5)


def test_folders_without_what_is_needed_are_one_message(tmp_path, bridge):
    folder, _ = bridge
    with pytest.raises(UserError, match="there is no folder"):
        open_source(tmp_path / "absent", fps=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no features\.json"):
        open_source(tmp_path / "empty", fps=5)
    for shard in folder.glob("*.tfrecord*"):
        shard.unlink()
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record"}))
    with pytest.raises(UserError, match=r"says array_record\): only TFRecord is read"):
        open_source(folder, fps=5)


def test_noise_in_features_and_records_never_crashes(bridge):
    folder, _ = bridge
    generator = np.random.default_rng(0)
    files = [folder / "features.json", folder / "bridge-train.tfrecord-00001-of-00002"]
    refused = 0
    for attempt in range(40):
        path = files[attempt % 2]
        whole = path.read_bytes()
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 3):
            data[position] = generator.integers(256)
        path.write_bytes(data)
        try:
            for episode in open_source(folder, fps=5).episodes():
                read(episode)
        except UserError:
            refused += 1
        path.write_bytes(whole)
    assert refused > 20
