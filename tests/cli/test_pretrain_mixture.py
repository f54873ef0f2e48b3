"""`embodied pretrain objective=hpt`, whole: from a manifest to encoders that `train`, `evaluate` and robots take."""

import json

import pytest
import safetensors.torch
import torch
from sequence_robots import check_robot
from tiny_mixtures import make_arm
from tiny_sequences import VIEW, image_encoder, make_store

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.core.run_folder import read_metrics
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.hpt import HPTEncoder
from embodied.encoders.load import load_encoder

SETTINGS = [
    *("encoder.size=null", "encoder.width=32", "encoder.depth=1", "encoder.heads=2", "encoder.tokens=4", "device=cpu"),
    *("train.steps=6", "train.batch_size=8", "train.warmup_steps=2", "train.checkpoint_every=3"),
]


@pytest.fixture
def images(tmp_path):
    save_encoder(image_encoder(), tmp_path / "images", card="tiny\n")
    return tmp_path / "images"


@pytest.fixture
def manifest(tmp_path):
    make_store(tmp_path / "dot", lengths=(7, 9))
    make_arm(tmp_path / "arm")
    (tmp_path / "mix.yaml").write_text("datasets: [{path: dot, embodiment: point}, {path: arm}]")
    return tmp_path / "mix.yaml"


def pretrain(tmp_path, images, *more):
    places = [f"root={tmp_path / 'runs'}", f"sequence.image_encoder={images}"]
    return main(["pretrain", "objective=hpt", *SETTINGS, *places, *more])


def test_makes_an_artifact_per_embodiment_and_a_trunk_and_resumes(tmp_path, images, manifest, capsys):
    data = [f"data={manifest}", "holdout=0.5", "holdout_every=3"]
    assert pretrain(tmp_path, images, *data) == 0
    assert "drawn dot 48%, arm 52%" in " ".join(capsys.readouterr().out.split())
    run = tmp_path / "runs" / "pretrain-hpt-seed0"
    made = {name: load_encoder(str(run / "encoders" / name)) for name in ("point", "arm")}
    assert all(isinstance(each, HPTEncoder) for each in made.values())
    assert made["point"].sequence.sizes == {VIEW: 8, STATE: 3, ACTION: 0} and made["arm"].cameras == ("wrist", "side")
    trunk = safetensors.torch.load_file(run / "trunk.safetensors")
    assert trunk["trunk.blocks.0.attn.bias_k"].shape == (1, 1, 32)
    for each in made.values():
        assert all(torch.equal(trunk[name], part) for name, part in each.sequence.trunk.published().items())
    records = read_metrics(run / "metrics.jsonl")
    assert {"loss_dot", "loss_arm"} <= set(next(record for record in records if "loss" in record))
    assert [record["step"] for record in records if "holdout_loss" in record] == [0, 3, 6]
    assert "embodied pretrain objective=hpt" in (run / "encoders" / "arm" / "README.md").read_text()
    assert pretrain(tmp_path, images, *data, "resume=true") == 0
    assert all(
        fingerprint(load_encoder(str(run / "encoders" / name))) == fingerprint(each) for name, each in made.items()
    )


def test_a_new_embodiment_on_a_frozen_trunk(tmp_path, images, manifest):
    trunk = tmp_path / "first" / "trunk.safetensors"
    assert pretrain(tmp_path, images, f"data={tmp_path / 'dot'}", f"run={tmp_path / 'first'}") == 0
    more = [f"run={tmp_path / 'second'}", f"sequence.trunk={trunk}", "sequence.freeze_trunk=true", "sequence.head=flow"]
    assert pretrain(tmp_path, images, f"data={tmp_path / 'arm'}", *more) == 0
    first, second = (safetensors.torch.load_file(tmp_path / name / "trunk.safetensors") for name in ("first", "second"))
    assert all(torch.equal(part, second[name]) for name, part in first.items())


def test_instructions_are_read_and_their_encoder_named(tmp_path, images, manifest, capsys):
    pytest.importorskip("wordllama")
    assert pretrain(tmp_path, images, f"data={manifest}", "sequence.text_encoder=wordllama") == 0
    encoder = load_encoder(str(tmp_path / "runs" / "pretrain-hpt-seed0" / "encoders" / "point"))
    assert encoder.sequence.sizes[INSTRUCTION] == 256 and encoder.text["spec"] == "wordllama"
    window = {VIEW: torch.rand(2, 5, 4, 8), STATE: torch.rand(2, 5, 3), INSTRUCTION: torch.rand(2, 256)}
    features = encoder(window)[0]
    assert features.shape == (2, 5, 32)
    assert not torch.allclose(encoder({**window, INSTRUCTION: torch.rand(2, 256)})[0], features)
    silent = {**window, INSTRUCTION + "_is_pad": torch.tensor([False, True])}
    unsaid = {key: value for key, value in window.items() if key != INSTRUCTION}
    torch.testing.assert_close(encoder(silent)[0][1], encoder(unsaid)[0][1])
    assert pretrain(tmp_path, images, f"data={manifest}", "sequence.text_encoder=wordlama") == 2
    assert "did you mean wordllama" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sequence.mixing=sqrt"], "unknown mixing 'sqrt'"),
        (["sequence.chunk=0"], "sequence.chunk must be a whole number of at least 1"),
        (["sequence.head=mpl"], "sequence.head must be regression or one of"),
        (["sequence.trunk=none.pth"], "there is no file none.pth"),
        (["encoder.size=m"], "unknown size of HPT's trunk 'm'"),
        (["encoder.patch_size=8"], "encoder.patch_size: frames are encoded by sequence.image_encoder"),
        (["sequence.context=12"], "a window of 12 steps is longer than every episode"),
        (["weights=[1,2]"], "a manifest has the weight of each dataset itself"),
    ],
)
def test_bad_settings_say_what_is_wrong_and_leave_no_run(tmp_path, images, manifest, capsys, settings, message):
    assert pretrain(tmp_path, images, f"data={manifest}", *settings) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.sim
@pytest.mark.slow
def test_train_evaluate_and_a_robot_take_it_with_its_instruction(tmp_path, images, capsys):
    pytest.importorskip("wordllama")
    env = ["task=drawer-close-v3", "env.horizon=20", "env.image_size=16", "collect.only_successes=false"]
    store = tmp_path / "demos"
    assert main(["collect", *env, "episodes=2", f"store={store}", "workers=0"]) == 0
    make_arm(tmp_path / "arm")
    assert pretrain(tmp_path, images, f"data=[{store},{tmp_path / 'arm'}]", "sequence.text_encoder=wordllama") == 0
    encoders = tmp_path / "runs" / "pretrain-hpt-seed0" / "encoders"
    settings = [
        *(*env, "demos=2", "episodes=2", "train.steps=20", "train.batch_size=16", "train.checkpoints=1"),
        *("evaluate.selection_episodes=0", "policy.hidden=[]", "device=cpu", "workers=0", "policy.tune=full"),
        *(f"cache={tmp_path / 'cache'}", f"run={tmp_path / 'run'}"),
    ]
    assert main(["train", *settings, f"encoder=path={encoders / 'arm'}"]) == 2
    assert "the encoder was pre-trained with views wrist, side" in " ".join(capsys.readouterr().err.split())
    assert main(["train", *settings, f"encoder=path={encoders / 'demos'}"]) == 0
    assert len(json.loads((tmp_path / "run" / "summary.json").read_text())["outcomes"]) == 2
    assert main(["evaluate", f"run={tmp_path / 'run'}", "episodes=1", "workers=0"]) == 0
    path = tmp_path / "run" / "checkpoints" / "step_000020.safetensors"
    assert load_checkpoint(path)[1]["text_encoder"]["spec"] == "wordllama"
    check_robot(path, instruction="close the drawer")
    check_robot(path, instruction="open the window")
    with pytest.raises(UsageError, match="this policy follows instructions: say what to do"):
        check_robot(path)
