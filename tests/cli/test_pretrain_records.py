"""What a pre-training shows: the loss on frames that it never trains on, pictures while it trains, trackers."""

import importlib.util
import struct

import numpy as np
import pytest
from PIL import Image
from square_store import write_square_store

from embodied.cli import pretrain as verb
from embodied.cli.main import main
from embodied.core.run_folder import read_metrics
from embodied.datasets.loading.frame_dataset import FrameDataset

SETTINGS = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2", "device=cpu"),
    *("train.steps=4", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=2"),
]


def make_photos(folder, count=8, seed=0):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")


def pretrain(run, *more):
    return main(["pretrain", *SETTINGS, f"run={run}", *more])


def records(run, name):
    return [record for record in read_metrics(run / "metrics.jsonl") if name in record]


def test_held_out_frames_are_looked_at_and_never_trained_on(tmp_path, photos, monkeypatch, capsys):
    store = write_square_store(tmp_path / "store")  # 5 episodes of 6 frames
    seen, trained = [], set()
    read = FrameDataset.read

    def watched(self, indices):
        seen.append(set(np.asarray(indices).tolist()))
        return read(self, indices)

    def train(objective, batches, **settings):
        for step in range(40):
            trained.update(batches.indices(step).tolist())
        return original(objective, batches, **settings)

    original = verb.pretrain
    monkeypatch.setattr(FrameDataset, "read", watched)
    monkeypatch.setattr(verb, "pretrain", train)
    data = [f"data=[{photos},{store}]", "holdout=0.25", "holdout_every=2"]
    assert pretrain(tmp_path / "run", *data) == 0
    assert "38 frames, 8 of them held out" in " ".join(capsys.readouterr().out.split())
    held = set(range(38)) - trained
    assert len([index for index in held if index < 8]) == 2
    episodes = {(index - 8) // 6 for index in held if index >= 8}
    assert len(episodes) == 1 and len(held) == 8  # one whole episode
    assert any(batch & held for batch in seen)
    assert not any(batch & held and batch & trained for batch in seen)
    losses = records(tmp_path / "run", "holdout_loss")
    assert [record["step"] for record in losses] == [0, 2, 4]
    assert len({record["holdout_loss"] for record in losses}) == 3


def test_the_loss_held_out_is_the_same_for_the_same_weights_and_changes_nothing(tmp_path, photos):
    others = make_photos(tmp_path / "others", seed=1)
    still = [f"data={photos}", "train.learning_rate=1e-30", "train.weight_decay=0.0"]
    assert pretrain(tmp_path / "still", *still, f"holdout_data={others}", "holdout_every=1") == 0
    losses = [record["holdout_loss"] for record in records(tmp_path / "still", "holdout_loss")]
    assert len(losses) == 5
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-6)
    assert pretrain(tmp_path / "plain", *still) == 0
    plain, beside = ([record["loss"] for record in records(tmp_path / name, "loss")] for name in ("plain", "still"))
    assert plain == beside
    assert pretrain(tmp_path / "plain", *still, f"holdout_data={others}", "resume=true") == 0  # no other run


def test_panels_come_and_stay(tmp_path, photos):
    assert pretrain(tmp_path / "run", f"data={photos}", "panels_every=3", "holdout=0.3") == 0
    plots = tmp_path / "run" / "plots"
    assert sorted(path.name for path in plots.glob("reconstructions*")) == [
        "reconstructions.png",
        "reconstructions_000003.png",
        "reconstructions_000004.png",
    ]
    first, last, final = (np.asarray(Image.open(path)) for path in sorted(plots.glob("recon*"), reverse=True)[::-1])
    assert last.shape == (96, 2 * 32, 3)  # the two that are held out
    np.testing.assert_array_equal(first, final)  # the same frames, masks and weights
    masked, other = first[:32], last[:32]
    np.testing.assert_array_equal(masked, other)
    assert (first[32:64] != last[32:64]).any()
    assert pretrain(tmp_path / "none", f"data={photos}", "panels_every=null") == 0
    assert [path.name for path in (tmp_path / "none" / "plots").glob("recon*")] == ["reconstructions.png"]


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["holdout=1.0"], 2, "holdout must be in [0, 1), a share of the data, got 1.0"),
        (["holdout=0.1", "holdout_data=elsewhere"], 2, "choose one"),
        (["holdout_data=elsewhere"], 1, "no episode store and no folder of images, videos or shards at elsewhere"),
        (["holdout_data=SAME"], 2, "photos is in data too"),
        (["holdout_every=0"], 2, "holdout_every must be a whole number"),
        (["panels_every=0"], 2, "panels_every must be a whole number"),
        (["tracker=tensorbord"], 2, "did you mean tensorboard"),
    ],
)
def test_mistakes(tmp_path, photos, capsys, settings, code, message):
    settings = [each.replace("SAME", str(photos)) for each in settings]
    assert main(["pretrain", *SETTINGS, f"data={photos}", *settings, f"root={tmp_path / 'runs'}"]) == code
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", "tracking"), ("wandb", "wandb"), ("trackio", "trackio")])
def test_a_tracker_that_is_not_installed_names_its_extra(tmp_path, photos, capsys, monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    given = ["pretrain", *SETTINGS, f"data={photos}", f"tracker={name}", f"root={tmp_path / 'runs'}"]
    assert main(given) == 1
    assert f"pip install 'embodied-learning[{extra}]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def events(folder):
    """All events of a TensorBoard folder, from the format itself: length, its checksum, bytes, theirs."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack("<Q", data[place : place + 8])
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


def test_tensorboard_has_what_metrics_has(tmp_path, photos):
    pytest.importorskip("tensorboardX")
    run = tmp_path / "run"
    assert pretrain(run, f"data={photos}", "holdout=0.3", "tracker=tensorboard", "panels_every=2") == 0
    found = [(event.step, value) for event in events(run / "tensorboard") for value in event.summary.value]
    scalars = {(step, value.tag): value.simple_value for step, value in found if value.HasField("simple_value")}
    expected = {
        (record["step"], name): value
        for record in read_metrics(run / "metrics.jsonl")
        for name, value in record.items()
        if name != "step"
    }
    assert scalars.keys() == expected.keys()
    assert {(4, "loss"), (0, "holdout_loss"), (4, "data_wait")} <= scalars.keys()
    for key, value in expected.items():
        assert scalars[key] == pytest.approx(value, rel=1e-6), key
    pictures = [step for step, value in found if value.tag == "reconstructions"]
    assert pictures == [2, 4]
    assert [event.step for event in events(run / "tensorboard") if event.HasField("session_log")][:1] == [0]
    texts = [value.tensor.string_val[0].decode() for _, value in found if value.HasField("tensor")]
    assert any("patch_size: 8" in text for text in texts)
