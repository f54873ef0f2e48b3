"""`embodied pretrain`, whole: from pictures and stores to an encoder that `embodied train` takes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from embodied.cli.main import main
from embodied.core.run_folder import read_metrics
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder

SETTINGS = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2"),
    *("train.steps=6", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=3", "device=cpu"),
]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def stores(tmp_path):
    for name in ("a", "b"):
        store = EpisodeStore.create(
            tmp_path / "stores" / name, keys={"observation.images.top": KeySpec("uint8", (32, 32, 3))}, fps=10.0
        )
        frames = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        store.append({"observation.images.top": frames}, task="look", seed=0, success=True)
        store.close()
    return tmp_path / "stores"


def pretrain(tmp_path, *more):
    return main(["pretrain", *SETTINGS, f"root={tmp_path / 'runs'}", *more])


def test_makes_an_encoder_from_photos_and_a_folder_of_stores(tmp_path, photos, stores):
    assert pretrain(tmp_path, f"data=[{photos},{stores}]", "weights=[0.5,0.5]") == 0
    (run,) = (tmp_path / "runs").iterdir()
    encoder = load_encoder(str(run / "encoder"))
    assert encoder.grid == (4, 4)
    card = (run / "encoder" / "README.md").read_text()
    assert "embodied pretrain" in card
    assert "**Frames:** 16" in card
    assert np.asarray(Image.open(run / "plots" / "reconstructions.png")).shape == (96, 8 * 32, 3)
    assert (run / "plots" / "loss.png").is_file()
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == [3, 6]


def test_same_seed_same_encoder_and_resuming_a_finished_run_changes_nothing(tmp_path, photos):
    for _ in range(2):
        assert pretrain(tmp_path, f"data={photos}") == 0
    assert pretrain(tmp_path, f"data={photos}", "resume=true") == 0
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name for run in runs] == ["pretrain-mae-seed0", "pretrain-mae-seed0-2"]
    prints = {fingerprint(load_encoder(str(run / "encoder"))) for run in runs}
    assert len(prints) == 1
    assert json.loads((runs[1] / "phases" / "pretrain.json").read_text())["seconds"] >= 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["weights=[1,2]"], "weights: expected 1 numbers"),
        (["encoder.patch_size=7"], "image_size must be a multiple of patch_size=7"),
        (["objective.mask_ratio=1.5"], "mask_ratio must be in (0, 1), got 1.5"),
        (["train.precision=fp8"], "unknown train.precision 'fp8': choose one of bf16, fp32"),
        (["train.steps=0"], "train.steps must be a whole number"),
        (["weights=[often]"], "weights: expected 1 numbers, one per entry of data, got ['often']"),
        (["encoder.heads=0"], "heads must be a whole number of at least 1, got 0"),
        (["+encoder.std=[1,1,0]"], "std must be positive, got [1, 1, 0]"),
        (["train.learning_rate=null"], "train.learning_rate must be a number, got None"),
        (["train.weight_decay_end=low"], "must be a number that is not negative, or null, got 'low'"),
        (["train.betas=null"], "train.betas must be two numbers in [0, 1), got []"),
    ],
)
def test_wrong_settings_say_what_is_right(tmp_path, photos, capsys, settings, message):
    assert pretrain(tmp_path, f"data={photos}", *settings) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_picture_is_named(tmp_path, photos, capsys):
    (photos / "broken.png").write_bytes(b"no picture")
    assert pretrain(tmp_path, f"data={photos}") == 1
    assert "broken.png" in capsys.readouterr().err.replace("\n", "")
    assert pretrain(tmp_path, f"data={photos}", "on_error=skip") == 0


TINY = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("train.steps=2", "train.batch_size=4", "train.accumulate=2", "train.warmup_steps=1", "device=cpu"),
]


def test_a_tokenizer_then_beit(tmp_path, photos):
    common = ["pretrain", *TINY, f"data={photos}"]
    assert main([*common, "objective=vq", "objective.codes=8", f"run={tmp_path / 'vq'}"]) == 0
    assert (tmp_path / "vq" / "tokenizer.safetensors").is_file()
    assert main([*common, "objective=beit", f"objective.tokenizer={tmp_path / 'vq'}", f"run={tmp_path / 'beit'}"]) == 0
    config = (tmp_path / "beit" / "config.yaml").read_text()
    assert "clip: 3.0" in config  # the method's own
    assert load_encoder(str(tmp_path / "beit" / "encoder")).width == 24


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("pixio", ["objective.grid=2"]),
        ("maskfeat", ["train.average=0.9"]),
        ("mfm", ["train.schedule=schedule_free"]),
        ("ropim", []),
        ("droppos", ["objective.mask_ratio=0.5"]),
        ("aim", ["train.clip=1.5"]),
        ("densecl", ["objective.hidden=16", "objective.queue=8"]),
        ("macrl", ["objective.queue=8"]),
        ("tokenunify", []),
        ("distill", ["objective.teacher=default"]),
        ("diffmae", ["train.layer_decay=0.9"]),
        ("dino", ["objective.local_patches=2", "objective.hidden=16", "objective.prototypes=8"]),
        ("ibot", ["objective.local_patches=2", "objective.hidden=16", "objective.prototypes=8"]),
    ],
)
def test_every_objective_from_its_yaml(tmp_path, photos, objective, more):
    assert main(["pretrain", *TINY, f"data={photos}", f"objective={objective}", *more, f"run={tmp_path / 'run'}"]) == 0
    encoder = load_encoder(str(tmp_path / "run" / "encoder"))
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    tokens, out = encoder(encoder.preprocess(torch.from_numpy(frames)))
    assert tokens.shape == (2, 16, 24)
    config = (tmp_path / "run" / "config.yaml").read_text()
    if objective == "aim":
        assert "cls" not in out
        assert "clip: 1.5" in config  # the command line has the last word
    if objective == "pixio":
        assert out["class_tokens"].shape == (2, 8, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["objective=beit"], "objective.tokenizer: give the run folder of embodied pretrain objective=vq"),
        (["objective=pixio", "objective.grid=3"], "grid must divide the encoder's 4x4 patches, got 3"),
        (["objective=aim", "encoder.class_tokens=1"], "AIM needs an encoder of patches alone"),
        (["train.accumulate=3"], "train.accumulate must divide train.batch_size=4, got 3"),
        (["train.schedule=cosin"], "did you mean cosine"),
        (["train.scale_learning_rate=linea"], "did you mean linear"),
        (["train.betas=[0.9,2]"], "train.betas must be two numbers in [0, 1)"),
    ],
)
def test_wrong_objectives_say_what_is_right(tmp_path, photos, capsys, settings, message):
    assert main(["pretrain", *TINY, f"data={photos}", *settings, f"root={tmp_path / 'runs'}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()
