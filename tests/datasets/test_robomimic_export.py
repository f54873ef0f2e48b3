"""A store goes out as robomimic reads it, whole or not at all."""

import errno
import json
import os
import subprocess

import h5py
import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.exporters.robomimic import export
from embodied.datasets.importers.robomimic import open_source
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

FRONT = "observation.images.front"
KEYS = {
    FRONT: KeySpec("uint8", (8, 6, 3)),
    "observation.depth.front": KeySpec("uint16", (8, 6)),
    "observation.state": KeySpec("float32", (3,)),
    "action": KeySpec("float32", (2,)),
    "timestamp": KeySpec("float64", ()),
}


def store_arrays(seed, length, keys):
    rng = np.random.default_rng(seed)
    every = {
        FRONT: rng.integers(0, 256, (length, 8, 6, 3), dtype=np.uint8),
        "observation.depth.front": rng.integers(0, 60_000, (length, 8, 6), dtype=np.uint16),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        "timestamp": np.arange(length) / 20,
        "next.success": np.arange(length) > 1,
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.done": np.arange(length) == 0,
    }
    return {key: every[key] for key in keys}


def make_store(path, keys=KEYS, lengths=(4, 6)):
    with EpisodeStore.create(path, keys=keys, fps=20, robot="arm") as store:
        for seed, length in enumerate(lengths):
            store.append(store_arrays(seed, length, keys), task=f"task {seed}", seed=seed, success=seed == 1)
    return EpisodeStore.open(path)


class Notes(SilentReporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_an_export_has_robomimics_structure(tmp_path):
    store, reporter, path = make_store(tmp_path / "store"), Notes(), tmp_path / "out" / "demo.hdf5"
    export(store, path, reporter=reporter, filter_keys={"train": [1], "valid": [0]})
    with h5py.File(path) as file:
        assert file["data"].attrs["total"] == 10
        env_args = json.loads(file["data"].attrs["env_args"])
        assert env_args == {"env_name": "task 0", "type": 2, "env_kwargs": {}}
        assert sorted(file["data"]) == ["demo_0", "demo_1"] and file["mask/train"][:].tolist() == [b"demo_1"]
        for number, length in enumerate((4, 6)):
            demo, arrays = file[f"data/demo_{number}"], store_arrays(number, length, KEYS)
            assert demo.attrs["num_samples"] == length
            assert sorted(demo["obs"]) == sorted(demo["next_obs"]) == ["front_depth", "front_image", "state"]
            assert np.array_equal(demo["obs/front_image"], arrays[FRONT])
            assert np.array_equal(demo["obs/front_depth"][..., 0], arrays["observation.depth.front"])
            assert demo["obs/front_depth"].dtype == np.uint16
            assert np.array_equal(demo["actions"], arrays["action"])
            assert np.array_equal(demo["dones"], [0] * (length - 1) + [1])
            assert np.array_equal(demo["rewards"], [0] * (length - 1) + [number])
            assert demo["states"].shape == (length, 0) and np.array_equal(demo["timestamp"], arrays["timestamp"])
            expected = np.concatenate([arrays[FRONT][1:], arrays[FRONT][-1:]])
            assert np.array_equal(demo["next_obs/front_image"], expected)
    assert any("rewards" in note for note in reporter.notes) and any("next_obs" in note for note in reporter.notes)


def test_next_obs_is_right_across_blocks(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", lengths=(11, 1))
    monkeypatch.setattr("embodied.datasets.importers.foreign_keys.BLOCK_BYTES", 2 * 8 * 6 * 3)
    export(store, tmp_path / "demo.hdf5", reporter=SilentReporter(), compression="gzip")
    with h5py.File(tmp_path / "demo.hdf5") as file:
        for number, length in enumerate((11, 1)):
            arrays = store_arrays(number, length, KEYS)
            for name, key in (("front_image", FRONT), ("state", "observation.state")):
                obs, following = (file[f"data/demo_{number}/{part}/{name}"][:] for part in ("obs", "next_obs"))
                assert np.array_equal(obs, arrays[key])
                assert np.array_equal(following, np.concatenate([obs[1:], obs[-1:]]))


def test_rewards_and_ends_are_the_stores_own_where_it_has_them(tmp_path):
    keys = {**KEYS, "next.reward": KeySpec("float32", ()), "next.done": KeySpec("bool", ())}
    export(make_store(tmp_path / "a", keys), tmp_path / "a.hdf5", reporter=SilentReporter(), next_obs=False)
    with h5py.File(tmp_path / "a.hdf5") as file:
        arrays = store_arrays(1, 6, keys)
        assert np.array_equal(file["data/demo_1/rewards"], arrays["next.reward"])
        assert np.array_equal(file["data/demo_1/dones"], arrays["next.done"]) and "next_obs" not in file["data/demo_1"]
    keys = {**KEYS, "next.success": KeySpec("bool", ())}
    export(make_store(tmp_path / "b", keys), tmp_path / "b.hdf5", reporter=SilentReporter())
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert np.array_equal(file["data/demo_1/rewards"], [0, 0, 1, 1, 1, 1])


def test_what_robomimic_cannot_take_is_refused_and_nothing_is_left(tmp_path):
    store, path = make_store(tmp_path / "store"), tmp_path / "demo.hdf5"
    with EpisodeStore.create(tmp_path / "wide", keys=KEYS, fps=20) as wide:
        arrays = store_arrays(0, 4, KEYS)
        wide.append({**arrays, "action": arrays["action"] * 0 + 3}, task="", seed=0, success=True)
    with pytest.raises(UsageError, match=r"actions in \[-1, 1\].* from 3 to 3.*options\.any_actions=true"):
        export(wide, path, reporter=SilentReporter())
    only_action = make_store(tmp_path / "no_obs", {"action": KEYS["action"]})
    with pytest.raises(UsageError, match="needs observations"):
        export(only_action, path, reporter=SilentReporter())
    with pytest.raises(UsageError, match="episodes 0 to 1, got 7"):
        export(store, path, reporter=SilentReporter(), filter_keys={"train": [0, 7]})
    with pytest.raises(UsageError, match="filter_keys must name lists"):
        export(store, path, reporter=SilentReporter(), filter_keys=[0, 1])
    with pytest.raises(UsageError, match="env_args must be a mapping"):
        export(store, path, reporter=SilentReporter(), env_args="Lift")
    with pytest.raises(UsageError, match="compression must be"):
        export(store, path, reporter=SilentReporter(), compression="zip")
    assert [item.name for item in tmp_path.iterdir() if "demo.hdf5" in item.name] == []
    export(wide, path, reporter=SilentReporter(), any_actions=True)
    with pytest.raises(UserError, match="exists already"):
        export(store, path, reporter=SilentReporter())


def test_an_export_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    store, path = make_store(tmp_path / "store"), tmp_path / "demo.hdf5"
    reads = []

    def broken(key, start, stop):
        reads.append(key)
        if len(reads) > 6:
            raise UserError("damaged")
        return EpisodeStore.read(store, key, start, stop)

    monkeypatch.setattr(store, "read", broken)
    with pytest.raises(UserError, match="damaged"):
        export(store, path, reporter=SilentReporter())
    assert [item.name for item in tmp_path.iterdir() if "demo" in item.name] == []


def test_a_full_disk_ends_an_export_with_one_message(tmp_path, monkeypatch):
    store, path, room = make_store(tmp_path / "store", lengths=(30, 30)), tmp_path / "demo.hdf5", [20_000]
    pwrite = os.pwrite

    def limited(descriptor, data, offset):
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", limited)
    with pytest.raises(UserError, match="no space left on the disk"):
        export(store, path, reporter=SilentReporter())
    assert [item.name for item in tmp_path.iterdir() if "demo" in item.name] == []


def test_an_export_comes_back_as_it_was(tmp_path):
    store, path = make_store(tmp_path / "store"), tmp_path / "demo.hdf5"
    export(store, path, reporter=SilentReporter(), filter_keys={"valid": [1]})
    source = open_source(path)
    assert source.fps == 20
    assert [(e.task, e.seed, e.success, e.notes.get("filter_keys")) for e in source.episodes()] == [
        ("task 0", 0, False, None),
        ("task 1", 1, True, ["valid"]),
    ]
    (block,) = list(source.episodes())[1].blocks()
    assert np.array_equal(block["obs.front_image"], store_arrays(1, 6, KEYS)[FRONT])
    source.close()


ROBOMIMIC_READS = """
import inspect, json, sys, numpy as np
import robomimic.utils.obs_utils as ObsUtils
from robomimic.utils.dataset import SequenceDataset
path, newer = sys.argv[1], "action_keys" in inspect.signature(SequenceDataset).parameters
specs = {"rgb": ["front_image"], "depth": ["front_depth"], "low_dim": ["state"]}
ObsUtils.initialize_obs_utils_with_obs_specs({"obs": specs})
keys = {"dataset_keys": ("actions", "rewards", "dones")}
if newer:
    keys |= {"action_keys": ("actions",), "action_config": {"actions": {"normalization": None}}}
total, sums = 0, 0.0
for mode in ("all", "low_dim", None):
    for only in (None, "train"):
        data = SequenceDataset(path, obs_keys=("front_image", "front_depth", "state"), frame_stack=2, seq_length=3,
                               goal_mode="last", hdf5_cache_mode=mode, filter_by_attribute=only, **keys)
        for index in range(len(data)):
            item = data[index]
            total += 1
            sums += float(item["obs"]["state"].sum() + item["actions"].sum() + item["next_obs"]["front_image"].mean())
states = data.get_trajectory_at_index(0)["obs"]["state"].tolist()
print(json.dumps({"total": total, "finite": bool(np.isfinite(sums)), "states": states}))
"""


@pytest.mark.slow
def test_robomimic_itself_loads_an_export(tmp_path):
    python = os.environ.get("ROBOMIMIC_PYTHON")
    if not python:
        pytest.skip("ROBOMIMIC_PYTHON does not name a Python that has robomimic 0.3")
    path = tmp_path / "demo.hdf5"
    export(make_store(tmp_path / "store"), path, reporter=SilentReporter(), filter_keys={"train": [1], "valid": [0]})
    done = subprocess.run([python, "-c", ROBOMIMIC_READS, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["total"] == 3 * (10 + 6) and found["finite"]
    assert np.array_equal(found["states"], store_arrays(1, 6, KEYS)["observation.state"].tolist())
