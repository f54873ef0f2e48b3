"""`embodied train policy=<agent>`, whole: from scratch and without a picture, evaluated again, mistakes explained."""

import json

import pytest

pytest.importorskip("stable_baselines3")

from embodied.bench import reinforcement
from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UserError
from embodied.envs.rendering import FrameRenderer

SETTINGS = [
    "task=reach-v3",
    "episodes=2",
    "env.horizon=16",
    "env.image_size=32",
    "reinforce.steps=128",
    "reinforce.num_envs=2",
    "reinforce.checkpoint_every=64",
    "evaluate.selection_episodes=1",
    "workers=0",
    "device=cpu",
]
SCRATCH = ["policy=ppo", "encoder=scratch", "policy.rollout_steps=16", "policy.epochs=1", "policy.image_size=16"]


def train(tmp_path, *more):
    run = tmp_path / "run"
    code = main(["train", *SETTINGS, f"run={run}", *more])
    return code, run


@pytest.mark.sim
@pytest.mark.slow
def test_ppo_from_scratch_leaves_a_policy_that_evaluates_to_the_same(tmp_path, capsys):
    code, run = train(tmp_path, *SCRATCH, "policy.history=2")
    assert code == 0
    summary = json.loads((run / "summary.json").read_text())
    assert all((run / path).is_file() for path in summary["artifacts"].values())
    tensors, metadata = load_checkpoint(run / "checkpoints" / "step_000128.safetensors")
    assert metadata["arguments"]["frames_shape"] == [6, 16, 16]
    assert metadata["arguments"]["proprioception_dim"] > 0
    assert metadata["encoder"]["fingerprint"] == ""  # all that it learned is in the policy file
    assert any(name.startswith("agent.features_extractor.encoder.") for name in tensors)
    assert main(["evaluate", f"run={run}", "episodes=2", "workers=0", "device=cpu"]) == 0
    (written,) = (run / "evaluations").iterdir()
    assert json.loads(written.read_text())["outcomes"] == summary["outcomes"]


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize(
    "agent", [("policy=ppo", "policy.rollout_steps=16", "policy.epochs=1"), ("policy=sac", "policy.warmup_steps=32")]
)
def test_an_agent_without_a_picture_renders_none_but_for_the_video(tmp_path, agent, monkeypatch):
    rendered = []
    render = FrameRenderer.render
    monkeypatch.setattr(FrameRenderer, "render", lambda self, *a, **k: rendered.append(1) or render(self, *a, **k))
    code, run = train(tmp_path, "encoder=proprioception", *agent)
    assert code == 0
    assert 0 < len(rendered) <= 2 * (16 + 1)  # the two episodes that are reported
    rendered.clear()
    assert main(["evaluate", f"run={run}", "episodes=2", "workers=0", "device=cpu"]) == 0
    assert not rendered


@pytest.mark.sim
@pytest.mark.slow
def test_an_evaluation_that_fails_costs_nothing_that_was_learned(tmp_path, monkeypatch):
    agent = ("encoder=proprioception", "policy=ppo", "policy.rollout_steps=16", "policy.epochs=1")
    code, whole = train(tmp_path / "whole", *agent)
    assert code == 0

    def fail(experiment, path):
        raise UserError("the simulator is gone")

    with monkeypatch.context() as broken:
        broken.setattr(reinforcement, "measure", fail)
        code, run = train(tmp_path / "broken", *agent)
    assert code == 1
    (state,) = (run / "checkpoints").glob("state_*")
    assert state.name == "state_000064.safetensors"
    assert train(tmp_path / "broken", *agent, "resume=true")[0] == 0
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    first, second = (load_checkpoint(path / "checkpoints" / "step_000128.safetensors")[0] for path in (whole, run))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("policy=sac", "encoder=scratch"), "policy=sac needs a frozen encoder, got encoder=scratch: policy=ppo and"),
        (("policy=bc_rl", "encoder=scratch"), "policy=bc_rl needs a frozen encoder"),
        (("policy=drqv2", "encoder=pixels"), "policy=drqv2 needs encoder=scratch: it learns its own, got encoder="),
        (("policy=ppo", "encoder=pixels", "policy.history=3"), "policy.history above 1 needs encoder=scratch"),
        (("policy=ppo", "encoder=scratch", "policy.augmentation=frame"), "did you mean frames"),
    ],
)
def test_agents_and_encoders_that_do_not_fit_are_explained(tmp_path, capsys, arguments, message):
    code, run = train(tmp_path, *arguments)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not run.exists()
