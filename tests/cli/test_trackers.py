"""Trackers get every record and picture, stay offline unless told otherwise, and go on where a resumed run does."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from embodied.cli.trackers import open_tracker
from embodied.core.run_folder import RunFolder

TRACK = textwrap.dedent("""
    import sys
    from pathlib import Path
    from embodied.cli.trackers import check_tracker, open_tracker
    from embodied.core.run_folder import RunFolder
    name, run, picture = sys.argv[1:]
    check_tracker(name)
    for done in (0, 1):  # a new run, and the same one resumed
        with open_tracker(name, RunFolder(run), {"train": {"steps": 2}}, done=done) as tracker:
            tracker.log({"step": done, "loss": 0.5 - done, "bad": float("nan"), "text": "left out"})
            tracker.show(done, Path(picture))
""")


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", config_yaml="a: 1\n", config_hash="abc", command="embodied pretrain")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "reconstructions_000001.png"
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(path)
    return path


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module that notes what it is told."""
    told = []
    module = ModuleType("wandb")
    opened = SimpleNamespace(
        log=lambda values, step: told.append(("log", step, values)),
        finish=lambda exit_code=0: told.append(("finish", exit_code)),
    )
    module.init = lambda **given: told.append(("init", given)) or opened
    module.Image = lambda pixels: ("image", pixels.shape)
    module.Settings = lambda **given: given
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return told


def test_wandb_is_offline_and_told_everything(run, picture, fake_wandb):
    with open_tracker("wandb", run, {"seed": 1}, done=0) as tracker:
        tracker.log({"step": 3, "loss": 0.5, "name": "text"})
        tracker.show(3, picture)
    (_, given), *rest = fake_wandb
    assert (given["mode"], given["resume"], given["config"], given["dir"]) == (
        "offline",
        "allow",
        {"seed": 1},
        str(run.path),
    )
    shown = {"reconstructions": ("image", (4, 6, 3))}
    assert rest == [("log", 3, {"loss": 0.5}), ("log", 3, shown), ("finish", 0)]


def test_wandb_mode_has_the_last_word_and_a_resumed_run_its_identity(run, fake_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    for done in (0, 5):
        with open_tracker("wandb", run, {}, done=done):
            pass
    first, second = (given for name, given in (event for event in fake_wandb if event[0] == "init"))
    assert first["mode"] == "online"
    assert first["id"] == second["id"]


def test_wandb_is_told_of_a_run_that_broke(run, fake_wandb):
    with pytest.raises(RuntimeError), open_tracker("wandb", run, {}, done=0):
        raise RuntimeError
    assert fake_wandb[-1] == ("finish", 1)


def track(name, run, picture, **variables):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")
    command = [sys.executable, "-c", TRACK, name, str(run.path), str(picture)]
    result = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_the_real_wandb(run, picture):
    track("wandb", run, picture)
    first, second = sorted((run.path / "wandb").glob("offline-run-*"))
    assert first.name.rsplit("-", 1)[1] == second.name.rsplit("-", 1)[1]  # one run
    assert list(first.glob("files/media/images/*.png"))


def test_the_real_trackio(run, picture, tmp_path):
    track("trackio", run, picture, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "embodied.db") as database:
        rows = database.execute("select step, metrics from metrics order by step, id").fetchall()
    assert [step for step, _ in rows] == [0, 0, 1, 1]
    logged = [json.loads(text) for _, text in rows]
    assert [each for each in logged if "reconstructions" not in each] == [{"loss": 0.5}, {"loss": -0.5}]
