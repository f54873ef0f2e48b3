"""`embodied train policy=visual_mpc`, whole: simulator, video model, goals, a head; mistakes are explained."""

import json

import numpy as np
import pytest
from PIL import Image
from video_runs import random_video_run as video_run

from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint

SETTINGS = [
    "policy=visual_mpc",
    "task=drawer-close-v3",
    "encoder=pixels",
    "episodes=2",
    "env.horizon=4",
    "env.image_size=24",
    "policy.samples=5",
    "policy.elites=2",
    "policy.iterations=2",
    "policy.horizon=2",
    "workers=0",
    "device=cpu",
]
SIMULATOR = "policy.model=simulator"


def train(tmp_path, *more):
    run = tmp_path / "run"
    code = main(["train", *SETTINGS, f"run={run}", f"cache={tmp_path / 'cache'}", *more])
    return code, run


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


@pytest.mark.sim
@pytest.mark.slow
def test_the_simulators_bound_leaves_a_run_that_evaluates_to_the_same(tmp_path, capsys):
    code, run = train(tmp_path, SIMULATOR, "policy.cost=reward")
    assert code == 0
    assert "plans per second" in capsys.readouterr().out
    summary = summary_of(run)
    assert summary["head"] == "cem-simulator-reward"
    assert "learning_curve" not in summary["artifacts"]
    assert all((run / path).is_file() for path in summary["artifacts"].values())
    assert set(summary["seconds"]) == {"train", "evaluate"}
    assert summary["planning"]["planning"]["candidates"] == 10
    assert "plans per second" in (run / "report.html").read_text()
    assert main(["evaluate", f"run={run}", "episodes=2", "workers=0", "device=cpu"]) == 0
    (written,) = (run / "evaluations").iterdir()
    assert json.loads(written.read_text())["outcomes"] == summary["outcomes"]


@pytest.mark.sim
@pytest.mark.slow
def test_a_video_model_plans_to_the_ends_of_demonstrations(tmp_path, capsys):
    model = video_run(tmp_path / "video")
    more = [f"policy.model={model}", "policy.cost=tokens", "demos=2", "env.horizon=100", "episodes=1"]
    code, run = train(tmp_path, *more, "policy.samples=2", "policy.iterations=1", "policy.execute=2")
    assert code == 0
    summary = summary_of(run)
    assert summary["planning"]["goals"] == 2
    assert set(summary["seconds"]) == {"collect", "train", "evaluate"}
    tensors, metadata = load_checkpoint(run / "checkpoints" / "step_000000.safetensors")
    assert tensors["goals"].shape == tensors["starts"].shape == (2, 24, 24, 3)
    assert metadata["arguments"]["model_fingerprint"]
    video_run(model, seed=1)
    capsys.readouterr()
    assert main(["evaluate", f"run={run}", "episodes=1", "workers=0"]) == 1
    assert "has changed since this policy was made" in capsys.readouterr().err


@pytest.mark.sim
@pytest.mark.slow
def test_a_head_is_trained_to_read_rewards(tmp_path):
    model = video_run(tmp_path / "video")
    more = [f"policy.model={model}", "policy.cost=reward", "demos=5", "env.horizon=12", "episodes=1", "train.steps=20"]
    code, run = train(tmp_path, *more, "collect.only_successes=false", "collect.noise=0.3", "policy.samples=2")
    assert code == 0
    summary = summary_of(run)
    assert summary["planning"]["reward_frames"] == 4 * 11
    assert isinstance(summary["planning"]["reward_r2"], float)
    assert (run / summary["artifacts"]["learning_curve"]).is_file()
    tensors, _ = load_checkpoint(run / summary["artifacts"]["policy"])
    assert any(name.startswith("head.") for name in tensors)


@pytest.mark.sim
@pytest.mark.slow
def test_a_picture_is_a_goal(tmp_path):
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "goal.png")
    code, run = train(tmp_path, SIMULATOR, f"policy.goal={tmp_path / 'goal.png'}", "policy.over=last", "episodes=1")
    assert code == 0
    assert summary_of(run)["planning"]["goals"] == 1
    assert set(summary_of(run)["seconds"]) == {"train", "evaluate"}


@pytest.mark.sim
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "policy=visual_mpc plans with a world model: write policy.model="),
        (("policy.model=simulatr",), "unknown policy.model 'simulatr': did you mean simulator"),
        (("policy.model=runs/nowhere",), "there is no run folder runs/nowhere"),
        ((SIMULATOR, "policy.cost=tokens"), "policy.cost=tokens compares codes: the simulator predicts none"),
        ((SIMULATOR, "policy.cost=pixels", "policy.goal=nowhere"), "is neither a picture nor an episode store"),
        ((SIMULATOR, "policy.cost=pixels", "policy.goal=nowhere.png"), "there is no picture at"),
        ((SIMULATOR, "policy.cost=reward", "policy.planner=cme"), "unknown policy.planner 'cme': did you mean cem"),
        ((SIMULATOR, "policy.cost=reward", "policy.gamma=1.0"), "unknown option of policy.planner=cem 'gamma'"),
        ((SIMULATOR, "policy.cost=reward", "policy.execute=3"), "policy.execute must be in [1, policy.horizon=2]"),
        ((SIMULATOR, "policy.cost=reward", "policy.reward.discount=1.0"), "policy.reward.discount must be in (0, 1)"),
        ((SIMULATOR, "policy.cost=reward", "encoder=state"), "looks at frames: choose an encoder that reads them"),
        ((SIMULATOR, "policy.cost=reward", "encoder=scratch"), "needs a frozen encoder, got encoder=scratch"),
        (
            (SIMULATOR, "policy.cost=features", "policy.distance=l2"),
            "unknown policy.distance 'l2': choose one of cosine, l1",
        ),
    ],
)
def test_mistakes_are_explained_before_anything_is_written(tmp_path, capsys, arguments, message):
    code, run = train(tmp_path, *arguments)
    assert code in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not run.exists()


@pytest.mark.sim
def test_a_model_of_other_actions_is_refused(tmp_path, capsys):
    model = video_run(tmp_path / "video", action_dim=2)
    code, run = train(tmp_path, f"policy.model={model}", "policy.cost=tokens")
    assert code == 2
    assert "policy.model was trained on 2 values of actions per frame" in " ".join(capsys.readouterr().err.split())
    assert not run.exists()
