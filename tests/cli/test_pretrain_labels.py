"""`embodied pretrain` on labelled pictures: folders of classes and Visual Atoms."""

import json

import numpy as np
import pytest
from PIL import Image

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.core.run_folder import read_metrics
from embodied.encoders.load import load_encoder

SETTINGS = [
    *("encoder.image_size=16", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("train.learning_rate=1e-2", "train.batch_size=12", "train.warmup_steps=2", "device=cpu"),
]
HUES = {"ball": (200, 60, 60), "cube": (60, 200, 60), "disc": (60, 60, 200)}


@pytest.fixture
def folder(tmp_path):
    """Noise around a colour for each class, each with its own number of pictures."""
    random = np.random.default_rng(0)
    for number, (name, hue) in enumerate(HUES.items()):
        (tmp_path / "things" / name).mkdir(parents=True)
        for picture in range(4 + number):
            noise = random.integers(-60, 61, (20, 24, 3))
            pixels = np.clip(np.array(hue) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "things" / name / f"{picture}.png")
    return tmp_path / "things"


def pretrain(tmp_path, *more):
    return main(["pretrain", *SETTINGS, f"run={tmp_path / 'run'}", *more])


@pytest.mark.parametrize("loss", ["cross_entropy", "look"])
def test_classes_of_a_folder_are_learned(tmp_path, folder, loss):
    options = ["objective=supervised", f"objective.loss={loss}", "objective.bank=8", "objective.neighbours=3"]
    assert pretrain(tmp_path, f"data={folder}", *options, "train.steps=40") == 0
    first, *_, last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > 0.8  # chance: 0.4
    assert load_encoder(str(tmp_path / "run" / "encoder")).grid == (2, 2)
    path = tmp_path / "run" / "classifier.safetensors"
    assert path.is_file() == (loss == "cross_entropy")
    if path.is_file():
        tensors, settings = load_checkpoint(path)
        assert settings["classes"] == list(HUES)
        assert tensors["weight"].shape == (3, 24)


def test_visual_atoms_need_no_data(tmp_path):
    atoms = ["visual_atoms.classes=4", "visual_atoms.frames=24"]
    assert pretrain(tmp_path, "objective=visual_atoms", *atoms, "train.steps=2", "objective.mixup=0.5") == 0
    (record,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert np.isfinite(record["loss"]) and 0 <= record["accuracy"] <= 1
    assert load_checkpoint(tmp_path / "run" / "classifier.safetensors")[0]["bias"].shape == (4,)
    assert "visual_atoms" in (tmp_path / "run" / "encoder" / "README.md").read_text()


def test_what_goes_wrong_gives_one_message_and_no_run_folder(tmp_path, folder, capsys):
    for arguments, message in [
        ([f"data={folder / 'ball'}"], "has no labels: classes are folders"),
        ([f"data={folder}", "objective.classes=2"], "objective.classes must be at least 3, as in data; got 2"),
        ([f"data={folder}", "objective.loss=lok"], "unknown loss 'lok': did you mean look?"),
        ([f"data={folder}", "objective.loss=look", "objective.cutmix=1.0"], "loss=look knows no mixed pictures"),
        (["data=visual_atoms", "visual_atoms.classes=1"], "at least two classes to tell apart, got 1"),
    ]:
        assert pretrain(tmp_path, "objective=supervised", *arguments, "train.steps=2") == 2
        captured = capsys.readouterr()
        assert message in " ".join(captured.err.split()) and "Traceback" not in captured.err
        assert not (tmp_path / "run").exists()


def test_the_objectives_are_listed(capsys):
    assert main(["list", "objectives", "--json"]) == 0
    assert {"supervised", "visual_atoms"} <= json.loads(capsys.readouterr().out).keys()
