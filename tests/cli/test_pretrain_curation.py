"""`embodied pretrain` leaves out frames that show little, and draws those that an earlier run found easy seldom."""

import shutil

import numpy as np
import pytest
from PIL import Image

from embodied.cli import pretrain as verb
from embodied.cli.config import compose_config, identity
from embodied.cli.main import main

SETTINGS = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2", "device=cpu"),
    *("train.steps=2", "train.batch_size=4", "train.warmup_steps=1"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four pictures of noise, the first the weakest, and three of one colour; an earlier run on them."""
    root = tmp_path_factory.mktemp("curation")
    (root / "photos").mkdir()
    random = np.random.default_rng(0)
    for number, spread in enumerate((20, 120, 120, 120, 0, 0, 0)):
        pixels = 128 + random.integers(-spread, spread + 1, (40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "photos" / f"{number}.png")
    assert main(["pretrain", *SETTINGS, f"data={root / 'photos'}", f"run={root / 'first'}", "train.average=0.9"]) == 0
    return root


def test_what_is_drawn(tmp_path, root, capsys, monkeypatch):
    drawn = []

    def train(objective, batches, **settings):
        drawn.extend(np.concatenate([batches.indices(step) for step in range(500)]))
        return original(objective, batches, **settings)

    original = verb.pretrain
    monkeypatch.setattr(verb, "pretrain", train)
    given = [f"data={root / 'photos'}", "curate_entropy=4.5", f"curate_loss={root / 'first'}"]
    assert main(["pretrain", *SETTINGS, *given, f"run={tmp_path / 'run'}", f"cache={tmp_path / 'cache'}"]) == 0
    assert set(drawn) == {0, 1, 2, 3}
    shares = np.bincount(drawn) / len(drawn)
    assert shares[0] < 0.7 * shares[1:].min()  # the weak one is easy
    told = " ".join(capsys.readouterr().out.split())
    assert "curation: 4 of 7 frames are drawn, at 0." in told and "on average (photos 4 of 7)" in told


def test_what_is_not_asked_for_leaves_runs_of_before_the_same():
    assert not [name for name in identity(compose_config("pretrain", [])) if name.startswith("curate")]
    assert identity(compose_config("pretrain", ["curate_entropy=4.5"]))["curate_entropy"] == 4.5


def test_mistakes(tmp_path, root, capsys):
    blind, bare = tmp_path / "blind", tmp_path / "bare"
    shutil.copytree(root / "first", blind)
    text = (blind / "config.yaml").read_text()
    (blind / "config.yaml").write_text(text.replace("masked.mae.MAE", "masked.droppos.DropPos"))
    shutil.copytree(root / "first", bare)
    (bare / "checkpoints" / "state.safetensors").unlink()
    for settings, code, message in [
        (["curate_entropy=8"], 2, "curate_entropy must be a number of bits in [0, 8), or null, got 8"),
        (["curate_entropy=low"], 2, "or null, got 'low'"),
        (["curate_entropy=7.99"], 2, "leave no frame of data: the most that a frame has are"),
        ([f"curate_loss={root / 'photos'}"], 1, "photos is not a run folder"),
        ([f"curate_loss={blind}"], 2, "DropPos does not rebuild frames"),
        ([f"curate_loss={bare}"], 1, "let the pre-training run for a while"),
    ]:
        given = ["pretrain", *SETTINGS, f"data={root / 'photos'}", f"cache={tmp_path / 'cache'}", *settings]
        assert main([*given, f"root={tmp_path / 'runs'}"]) == code
        error = " ".join(capsys.readouterr().err.split())
        assert message in error and "Traceback" not in error
        assert not (tmp_path / "runs").exists()
