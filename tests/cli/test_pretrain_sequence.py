"""`embodied pretrain objective=rpt`, whole: from stores to an encoder that `train`, `evaluate` and robots take."""

import json

import pytest
import torch
from sequence_robots import check_robot
from tiny_sequences import VIEW, image_encoder, make_store

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.core.protocols import ACTION, STATE
from embodied.core.run_folder import read_metrics
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.sensorimotor import SensorimotorEncoder

SETTINGS = [
    *("encoder.width=32", "encoder.depth=1", "encoder.heads=2", "sequence.context=4", "device=cpu"),
    *("train.steps=6", "train.batch_size=8", "train.warmup_steps=2", "train.checkpoint_every=3"),
]


@pytest.fixture
def images(tmp_path):
    save_encoder(image_encoder(), tmp_path / "images", card="tiny\n")
    return tmp_path / "images"


def pretrain(tmp_path, images, *more):
    places = [f"root={tmp_path / 'runs'}", f"sequence.image_encoder={images}"]
    return main(["pretrain", "objective=rpt", *SETTINGS, *places, *more])


def test_makes_an_artifact_that_rebuilds_itself_and_resumes(tmp_path, images, capsys):
    make_store(tmp_path / "stores" / "robot", lengths=(7, 9))
    make_store(tmp_path / "stores" / "video", lengths=(6, 3), keys=(VIEW,), first_seed=4)
    data = [f"data={tmp_path / 'stores'}", "holdout=0.5", "holdout_every=3"]
    assert pretrain(tmp_path, images, *data) == 0
    assert "1 of 2 episodes are shorter than a window" in " ".join(capsys.readouterr().out.split())
    run = tmp_path / "runs" / "pretrain-rpt-seed0"
    made = load_encoder(str(run / "encoder"))
    assert isinstance(made, SensorimotorEncoder)
    assert made.sequence.sizes == {VIEW: 8, STATE: 3, ACTION: 2}
    assert fingerprint(made.frames) == fingerprint(load_encoder(str(images)))
    states = EpisodeStore.open(tmp_path / "stores" / "robot").statistics(STATE)
    torch.testing.assert_close(
        made.sequence.get_buffer("mean_observation_state"), torch.from_numpy(states["mean"]).float(), atol=1e-5, rtol=0
    )
    card = (run / "encoder" / "README.md").read_text()
    assert "embodied pretrain objective=rpt" in card and "| sequences | video | 9 |" in card
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records if "loss" in record] == [3, 6]
    assert [record["step"] for record in records if "holdout_loss" in record] == [0, 3, 6]
    assert (run / "plots" / "loss.png").is_file()
    assert pretrain(tmp_path, images, *data, "resume=true") == 0
    assert fingerprint(load_encoder(str(run / "encoder"))) == fingerprint(made)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["objective.mask_ratio=[0.9,0.7]"], "mask_ratio must be two numbers within (0, 1)"),
        (["sequence.context=0"], "sequence.context must be a whole number of at least 1"),
        (["sequence.context=12"], "a window of 12 steps is longer than every episode"),
        (["sequence.contxt=3"], "did you mean sequence.context"),
        (["sequence.image_encoder=state"], "sequence.image_encoder=state is no frozen image encoder"),
        (["sequence.latent=tokens"], "latent must be one of this encoder's vectors, cls, pooled"),
        (["encoder.heads=5"], "width that is a multiple of heads=5"),
        (["encoder.patch_size=8"], "encoder.patch_size: frames are encoded by sequence.image_encoder"),
        (["holdout=1.5"], "holdout must be in [0, 1)"),
        (["probe=store"], "probe is for objectives that learn from frames"),
        (["+encoder.registers=4"], "registers"),
    ],
)
def test_bad_settings_say_what_is_wrong_and_leave_no_run(tmp_path, images, capsys, settings, message):
    store = make_store(tmp_path / "store")
    assert pretrain(tmp_path, images, f"data={store}", *settings) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_data_that_are_no_stores(tmp_path, images, capsys):
    assert pretrain(tmp_path, images) == 2
    assert "what to train on? write data=<episode store>" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "photos").mkdir()
    assert pretrain(tmp_path, images, f"data={tmp_path / 'photos'}") == 1
    assert "photos" in capsys.readouterr().err


@pytest.mark.sim
@pytest.mark.slow
def test_train_evaluate_and_a_robot_take_it(tmp_path, images):
    env = ["task=drawer-close-v3", "env.horizon=20", "env.image_size=16", "collect.only_successes=false"]
    store = tmp_path / "demos"
    assert main(["collect", *env, "episodes=2", f"store={store}", "workers=0"]) == 0
    assert pretrain(tmp_path, images, f"data={store}") == 0
    encoder = tmp_path / "runs" / "pretrain-rpt-seed0" / "encoder"
    settings = [
        *(*env, "demos=2", "episodes=2", "train.steps=20", "train.batch_size=16", "train.checkpoints=1"),
        *("evaluate.selection_episodes=0", "policy.hidden=[]", "device=cpu", "workers=0", f"encoder=path={encoder}"),
        *("policy.tune=full", f"cache={tmp_path / 'cache'}"),
    ]
    assert main(["train", *settings, f"run={tmp_path / 'run'}"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(summary["outcomes"]) == 2
    path = tmp_path / "run" / "checkpoints" / "step_000020.safetensors"
    _, metadata = load_checkpoint(path)
    assert {name: metadata["arguments"][name] for name in ("neck", "history", "chunk", "feature")} == {
        **{"neck": "sequence", "history": 4, "chunk": 16, "feature": "pooled"},
    }
    assert main(["evaluate", f"run={tmp_path / 'run'}", "episodes=1", "workers=0"]) == 0
    check_robot(path)
