"""The examples of docs/data.md and docs/controllers.md, one after the other: arrays, a store, a policy, an action."""

import re
from pathlib import Path

import numpy as np
import pytest

from embodied.cli.main import main
from embodied.core.reporting import SilentReporter
from embodied.datasets import importing
from embodied.datasets.formats import open_source
from embodied.datasets.key_proposal import propose
from embodied.datasets.store.episode_store import EpisodeStore

DOCS = Path(__file__).parents[2] / "docs"


def block(page, containing):
    """The Python of a page in which these words are."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_arrays_become_a_store_that_a_policy_learns_from_and_acts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(block("data.md", 'EpisodeStore.create("stores/mine"'), {})
    store = EpisodeStore.open("stores/mine")
    assert store.lengths == [50] * 4 and store.robot == "my_arm" and store.episodes[0].task == "pour the tea"
    command = "train data=stores/mine env=none run=run encoder=pixels device=cpu train.steps=4 train.checkpoints=1"
    assert main([*command.split(), "train.batch_size=8", "policy.hidden=[8]", f"cache={tmp_path / 'cache'}"]) == 0
    (file,) = Path("run/checkpoints").glob("step_*.safetensors")
    source = block("controllers.md", "policy.act(carry, observation)")
    assert source.count("<run>/checkpoints/step_002000.safetensors") == 1
    made = {}
    exec(source.replace("<run>/checkpoints/step_002000.safetensors", str(file)), made)
    assert made["chunk"].shape[0] == 1 and made["chunk"].shape[2] == 7 and made["chunk"].isfinite().all()
    said = capsys.readouterr().out
    assert "'image_size': 128" in said and "front" in said


def test_hdf5_files_of_aloha_become_a_store(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    for number in (0, 1):
        with h5py.File(f"recordings/episode_{number}.hdf5", "w") as file:
            file["action"] = np.full((3 + number, 14), number, np.float64)
            file["observations/qpos"] = np.full((3 + number, 14), 0.5)
            file["observations/images/top"] = np.full((3 + number, 480, 640, 3), 90, np.uint8)
    exec(block("data.md", "h5py"), {})
    store = EpisodeStore.open("stores/aloha")
    assert store.lengths == [3, 4] and [info.origin for info in store.episodes] == ["episode_0", "episode_1"]
    assert store.keys["observation.images.top"].codec == "jpeg" and store.fps == 50
    assert (store.read_episode(1)["action"] == 1).all()


def test_an_import_in_python_is_as_its_module_says(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    with h5py.File("demo.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.ones((3, 2))
        file["data/demo_0/obs/robot0_eef_pos"] = np.ones((3, 3))
        file["data"].attrs["env_args"] = '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'
    made = {"open_source": open_source, "propose": propose, "SilentReporter": SilentReporter, **vars(importing)}
    lines = [line for line in importing.__doc__.splitlines() if line.startswith("    ")]
    exec("\n".join(map(str.strip, lines)), made)
    assert EpisodeStore.open("store").read_episode(0)["action"].tolist() == [[1, 1]] * 3
