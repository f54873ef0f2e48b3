"""robomimic files come in with every bit, and broken ones give one message."""

import json
import random

import h5py
import numpy as np
import pytest

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.importers.robomimic import FORMAT, open_source
from embodied.datasets.store.episode_index import KeySpec

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}


def demo_arrays(seed, length):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (length + 1, 12, 10, 3), dtype=np.uint8)
    depth = rng.normal(size=(length + 1, 12, 10, 1)).astype(np.float32)
    eef = rng.normal(size=(length + 1, 3))
    return {
        "actions": rng.uniform(-1, 1, (length, 7)),
        "rewards": np.zeros(length),
        "dones": (np.arange(length) == length - 1).astype(np.int64),
        "states": rng.normal(size=(length, 5)),
        "obs/agentview_image": image[:-1],
        "obs/agentview_depth": depth[:-1],
        "obs/robot0_eef_pos": eef[:-1],
        "next_obs/agentview_image": image[1:],
        "next_obs/agentview_depth": depth[1:],
        "next_obs/robot0_eef_pos": eef[1:],
    }


def write(path, lengths=(4, 6, 3), *, order=None, env_args=ENV_ARGS, **file_options):
    with h5py.File(path, "w", **file_options) as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps(env_args)
        for number in order or range(len(lengths)):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = lengths[number]
            demo.attrs["model_file"] = "<mujoco/>" * 1000
            for name, array in demo_arrays(number, lengths[number]).items():
                demo.create_dataset(name, data=array, chunks=True, compression="gzip" if "image" in name else None)
        file["mask/train"] = np.array(["demo_2", "demo_0"], dtype="S")
        file["mask/valid"] = np.array(["demo_1"], dtype="S")
    return path


def read_all(source):
    """Per origin, all arrays end to end."""
    found = {}
    for episode in source.episodes():
        blocks = list(episode.blocks())
        found[episode.origin] = {key: np.concatenate([block[key] for block in blocks]) for key in source.keys}
    source.close()
    return found


def test_every_value_arrives_under_its_dotted_name(tmp_path):
    source = open_source(write(tmp_path / "demo.hdf5"))
    assert len(source) == 3 and source.fps == 20 and source.robot == "Panda"
    assert source.keys["obs.agentview_image"] == KeySpec("uint8", (12, 10, 3))
    assert source.keys["obs.agentview_depth"] == KeySpec("float32", (12, 10, 1))
    assert source.keys["dones"] == KeySpec("int64", ())
    assert not any(key.startswith("next_obs") for key in source.keys)
    episodes = list(source.episodes())
    assert [(e.origin, e.length, e.task, e.success) for e in episodes] == [
        ("demo_0", 4, "Lift", None),
        ("demo_1", 6, "Lift", None),
        ("demo_2", 3, "Lift", None),
    ]
    assert episodes[1].notes == {"filter_keys": ["valid"]}
    assert source.provenance["env_args"] == ENV_ARGS
    for number, (_, arrays) in enumerate(read_all(source).items()):
        for name, expected in demo_arrays(number, (4, 6, 3)[number]).items():
            if not name.startswith("next_obs"):
                got = arrays[name.replace("/", ".")]
                assert got.dtype == expected.dtype and np.array_equal(got, expected)


def test_demonstrations_come_in_robomimics_order_and_by_filter_key(tmp_path):
    path = write(tmp_path / "demo.hdf5", [1] * 12, order=[11, 2, 10, 0, 1, 3, 4, 5, 6, 7, 8, 9])
    assert [e.origin for e in open_source(path).episodes()] == [f"demo_{number}" for number in range(12)]
    assert [e.origin for e in open_source(path, filter_key="train").episodes()] == ["demo_0", "demo_2"]
    with pytest.raises(UsageError, match=r"unknown filter key of .*'trian': did you mean train"):
        open_source(path, filter_key="trian")


def test_long_episodes_come_in_blocks(tmp_path, monkeypatch):
    path = write(tmp_path / "demo.hdf5", [50])
    frame_bytes = sum(a.nbytes // 50 for name, a in demo_arrays(0, 50).items() if not name.startswith("next_obs"))
    monkeypatch.setattr("embodied.datasets.importers.foreign_keys.BLOCK_BYTES", 8 * frame_bytes)
    (episode,) = open_source(path).episodes()
    lengths = [len(block["actions"]) for block in episode.blocks()]
    assert lengths == [8] * 6 + [2]
    assert np.array_equal(read_all(open_source(path))["demo_0"]["actions"], demo_arrays(0, 50)["actions"])


def test_the_rate_is_asked_for_where_the_file_does_not_say_it(tmp_path):
    path = write(tmp_path / "demo.hdf5", env_args={"env_name": "real", "type": 2, "env_kwargs": {}})
    with pytest.raises(UsageError, match=r"does not say its rate \(control_freq\).*options\.fps=20"):
        open_source(path)
    assert open_source(path, fps=12.5).fps == 12.5


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("data/demo_0:ep_meta", {"lang": "open the drawer"}),
        ("data:problem_info", {"language_instruction": "open the drawer"}),
    ],
)
def test_the_instruction_is_the_task(tmp_path, attribute, value):
    path = write(tmp_path / "demo.hdf5")
    where, name = attribute.split(":")
    with h5py.File(path, "a") as file:
        file[where].attrs[name] = json.dumps(value)
    assert next(open_source(path).episodes()).task == "open the drawer"


def test_states_that_differ_are_left_out_with_a_warning(tmp_path, caplog):
    path = write(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/states"]
        file["data/demo_1/states"] = np.zeros((6, 9))
    source = open_source(path)
    assert "states" not in source.keys and "float64 [T, 9] in demo_1" in source.provenance["left_out"]["states"]
    assert "left out states" in caplog.text
    assert list(read_all(source)) == ["demo_0", "demo_1", "demo_2"]


def test_a_demonstration_without_a_camera_is_refused_and_the_others_are_not(tmp_path):
    path = write(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/agentview_image"]
    source = open_source(path)
    first, second, third = source.episodes()
    assert list(first.blocks()) and list(third.blocks())
    with pytest.raises(
        UserError, match=r"agentview_image of demo_1 is missing.*options\.exclude=\[obs\.agentview_image\]"
    ):
        list(second.blocks())
    assert "demo_1" in read_all(open_source(path, exclude=["obs.agentview_image"]))
    with pytest.raises(UsageError, match="unknown key to exclude"):
        open_source(path, exclude="obs.agentview")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["data"].pop("demo_0") and f["data"].pop("demo_1") and f["data"].pop("demo_2"), "no demonstr"),
        (lambda f: f.pop("data"), "has no group data"),
        (lambda f: f["data/demo_0"].pop("actions"), "demo_0 has no actions"),
        (lambda f: f["data/demo_0"].attrs.__setitem__("num_samples", 9), "4 actions and says num_samples=9"),
        (lambda f: f["data"].attrs.__setitem__("env_args", "{"), "env_args of /data is not JSON"),
        (lambda f: f["data"].attrs.__setitem__("env_args", "[" * 100_000), "env_args of /data is not JSON"),
        (lambda f: f["mask"].create_dataset("bad", data=np.array(["demo_9"], "S")), "mask/bad lists demo_9"),
    ],
)
def test_files_that_lack_something_say_what(tmp_path, change, message):
    path = write(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UserError, match=message):
        open_source(path, filter_key="bad" if "mask" in message else None)


def test_nothing_outside_the_file_is_opened(tmp_path):
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["obs"] = np.ones((4, 3))
    linked, virtual, external, soft = (write(tmp_path / f"{n}.hdf5") for n in ("linked", "virtual", "external", "soft"))
    with h5py.File(linked, "a") as file:
        file["data/demo_0/obs/extra"] = h5py.ExternalLink(str(secret), "/obs")
    with h5py.File(virtual, "a") as file:
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "obs", (4, 3))
        file["data/demo_0/obs"].create_virtual_dataset("extra", layout)
    with h5py.File(external, "a") as file:
        raw = [(str(secret), 0, h5py.h5f.UNLIMITED)]
        file["data/demo_0/obs"].create_dataset("extra", (4, 3), "f8", external=raw)
    with h5py.File(soft, "a") as file:
        file["data/demo_0/obs/loop"] = h5py.SoftLink("/data")
    for path, message in ((linked, "a link to"), (virtual, "in other files"), (external, "in other"), (soft, "a link")):
        with pytest.raises(UserError, match=message):
            read_all(open_source(path))


def test_circles_of_groups_end(tmp_path):
    path = write(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/again"] = file["data/demo_0"]
    with pytest.raises(UserError, match="too many or too deep"):
        open_source(path)


def test_frames_that_were_never_written_are_not_zeros(tmp_path):
    path = write(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs"].create_dataset("hole", (4, 2), "f4", chunks=(1, 2))[0] = 1
        file["data/demo_1/obs"].create_dataset("hole", (6, 2), "f4")[:] = 1
        file["data/demo_2/obs"].create_dataset("hole", (3, 2), "f4")
    first, second, third = open_source(path).episodes()
    assert list(second.blocks())
    for episode in (first, third):
        with pytest.raises(UserError, match="never written"):
            list(episode.blocks())


def test_huge_pieces_are_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "demo.hdf5"
    write(path)
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs"].create_dataset("big", (4, 1 << 20, 1 << 12), "u1", chunks=(1, 1 << 20, 1 << 9))
    with pytest.raises(UserError, match="more than 268,435,456 bytes"):
        read_all(open_source(path))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/big"]
        file["data/demo_0/obs"].create_dataset("big", (4, 1 << 30), "u1", chunks=(1, 1))
    with pytest.raises(UserError, match="more than 268,435,456 bytes"):
        read_all(open_source(path))


def test_other_files_are_not_taken_for_robomimics(tmp_path):
    text, other = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    text.write_text("no HDF5")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    good = write(tmp_path / "c.hdf5")
    assert [FORMAT.recognizes(path) for path in (text, other, tmp_path, tmp_path / "none", good)] == [False] * 4 + [
        True
    ]
    with pytest.raises(UserError, match="not an HDF5 file"):
        open_source(text)
    with pytest.raises(UserError, match="no file at"):
        open_source(tmp_path / "none")


def test_a_missing_h5py_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "demo.hdf5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert FORMAT.recognizes(path)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[hdf5\]"):
        open_source(path)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_files_give_one_message_or_read(tmp_path, libver):
    whole = write(tmp_path / "whole.hdf5", libver=libver).read_bytes()
    outcomes = {"read": 0, "refused": 0}
    for seed in range(80):
        rng = random.Random(seed)
        data = bytearray(whole)
        if seed % 4 == 0:
            data = data[: rng.randrange(len(data))]
        for _ in range(rng.choice([0, 1, 4, 30]) if seed % 4 == 0 else rng.choice([1, 4, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256) if data else 0
        path = tmp_path / f"{seed}.hdf5"
        path.write_bytes(data)
        try:
            read_all(open_source(path, fps=10))
            outcomes["read"] += 1
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10
