"""Folders as TensorFlow Datasets writes them, with the features of real Open-X data, import value for value."""

import logging
import zlib

import numpy as np
import pytest
from rlds_folders import (
    BRIDGE,
    PREFIX,
    bridge_episode,
    decode,
    encode,
    features_dict,
    image,
    read,
    sequence,
    steps,
    tensor,
    text,
    write,
    write_bridge,
    write_one,
)

from embodied.core.errors import UsageError, UserError
from embodied.datasets.importers.rlds import FORMAT, open_source
from embodied.datasets.loading.bfloat16 import to_bfloat16
from embodied.datasets.store.episode_index import KeySpec


@pytest.fixture
def bridge(tmp_path):
    return write_bridge(tmp_path)


def test_a_bridge_folder_gives_every_value(bridge):
    folder, episodes = bridge
    source = open_source(folder, fps=5)
    assert (len(source), source.fps, source.robot) == (3, 5.0, "")
    assert source.keys["observation/image_0"] == KeySpec("uint8", (16, 24, 3), codec="jpeg")
    assert source.keys["action"] == KeySpec("float32", (7,))
    assert source.keys["is_last"] == KeySpec("bool", ())
    assert "language_instruction" not in source.keys
    found = list(source.episodes())
    assert [episode.length for episode in found] == [4, 3, 5]
    for episode, written in zip(found, episodes, strict=True):
        values = read(episode)
        assert values.keys() == source.keys.keys()
        for key, spec in source.keys.items():
            data, kind = written[f"steps/{key}"]
            expected = np.stack([decode(item) for item in data]) if kind == "byte" else np.asarray(data, spec.dtype)
            assert values[key].dtype == spec.dtype
            assert np.array_equal(values[key], expected.reshape(-1, *spec.shape)), key
    source.close()


def test_an_episode_has_its_instruction_and_metadata(bridge):
    folder, _ = bridge
    episodes = list(open_source(folder, fps=5).episodes())
    assert [e.origin for e in episodes] == [
        "bridge-train.tfrecord-00000-of-00002:0",
        "bridge-train.tfrecord-00000-of-00002:1",
        "bridge-train.tfrecord-00001-of-00002:0",
    ]
    assert {e.task for e in episodes} == {"put the carrot on the plate"}
    assert episodes[2].notes == {"file_path": "/data/2.npy", "has_image_0": True, "episode_id": 2}
    assert episodes[0].success is None


def test_blocks_are_small_and_can_be_read_again(bridge, monkeypatch):
    monkeypatch.setattr("embodied.datasets.importers.rlds.BLOCK_BYTES", 8000)
    folder, _ = bridge
    episode = next(open_source(folder, fps=5).episodes())
    assert [len(block["action"]) for block in episode.blocks()] == [1, 1, 1, 1]
    assert np.array_equal(read(episode)["action"], read(episode)["action"])


def test_the_folder_above_gives_its_newest_version(bridge, tmp_path):
    folder, episodes = bridge
    write(folder.parent / "1.10.0", BRIDGE, episodes[:1])
    assert len(open_source(folder.parent, fps=5)) == 1
    assert FORMAT.recognizes(folder) and FORMAT.recognizes(folder.parent) and FORMAT.recognizes(tmp_path)
    assert not FORMAT.recognizes(folder / "features.json") and not FORMAT.recognizes(tmp_path / "absent")


def test_two_data_sets_in_one_folder_are_a_question(bridge, tmp_path):
    write(tmp_path / "fractal" / "1.0.0", BRIDGE, [bridge_episode(2, 0)])
    with pytest.raises(UsageError, match=r"holds 2 data sets.*bridge/1\.0\.0, fractal/1\.0\.0"):
        open_source(tmp_path, fps=5)


def test_splits_are_chosen_by_name(bridge):
    folder, _ = bridge
    write(folder, BRIDGE, [bridge_episode(2, 9)], split="val")
    assert len(open_source(folder, fps=5, split="val")) == 1
    assert len(open_source(folder, fps=5, split="all")) == 4
    with pytest.raises(UsageError, match=r"unknown split 'vall': did you mean .*val"):
        open_source(folder, fps=5, split="vall")


def test_a_partial_download_is_read_and_said(bridge, caplog):
    folder, _ = bridge
    (folder / "bridge-train.tfrecord-00000-of-00002").unlink()
    with caplog.at_level(logging.WARNING):
        source = open_source(folder, fps=5)
    assert len(source) == 1 and source.provenance["missing_shards"] == 1
    assert "1 of 2 shards are not there" in caplog.text


def test_a_shard_with_fewer_records_than_said_is_noticed(bridge, caplog):
    folder, episodes = bridge
    splits = [{"name": "train", "shardLengths": ["2", "3"], "numBytes": "1"}, {"name": "val", "shardLengths": "?"}]
    write(folder, BRIDGE, episodes[:2], episodes[2:], info={"splits": splits})
    with caplog.at_level(logging.WARNING):
        assert len(list(open_source(folder, fps=5).episodes())) == 3
    assert caplog.messages == ["bridge-train.tfrecord-00001-of-00002 has 1 records, but its dataset_info.json says 3"]


def test_shards_of_two_downloads_are_not_mixed(bridge):
    folder, _ = bridge
    write(folder, BRIDGE, [bridge_episode(2, 0)])
    with pytest.raises(UserError, match=r"of-00001 and .*of-00002.*not of one download"):
        open_source(folder, fps=5)


def test_the_rate_must_be_given(bridge):
    folder, _ = bridge
    with pytest.raises(UsageError, match="give fps"):
        open_source(folder)
    with pytest.raises(UsageError, match="fps must be positive, got 0"):
        open_source(folder, fps=0)


def test_values_can_be_left_out(bridge):
    folder, _ = bridge
    source = open_source(folder, fps=5, exclude=["language_embedding", "observation/image_1"])
    assert read(next(source.episodes())).keys() == source.keys.keys()
    assert not {"language_embedding", "observation/image_1"} & source.keys.keys()
    with pytest.raises(UsageError, match=r"unknown key to exclude 'observation/image_2': did you mean"):
        open_source(folder, fps=5, exclude=["observation/image_2"])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float64"])
def test_tensors_of_every_dtype(tmp_path, dtype):
    values = np.array([[0, 1, 1], [1, 0, 1]]) if dtype == "bool" else np.array([[0, 7, 100], [3, 2, 1]])
    written = (values.ravel(), "float" if dtype.startswith("float") else "int")
    source = open_source(write_one(tmp_path, {"x": written}, x=tensor(dtype, 3)), fps=1)
    found = read(next(source.episodes()))["x"]
    assert found.dtype == dtype and np.array_equal(found, values.astype(dtype))


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([[0.5, -2.0], [1.5, 256.0]], np.float32)
    raw = [to_bfloat16(row).tobytes() for row in values]
    written = {"plain": (values.ravel(), "float"), "raw": (raw, "byte")}
    features = {"plain": tensor("bfloat16", 2), "raw": tensor("bfloat16", 2, encoding="bytes")}
    source = open_source(write_one(tmp_path, written, **features), fps=1)
    found = read(next(source.episodes()))
    assert np.array_equal(found["plain"], values) and np.array_equal(found["raw"], values)
    assert source.keys["raw"] == KeySpec("float32", (2,))


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_encoded_tensors_of_fixed_and_open_shape(tmp_path, encoding):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    pack = zlib.compress if encoding == "zlib" else bytes
    packed = [pack(step.tobytes()) for step in values]
    written = {"fixed": (packed, "byte"), "open/value": (packed, "byte"), "open/shape": ([3, 4, 3, 4], "int")}
    features = {
        "fixed": tensor("int16", 3, 4, encoding=encoding),
        "open": tensor("int16", -1, -1, encoding=encoding),
    }
    found = read(next(open_source(write_one(tmp_path, written, **features), fps=1).episodes()))
    assert np.array_equal(found["fixed"], values) and np.array_equal(found["open"], values)


def test_a_deflated_tensor_cannot_fill_the_memory(tmp_path):
    bomb = zlib.compress(bytes(1 << 26))
    folder = write_one(tmp_path, {"x": ([bomb, bomb], "byte")}, x=tensor("uint8", 4, encoding="zlib"))
    with pytest.raises(UserError, match=r"step 0 of steps/x in record 0 .* 5 bytes, which are no uint8 \[4\]"):
        open_source(folder, fps=1)


def test_a_tensor_with_one_open_size_gets_the_size_it_has(tmp_path):
    source = open_source(write_one(tmp_path, {"x": (list(range(12)), "int")}, x=tensor("int32", -1, 3)), fps=1)
    assert source.keys["x"] == KeySpec("int32", (2, 3))
    assert np.array_equal(read(next(source.episodes()))["x"], np.arange(12).reshape(2, 2, 3))


def test_depth_images_keep_every_bit(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (2, 4, 6), dtype=np.uint16)
    floats = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    floats[0, 0, 0] = np.float32(1e-40)  # all of its bits, denormals too
    gray = np.arange(48, dtype=np.uint8).reshape(2, 4, 6)
    written = {
        "deep": ([encode(step, "PNG") for step in deep], "byte"),
        "floats": ([encode(step.view(np.uint8).reshape(4, 6, 4), "PNG") for step in floats], "byte"),
        "gray": ([encode(step, "PNG") for step in gray], "byte"),
    }
    features = {
        "deep": image(4, 6, 1, dtype="uint16", encoding="png"),
        "floats": image(4, 6, 1, dtype="float32", encoding="png"),
        "gray": image(-1, -1, 1, encoding="png"),
    }
    source = open_source(write_one(tmp_path, written, **features), fps=1)
    assert source.keys["deep"] == KeySpec("uint16", (4, 6)) and source.keys["floats"] == KeySpec("float32", (4, 6))
    found = read(next(source.episodes()))
    assert np.array_equal(found["deep"], deep) and np.array_equal(found["gray"], gray)
    assert np.array_equal(found["floats"].view(np.uint32), floats.view(np.uint32))


def test_png_pictures_stay_lossless_and_gray_jpegs_become_colour(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    written = {
        "png": ([encode(step, "PNG") for step in picture], "byte"),
        "gray": ([encode(step[:, :, 0]) for step in picture], "byte"),
    }
    source = open_source(write_one(tmp_path, written, png=image(4, 6, 3), gray=image(4, 6, 3)), fps=1)
    assert source.keys["png"].codec == "zstd" and source.keys["gray"] == KeySpec("uint8", (4, 6, 3), codec="jpeg")
    assert np.array_equal(read(next(source.episodes()))["png"], picture)


def test_sequences_of_one_length_are_arrays_and_others_are_left_out(tmp_path, caplog):
    written = {
        "even/ragged_flat_values": ([1.0, 2.0, 3.0, 4.0], "float"),
        "even/ragged_row_lengths_0": ([2, 2], "int"),
        "odd/ragged_flat_values": ([1.0, 2.0, 3.0], "float"),
        "odd/ragged_row_lengths_0": ([2, 1], "int"),
    }
    features = {"even": sequence(tensor("float32")), "odd": sequence(tensor("float32"))}
    features["sound"] = {"pythonClassName": "my_lab.features.Sound", "jsonFeature": {"json": "{}"}}
    with caplog.at_level(logging.WARNING):
        source = open_source(write_one(tmp_path, written, **features), fps=1)
    assert read(next(source.episodes()))["even"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert source.provenance["left_out"] == {
        "odd": "sequences of different lengths, or empty",
        "sound": "features of the kind Sound are not read",
    }
    assert "left out: sound (features of the kind Sound" in caplog.text


def test_an_instruction_in_character_codes_and_the_success_are_understood(tmp_path):
    codes = np.zeros((2, 32), int)
    codes[:, :9] = list("öffne es".encode())
    episode = {
        "steps/observation/instruction": (codes.ravel(), "int"),
        "steps/observation/note": ([b"a", b"a"], "byte"),
        "episode_metadata/success": ([0], "int"),
        "episode_metadata/gains": ([0.5, 2.0], "float"),
        "episode_metadata/embedding": (np.zeros(512), "float"),
        "episode_metadata/poster": ([encode(np.zeros((8, 8, 3), np.uint8))], "byte"),
    }
    features = features_dict(
        steps=steps(observation=features_dict(instruction=tensor("int32", 32), note=text())),
        episode_metadata=features_dict(
            success=tensor("bool"),
            gains=tensor("float32", 2),
            embedding=tensor("float32", 512),
            poster=image(8, 8, 3),
        ),
    )
    source = open_source(write(tmp_path / "1.0.0", features, [episode]), fps=10)
    (found,) = source.episodes()
    assert (found.task, found.success) == ("öffne es", False)
    assert found.notes == {"success": False, "gains": [0.5, 2.0], "observation/note": "a"}
    (found,) = open_source(tmp_path, fps=10, task_key="observation/note").episodes()
    assert found.task == "a"
    with pytest.raises(UsageError, match="unknown task_key 'nota'"):
        open_source(tmp_path, fps=10, task_key="nota")


def test_the_older_features_file_is_read_too(tmp_path):
    def old(name, content):
        return {"type": PREFIX + name, "content": content}

    features = old(
        "features_dict.FeaturesDict",
        {
            "steps": old(
                "dataset_feature.Dataset",
                {
                    "feature": old(
                        "features_dict.FeaturesDict",
                        {
                            "action": old("tensor_feature.Tensor", {"shape": [2], "dtype": "float32"}),
                            "image": old("image_feature.Image", {"shape": [None, None, 3], "dtype": "uint8"}),
                            "reward": old("scalar.Scalar", {"dtype": "float64"}),
                            "goal": old("text_feature.Text", {}),
                        },
                    ),
                    "length": None,
                },
            )
        },
    )
    picture = np.full((4, 6, 3), 9, np.uint8)
    episode = {
        "steps/action": ([1.0, 2.0, 3.0, 4.0], "float"),
        "steps/image": ([encode(picture, "PNG")] * 2, "byte"),
        "steps/reward": ([0.0, 1.0], "float"),
        "steps/goal": ([b"g", b"g"], "byte"),
    }
    found = read(next(open_source(write(tmp_path / "1.0.0", features, [episode]), fps=1).episodes()))
    assert found["action"].tolist() == [[1.0, 2.0], [3.0, 4.0]] and (found["image"] == picture).all()
    assert found["reward"].tolist() == [0.0, 1.0]


def test_an_episode_without_steps_is_passed_over(bridge, caplog):
    folder, episodes = bridge
    empty = {name: ([], kind) for name, (_, kind) in episodes[0].items()}
    write(folder, BRIDGE, [empty], [episodes[0]])
    with caplog.at_level(logging.WARNING):
        found = list(open_source(folder, fps=5).episodes())
    assert [episode.length for episode in found] == [4] and "has no steps and is passed over" in caplog.text
