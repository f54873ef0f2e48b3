"""`embodied pretrain` of models of videos, whole: a tokenizer, codes, clips, an encoder that predicts, and resuming."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_clips import tokenizer, write_film
from tiny_sequences import VIEW, make_store

from embodied.cli import pretrain_video, window_training
from embodied.cli.config import compose_config
from embodied.cli.main import main
from embodied.cli.reporter import RichReporter
from embodied.core.errors import UserError
from embodied.core.protocols import ACTION
from embodied.core.run_folder import read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.clip_sources import Codes
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.tokenizer import FOLDER, FrameTokenizer, load_frame_tokenizer
from embodied.objectives.video.trained import load_trained

SETTINGS = [
    *("encoder.width=32", "encoder.depth=1", "encoder.heads=2", "video.frames=4", "objective.context=2", "device=cpu"),
    *("train.steps=6", "train.batch_size=8", "train.warmup_steps=2", "train.checkpoint_every=3", "panels_every=3"),
]
TOKENIZER = [
    *("encoder.image_size=16", "encoder.patch_size=8", "train.steps=4", "train.batch_size=8", "train.warmup_steps=1"),
    *("train.checkpoint_every=2", "panels_every=null", "objective.codes=16", "device=cpu"),
]


@pytest.fixture
def made(tmp_path):
    save_encoder(tokenizer(), tmp_path / "tokenizer", card="tiny\n")
    return tmp_path / "tokenizer"


def pretrain(tmp_path, made, *more, objective="maskvit"):
    places = [f"root={tmp_path / 'runs'}", f"video.tokenizer={made}"]
    return main(["pretrain", f"objective={objective}", *SETTINGS, *places, *more])


@pytest.fixture
def data(tmp_path):
    make_store(tmp_path / "data" / "robot", lengths=(7, 9, 6, 3))
    make_store(tmp_path / "data" / "video", lengths=(6, 8), keys=(VIEW,), first_seed=4)
    return [f"data={tmp_path / 'data'}", "holdout=0.4", "holdout_every=3"]


def test_makes_an_artifact_that_rebuilds_itself(tmp_path, made, data, capsys):
    assert pretrain(tmp_path, made, *data) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "1 of 4 episodes are shorter than the 4 frames of a clip" in told
    assert "21 clips of 4 frames, 2 x 2 of 16 codes, with action (2 values) and observation.state (3 values)" in told
    run = tmp_path / "runs" / "pretrain-maskvit-seed0"
    encoder = load_encoder(str(run / "encoder"))
    assert fingerprint(encoder.frames) == fingerprint(load_encoder(str(made)))
    assert encoder.cameras == ("front",)
    card = (run / "encoder" / "README.md").read_text()
    assert "| clips of a store |" in card and fingerprint(encoder.frames) in card
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records if "loss" in record] == [3, 6]
    assert [record["step"] for record in records if "holdout_loss" in record] == [0, 3, 6]
    assert sorted(path.name for path in (run / "plots").iterdir()) == [
        *("loss.png", "predictions_000003.png", "predictions_000006.png"),
    ]
    assert pretrain(tmp_path, made, *data, "resume=true") == 0
    assert fingerprint(load_encoder(str(run / "encoder"))) == fingerprint(encoder)


@pytest.mark.parametrize(
    ("settings", "noted"), [((), True), (("video.leave_out=[action]",), False), (("noise=0",), False)]
)
def test_actions_that_were_not_executed_are_said(tmp_path, made, settings, noted, capsys):
    noise = 0.0 if "noise=0" in settings else 0.1
    merged = {"edit": {"sources": [{"provenance": {"collect": {"noise": noise}}}]}}
    store = make_store(tmp_path / "store", lengths=(7, 9), provenance=merged)
    assert pretrain(tmp_path, made, f"data={store}", "holdout=0", *(s for s in settings if s != "noise=0")) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ("was collected with collect.noise=0.1: its actions are those that the expert wanted" in told) == noted


def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path, made, data, monkeypatch):
    assert pretrain(tmp_path, made, *data, f"run={tmp_path / 'whole'}") == 0
    batches = window_training.batches

    def fail(*arguments, **options):
        read = batches(*arguments, **options)

        def broken(step):
            if step == 4:
                raise KeyboardInterrupt
            return read(step)

        return broken

    with monkeypatch.context() as patched:
        patched.setattr(window_training, "batches", fail)
        with pytest.raises(KeyboardInterrupt):
            pretrain_video.pretrain_video(*_config(tmp_path, made, data))
    assert not (tmp_path / "halves" / "encoder").exists()
    assert pretrain(tmp_path, made, *data, f"run={tmp_path / 'halves'}", "resume=true") == 0
    prints = [fingerprint(load_encoder(str(tmp_path / name / "encoder"))) for name in ("whole", "halves")]
    assert prints[0] == prints[1]
    records = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "halves")]
    losses = [[record["loss"] for record in found if "loss" in record] for found in records]
    assert losses[0] == losses[1]


def _config(tmp_path, made, data):
    overrides = ["objective=maskvit", *SETTINGS, f"root={tmp_path / 'runs'}", f"video.tokenizer={made}", *data]
    return compose_config("pretrain", [*overrides, f"run={tmp_path / 'halves'}"]), overrides


def test_another_tokenizer_or_other_data_do_not_go_on_with_a_run(tmp_path, made, data, capsys):
    run = [f"run={tmp_path / 'run'}", "holdout=0.0"]
    assert pretrain(tmp_path, made, *data, *run) == 0
    save_encoder(tokenizer(seed=1), made, card="another one in the same place\n")
    assert pretrain(tmp_path, made, *data, *run, "resume=true") == 1
    assert "was trained on the codes of tokenizer" in " ".join(capsys.readouterr().err.split())
    save_encoder(tokenizer(), made, card="tiny\n")
    make_store(tmp_path / "data" / "more", lengths=(6,), first_seed=40)
    encoder = load_trained(tmp_path / "run").objective.encoder
    assert fingerprint(encoder.frames) == fingerprint(tokenizer())
    assert pretrain(tmp_path, made, *data, *run, "resume=true") == 1
    assert "have changed since it began" in " ".join(capsys.readouterr().err.split())
    encoder.frames.decoder.head.bias.data += 1
    save_encoder(encoder, tmp_path / "run" / "encoder", card="with another tokenizer\n")
    with pytest.raises(UserError, match="run was trained on the codes of tokenizer"):
        load_trained(tmp_path / "run")


def test_films_alone_and_a_stride(tmp_path, made, capsys):
    write_film(tmp_path / "films" / "a.avi", frames=9)
    (tmp_path / "films" / "b.avi").write_bytes(b"no video")
    assert pretrain(tmp_path, made, f"data={tmp_path / 'films'}", "video.stride=2") == 0
    assert "3 clips of 4 frames, 2 apart, 2 x 2 of 16 codes;" in " ".join(capsys.readouterr().out.split())
    encoder = load_encoder(str(tmp_path / "runs" / "pretrain-maskvit-seed0" / "encoder"))
    assert encoder.sequence.sizes[ACTION] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["video.frames=0"], "video.frames must be a whole number of at least 1"),
        (["video.frames=30"], "a clip of 30 frames, 1 apart, spans 30, and the longest episode or video has 9"),
        (["video.stride=half"], "video.stride must be a whole number"),
        (["video.tokenizer=nowhere/run"], "no tokenizer at nowhere/run: train one with embodied pretrain objective=vq"),
        (["video.camera=fron"], "unknown camera 'fron': did you mean front"),
        (["video.frame=3"], "did you mean video.frames"),
        (["objective.context=4"], "context must leave one of the 4 frames"),
        (["encoder.heads=5"], "heads"),
        (["encoder.patch_size=8"], "encoder.patch_size: frames are encoded by video.tokenizer"),
        (["probe=store"], "probe is for objectives that learn from frames"),
        (["holdout=1.5"], "holdout must be in [0, 1)"),
    ],
)
def test_bad_settings_say_what_is_wrong_and_leave_no_run(tmp_path, made, data, capsys, settings, message):
    assert pretrain(tmp_path, made, *data, *settings) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("network", ["vit", "conv"])
def test_a_tokenizer_is_trained_and_used(tmp_path, capsys, network):
    store = make_store(tmp_path / "store", lengths=(9, 8))
    chosen = {"vit": ["objective=vq", "encoder.width=16", "encoder.depth=1", "encoder.heads=2"]}
    chosen["conv"] = ["objective=vqgan", "encoder.width=32", "objective.decoder_width=32", "objective.perceptual=0.0"]
    chosen["conv"] += ["objective.adversarial_start=2", "objective.discriminator_layers=1"]
    run = tmp_path / "tokenizer_run"
    assert main(["pretrain", *chosen[network], *TOKENIZER, f"data={store}", f"run={run}"]) == 0
    made = load_frame_tokenizer(run)
    assert isinstance(made, FrameTokenizer) and (made.vocabulary, made.grid) == (16, (2, 2))
    assert fingerprint(load_encoder(str(run / FOLDER))) == fingerprint(made)
    assert (run / "tokenizer.safetensors").exists() == (network == "vit")
    last = [record for record in read_metrics(run / "metrics.jsonl") if "loss" in record][-1]
    assert {"perplexity", "codes_used", "pixel_error"} <= last.keys()
    assert ("discriminator_error" in last) == (network == "conv")
    assert pretrain(tmp_path, run, f"data={store}") == 0
    before = json.loads((tmp_path / "runs" / "pretrain-maskvit-seed0" / "phases" / "data.json").read_text())
    assert before["result"]["tokenizer"] == fingerprint(made)


def test_the_clips_that_are_held_out_are_found_again(tmp_path, made, data):
    """`embodied predict` judges on them: the split depends on data, share and seed alone."""
    config, _ = _config(tmp_path, made, data)
    tokens = load_frame_tokenizer(made)
    codes = Codes(tokenizer=tokens, fingerprint=fingerprint(tokens))
    reporter = RichReporter(Console(quiet=True))
    clips = pretrain_video.open_data(config, codes, device=torch.device("cpu"), reporter=reporter)
    trained, _ = window_training.split(config, clips)
    held = clips.hold_out(0.4, seed=derive_seed(0, "holdout"))[1]
    assert len(trained) + len(held) == len(clips)
    assert np.intersect1d(trained.sources[0].starts, held.sources[0].starts).size == 0
