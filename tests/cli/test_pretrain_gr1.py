"""`embodied pretrain objective=gr1`, whole: videos, then robots with the same weights, then a policy."""

import inspect
import json

import hydra
import pytest
import torch
from sequence_robots import check_robot
from tiny_gr1 import WORDS, make_store
from tiny_sequences import VIEW, image_encoder

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.core.run_folder import read_metrics
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.gr1 import GR1Encoder
from embodied.encoders.load import load_encoder
from embodied.objectives.video.gr1 import GR1

SETTINGS = [
    *("encoder.width=32", "encoder.depth=1", "+encoder.latents=2", "sequence.context=4", "device=cpu"),
    *("objective.image_size=16", "objective.decoder_depth=1", "objective.next_frames=1"),
    *("train.steps=4", "train.batch_size=6", "train.warmup_steps=1", "train.checkpoint_every=2"),
]


@pytest.fixture
def images(tmp_path):
    save_encoder(image_encoder(), tmp_path / "images", card="tiny\n")
    return tmp_path / "images"


def pretrain(tmp_path, images, *more):
    places = [f"root={tmp_path / 'runs'}", f"sequence.image_encoder={images}"]
    return main(["pretrain", "objective=gr1", *SETTINGS, *places, *more])


def test_videos_then_robots_with_the_same_weights(tmp_path, images, capsys):
    pytest.importorskip("wordllama")
    video = make_store(tmp_path / "video", lengths=(6, 7), keys=(VIEW,), tasks=tuple(WORDS))
    robot = make_store(tmp_path / "robot", lengths=(7, 9), first_seed=4)
    data = [f"data={video}", "holdout=0.5", "holdout_every=2", f"run={tmp_path / 'first'}"]
    assert pretrain(tmp_path, images, *data) == 0
    assert "windows of observation.images.front, instruction;" in " ".join(capsys.readouterr().out.split())
    first = load_encoder(str(tmp_path / "first" / "encoder"))
    assert isinstance(first, GR1Encoder) and first.network.action_head is None
    assert first.sequence.sizes == {VIEW: 8, INSTRUCTION: 256, ACTION: 0}
    assert (tmp_path / "first" / "plots" / "future.png").is_file()
    records = read_metrics(tmp_path / "first" / "metrics.jsonl")
    assert [record["step"] for record in records if "holdout_loss" in record] == [0, 2, 4]
    assert pretrain(tmp_path, images, *data, "resume=true") == 0
    assert fingerprint(load_encoder(str(tmp_path / "first" / "encoder"))) == fingerprint(first)

    more = [f"data=[{video},{robot}]", f"sequence.start={tmp_path / 'first'}", "encoder.gripper=1"]
    assert pretrain(tmp_path, images, *more, "train.learning_rate=1e-9", f"run={tmp_path / 'second'}") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "anew: action_head, queries.action, stems.state" in told
    second = load_encoder(str(tmp_path / "second" / "encoder"))
    before, after = first.sequence.state_dict(), second.sequence.state_dict()
    assert all(torch.allclose(after[name], part, atol=1e-6) for name, part in before.items() if part.numel())
    assert second.sequence.sizes == {VIEW: 8, STATE: 3, INSTRUCTION: 256, ACTION: 0}
    start, _ = load_checkpoint(tmp_path / "first" / "gr1.safetensors")
    end, _ = load_checkpoint(tmp_path / "second" / "gr1.safetensors")
    assert any(name.startswith("decoder.") for name in start)
    assert all(torch.allclose(end[name], part, atol=1e-6) for name, part in start.items() if part.numel())
    scale = end["encoder.sequence.action_head.scale.std"]

    third = [f"data={robot}", f"sequence.start={tmp_path / 'second'}", "encoder.gripper=1", f"run={tmp_path / 'third'}"]
    assert pretrain(tmp_path, images, *third) == 0
    assert "anew: nothing" in " ".join(capsys.readouterr().out.split())
    assert torch.equal(load_checkpoint(tmp_path / "third" / "gr1.safetensors")[0][
        "encoder.sequence.action_head.scale.std"
    ], scale)  # fmt: skip


def test_a_start_that_does_not_fit_is_refused(tmp_path, images, capsys):
    store = make_store(tmp_path / "store", lengths=(6, 7))
    plain = [f"data={store}", "sequence.text_encoder=null"]
    assert pretrain(tmp_path, images, *plain, f"run={tmp_path / 'first'}") == 0
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = image_encoder()
        other.vit.norm.weight.data.mul_(2)
    save_encoder(other, tmp_path / "others", card="tiny\n")
    start = [*plain, f"sequence.start={tmp_path / 'first'}"]
    for settings, message in (
        ([f"sequence.image_encoder={tmp_path / 'others'}"], "was trained on another image encoder"),
        (["sequence.start_views={top: front}"], "sequence.start_views: no camera 'top', expected some of front"),
        (["sequence.start_views={front: top}"], "sequence.start_views: no camera 'top'"),
        ([f"sequence.start={tmp_path}"], "holds no gr1.safetensors"),
    ):
        assert pretrain(tmp_path, images, *start, *settings, f"run={tmp_path / 'second'}") != 0
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sequence.context=0"], "sequence.context must be a whole number of at least 1"),
        (["sequence.context=12"], "a window of 12 steps is longer than every episode"),
        (["objective.next_frames=0"], "objective.next_frames must be a whole number of at least 1"),
        (["objective.patch_size=7"], "multiple of objective.patch_size"),
        (["encoder.size=larg"], "unknown encoder.size 'larg'"),
        (["encoder.gripper=2"], "encoder.gripper must be null or one of 0 to 1"),
        (["encoder.gripper=x"], "encoder.gripper must be null or one of"),
        (["encoder.patch_size=8"], "encoder.patch_size: frames are encoded by sequence.image_encoder"),
        (["sequence.text_encoder=wordlama"], "unknown text encoder 'wordlama': did you mean wordllama"),
        (["sequence.missing_instructions=no"], "unknown sequence.missing_instructions 'no'"),
        (["sequence.image_encoder=state"], "sequence.image_encoder=state is no frozen image encoder"),
        (["holdout=1.5"], "holdout must be in [0, 1)"),
    ],
)
def test_bad_settings_say_what_is_wrong_and_leave_no_run(tmp_path, images, capsys, settings, message):
    store = make_store(tmp_path / "store")
    text = (
        [] if any("missing" in each or "text_encoder" in each for each in settings) else ["sequence.text_encoder=null"]
    )
    if any("missing" in each for each in settings):
        pytest.importorskip("wordllama")
    assert pretrain(tmp_path, images, f"data={store}", *text, *settings) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_episodes_without_an_instruction_are_refused_or_declared(tmp_path, images, capsys):
    pytest.importorskip("wordllama")
    store = make_store(tmp_path / "store", tasks=("go round", ""))
    assert pretrain(tmp_path, images, f"data={store}") == 2
    assert "episode 1 has no instruction" in " ".join(capsys.readouterr().err.split())
    assert pretrain(tmp_path, images, f"data={store}", "sequence.missing_instructions=hide") == 0


def test_the_yaml_says_what_the_signatures_say():
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", ["objective=gr1"])
    defaults = {name: each.default for name, each in inspect.signature(GR1).parameters.items()}
    assert {name: value for name, value in config.objective.items() if name != "_target_"} == {
        name: value for name, value in defaults.items() if name != "encoder"
    }


@pytest.mark.sim
@pytest.mark.slow
def test_train_evaluate_and_a_robot_take_it(tmp_path, images):
    pytest.importorskip("wordllama")
    env = ["task=drawer-close-v3", "env.horizon=20", "env.image_size=16", "collect.only_successes=false"]
    store = tmp_path / "demos"
    assert main(["collect", *env, "episodes=2", f"store={store}", "workers=0"]) == 0
    assert pretrain(tmp_path, images, f"data={store}") == 0
    encoder = tmp_path / "runs" / "pretrain-gr1-seed0" / "encoder"
    settings = [
        *(*env, "demos=2", "episodes=2", "train.batch_size=16", "train.checkpoints=1", f"cache={tmp_path / 'cache'}"),
        *("evaluate.selection_episodes=0", "device=cpu", "workers=0", f"encoder=path={encoder}", "policy.head=gr1"),
    ]
    for steps, tune in ((0, "frozen"), (10, "full")):
        run = tmp_path / f"run{steps}"
        assert main(["train", *settings, f"train.steps={steps}", f"policy.tune={tune}", f"run={run}"]) == 0
        assert len(json.loads((run / "summary.json").read_text())["outcomes"]) == 2
        path = run / "checkpoints" / f"step_{steps:06d}.safetensors"
        tensors, metadata = load_checkpoint(path)
        expected = {"neck": "sequence", "history": 4, "chunk": None, "feature": "class_and_patches"}
        assert {name: metadata["arguments"].get(name) for name in expected} == expected
        assert metadata["text_encoder"]["spec"] == "wordllama"
        if not steps:
            ours = load_encoder(str(encoder)).network.action_head.arm.weight
            assert torch.equal(tensors["controller.head.network.arm.weight"], ours)
        assert main(["evaluate", f"run={run}", "episodes=1", "workers=0"]) == 0
    check_robot(path, instruction="close the drawer")
