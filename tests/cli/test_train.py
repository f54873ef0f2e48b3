"""`embodied train`, whole: what it leaves, that it repeats, and that SIGKILL in any phase costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from processes import started

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder

pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.xdist_group("train")]
SETTINGS = [
    "task=drawer-close-v3",
    "demos=3",
    "episodes=3",
    "env.horizon=30",
    "env.image_size=32",
    "collect.only_successes=false",
    "train.steps=60",
    "train.batch_size=16",
    "train.checkpoints=3",
    "evaluate.selection_episodes=2",
    "policy.hidden=[16]",
    "device=cpu",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_encoder(ViTEncoder(image_size=32, patch_size=4, width=12, depth=1, heads=3), folder, card="tiny\n")
    return folder


def command(tmp_path, encoder, *more):
    places = [f"root={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", f"encoder=path={encoder}"]
    return ["train", *SETTINGS, *places, *more]


def run_here(tmp_path, encoder, *more):
    assert main(command(tmp_path, encoder, "workers=0", *more)) == 0
    (newest,) = [path for path in (tmp_path / "runs").iterdir() if (path / "summary.json").exists()]
    return newest


def decisive(folder):
    """What must not depend on interruptions: outcomes, the choice of checkpoint, every weight, every metric."""
    summary = json.loads((folder / "summary.json").read_text())
    weights = {path.name: load_checkpoint(path)[0] for path in sorted((folder / "checkpoints").glob("step_*"))}
    plain = {name: {key: tensor.tolist() for key, tensor in tensors.items()} for name, tensors in weights.items()}
    return summary["outcomes"], summary["best_checkpoint"], plain, (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder):
    return run_here(tmp_path_factory.mktemp("whole"), encoder)


def test_run_folder_is_complete(whole, capsys):
    files = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "environment.txt",
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "videos/rollout.mp4",
        "plots/learning_curve.png",
        "plots/success.png",
        "checkpoints/step_000020.safetensors",
        "checkpoints/step_000060.safetensors",
    } <= files
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["episodes"] == len(summary["seeds"]) == 3
    assert summary["interval"][0] <= summary["success_rate"] <= summary["interval"][1]
    assert set(summary["seconds"]) == {"collect", "encode", "train", "select", "evaluate"}
    assert all((whole / path).is_file() for path in summary["artifacts"].values())
    assert not set(summary["seeds"]) & set(summary["best_checkpoint"]["seeds"])


def test_same_seed_same_numbers_another_seed_others(whole, encoder, tmp_path):
    again = run_here(tmp_path / "again", encoder)
    assert decisive(again) == decisive(whole)
    other = run_here(tmp_path / "other", encoder, "seed=1")
    assert decisive(other)[2] != decisive(whole)[2]


def test_the_same_demonstrations_given_as_data_train_the_same_policy(whole, encoder, tmp_path):
    store = json.loads((whole / "phases" / "collect.json").read_text())["result"]["store"]
    settings = [each for each in SETTINGS if not each.startswith(("collect.", "demos="))]
    places = [f"root={tmp_path}", f"cache={tmp_path / 'cache'}", f"encoder=path={encoder}", "workers=0"]
    assert main(["train", *settings, *places, f"data={store}"]) == 0
    assert decisive(next(tmp_path.glob("drawer-close-v3-*"))) == decisive(whole)


def test_evaluate_repeats_the_reported_episodes(whole, capsys):
    assert main(["evaluate", f"run={whole}", "episodes=3", "workers=0", "device=cpu"]) == 0
    (written,) = (whole / "evaluations").iterdir()
    result = json.loads(written.read_text())
    assert result["outcomes"] == json.loads((whole / "summary.json").read_text())["outcomes"]
    assert main(["evaluate", f"run={whole}", "episodes=1", "workers=0", "checkpoint=20"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"run={whole}", "checkpoint=21"]) == 2
    assert "unknown checkpoint '21'" in capsys.readouterr().err


def test_a_changed_encoder_is_refused(encoder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "encoder"
    shutil.copytree(encoder, copy)
    folder = run_here(tmp_path, copy)
    torch.manual_seed(1)
    save_encoder(ViTEncoder(image_size=32, patch_size=4, width=12, depth=1, heads=3), copy, card="")
    assert main(["evaluate", f"run={folder}", "workers=0"]) == 1
    assert "has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("encoder_name", ["state", "pixels", "scratch", "proprioception"])
def test_other_encoders_run(tmp_path, encoder, encoder_name):
    folder = run_here(tmp_path, encoder, f"encoder={encoder_name}", "evaluate.selection_episodes=0")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["encoder"] == encoder_name
    assert summary["best_checkpoint"] is None


def test_conv_head_reads_tokens(tmp_path, encoder):
    folder = run_here(tmp_path, encoder, "policy.head=conv", "policy.channels=4", "policy.bottleneck=null")
    _, metadata = load_checkpoint(folder / "checkpoints" / "step_000060.safetensors")
    assert metadata["arguments"]["feature"] == "tokens"
    assert metadata["arguments"]["feature_shape"] == [64, 12]


def test_a_policy_that_is_told_what_to_do_is_evaluated_and_exported_as_such(tmp_path, encoder, capsys):
    pytest.importorskip("wordllama")
    options = ["policy.instruction=wordllama", "policy.neck=text_query", "policy.neck_options={heads: 3}"]
    folder = run_here(tmp_path, encoder, *options)
    _, metadata = load_checkpoint(folder / "checkpoints" / "step_000060.safetensors")
    assert metadata["text_encoder"]["spec"] == "wordllama" and len(metadata["text_encoder"]["fingerprint"]) == 64
    assert "text encoder `wordllama`" in (folder / "checkpoints" / "README.md").read_text()
    assert main(["evaluate", f"run={folder}", "episodes=3", "workers=0", "device=cpu"]) == 0
    (written,) = (folder / "evaluations").iterdir()
    assert json.loads(written.read_text())["outcomes"] == json.loads((folder / "summary.json").read_text())["outcomes"]
    assert main(["export", f"run={folder}"]) == 0
    assert "`instruction`: float32 [B, 256]" in (folder / "export" / "README.md").read_text()
    capsys.readouterr()
    arguments = command(tmp_path, encoder, "workers=0", "policy.neck=text_query")
    assert main(arguments) == 2
    assert "set policy.instruction" in capsys.readouterr().err


def test_multirun_makes_one_run_per_value(tmp_path, encoder):
    assert main(command(tmp_path, encoder, "workers=0", "-m", "seed=0,1", "evaluate.selection_episodes=0")) == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["drawer-close-v3-tiny-mlp-seed0", "drawer-close-v3-tiny-mlp-seed1", "multirun"]


def test_resume_refuses_other_settings(whole, encoder, tmp_path, capsys):
    code = main(command(tmp_path, encoder, f"run={whole}", "resume=true", "seed=5"))
    assert code == 2
    assert "made with other settings" in capsys.readouterr().err


def wait_for(path, process):
    deadline = time.monotonic() + 90
    root = path.parents[2]
    while not list(root.glob(str(path.relative_to(root)))):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_sigkill_in_every_phase_and_resume_ends_like_an_uninterrupted_run(whole, encoder, tmp_path):
    """Killed while collecting, encoding, training (after its first checkpoint), selecting, evaluating, reporting."""
    run = tmp_path / "runs" / "killed"
    arguments = command(tmp_path, encoder, "workers=0", f"run={run}", "resume=true")
    places = [
        tmp_path / "cache" / "stores" / "*" / "zarr.json",
        run / "phases" / "collect.json",
        run / "checkpoints" / "state_*.safetensors",
        run / "phases" / "train.json",
        run / "phases" / "select.json",
        run / "phases" / "evaluate.json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for place in places:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with started([sys.executable, "-m", "embodied", *arguments], env=environment, **silent) as process:
            wait_for(place, process)
            process.send_signal(signal.SIGKILL)
        assert not (run / "summary.json").exists()
    subprocess.run([sys.executable, "-m", "embodied", *arguments], env=environment, check=True, capture_output=True)
    assert decisive(run) == decisive(whole)
