"""`embodied pretrain objective=toto`, whole: with and without actions, of images, what it leaves, what it refuses."""

import pytest
import torch
from tiny_clips import tokenizer
from tiny_sequences import VIEW, make_store

from embodied.cli.main import main
from embodied.core.protocols import ACTION
from embodied.core.run_folder import read_metrics
from embodied.encoders.artifact import save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.toto import TotoEncoder
from embodied.objectives.video.trained import load_trained

SETTINGS = [
    *("encoder.size=null", "encoder.width=32", "encoder.depth=2", "encoder.heads=2", "video.frames=4", "device=cpu"),
    *("train.steps=4", "train.batch_size=8", "train.warmup_steps=2", "train.checkpoint_every=2", "panels_every=null"),
]


@pytest.fixture
def given(tmp_path):
    save_encoder(tokenizer(), tmp_path / "tokenizer", card="tiny\n")
    make_store(tmp_path / "robot", lengths=(7, 9, 6))
    places = [f"data={tmp_path / 'robot'}", f"video.tokenizer={tmp_path / 'tokenizer'}", f"run={tmp_path / 'run'}"]
    return ["pretrain", "objective=toto", *SETTINGS, *places]


@pytest.mark.parametrize("actions", ["false", "true"])
def test_leaves_an_encoder_and_what_predicts(tmp_path, given, actions):
    assert main([*given, f"encoder.actions={actions}", "objective.image_share=0.2"]) == 0
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    last = records[-1]
    assert {"loss", "code_nll", "later_nll", "accuracy", "copied"} <= last.keys()
    assert (tmp_path / "run" / "plots" / "predictions_000004.png").is_file()
    encoder = load_encoder(str(tmp_path / "run" / "encoder"))
    assert isinstance(encoder, TotoEncoder) and encoder.cameras == ("front",)
    assert encoder.sequence.sizes == {VIEW: 4, ACTION: 2 if actions == "true" else 0}
    trained = load_trained(tmp_path / "run")
    codes = torch.randint(16, (2, 6, 4), generator=torch.Generator().manual_seed(0))
    batch = {"codes": codes, ACTION: torch.zeros(2, 6, 2), "action_is_pad": torch.zeros(2, 6, dtype=torch.bool)}
    found = trained.objective.predict(batch, context=2, generator=torch.Generator().manual_seed(0))
    assert found.shape == codes.shape and torch.equal(found[:, :2], codes[:, :2])
    assert trained.context == 2 and int(found.max()) < 16


def test_of_single_images(tmp_path, given):
    assert main([*given, "video.frames=1"]) == 0
    encoder = load_encoder(str(tmp_path / "run" / "encoder"))
    features, _ = encoder({VIEW: torch.randint(0, 256, (2, 3, 16, 16, 3), dtype=torch.uint8)})
    assert features.shape == (2, 3, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["encoder.size=tiny"], "give either size=tiny or width, depth, heads (with size=null), not both"),
        (["encoder.read_depth=3"], "read_depth must be in [0, 2], the blocks, got 3"),
        (["objective.image_share=2"], "image_share and action_dropout must be in [0, 1]"),
        (["encoder.actions=true", "video.leave_out=[action]"], "encoder.actions=true, but the data has no actions"),
        (["video.frames=12"], "a clip of 12 frames, 1 apart, spans 12, and the longest episode or video has 9"),
        (["encoder.width=33"], "a width that is a multiple of twice heads=2"),
    ],
)
def test_what_makes_no_sense(given, settings, message, capsys):
    assert main([*given, *settings]) == 2
    shown = capsys.readouterr()
    assert message in " ".join((shown.err + shown.out).split()) and "Traceback" not in shown.err
