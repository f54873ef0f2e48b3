"""Actors trained by reinforcement learning: the network, its files, and the training that makes them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.experts.rl import ASSETS, RLExpert, load_actor, tasks_with_actor
from embodied.envs.registry import load_suite, suite_names
from embodied.envs.simulation import Progress, TaskSpec
from embodied.envs.task_env import TaskEnv

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHIPPED = [(suite, task) for suite in suite_names() for task in tasks_with_actor(suite)]
SPEC = TaskSpec(
    suite="toy",
    task="push",
    instruction="push",
    robot="none",
    cameras={},
    fps=20.0,
    horizon=8,
    horizon_limit=8,
    state=(),
    environment_state=("x", "y"),
    action=("dx", "grip"),
    action_low=np.array([-1, 0], np.float32),
    action_high=np.array([1, 4], np.float32),
)


def write_actor(folder, *, inputs=2, outputs=2, task="push"):
    hidden = [[1, 0], [0, -1], [2, 2]]
    tensors = {
        "0.weight": torch.tensor([row[:1] * inputs for row in hidden] if inputs != 2 else hidden).half(),
        "0.bias": torch.tensor([0, 0, -1]).half(),
        "1.weight": torch.tensor([[1, 0, 0], [0, 1, 0.5]])[:outputs].half(),
        "1.bias": torch.tensor([0.25, 0])[:outputs].half(),
    }
    save_checkpoint(folder / "toy" / f"{task}.safetensors", tensors, {"steps": 3})


def test_the_network_by_hand(tmp_path):
    write_actor(tmp_path)
    expert = RLExpert(SPEC, assets=tmp_path)
    # hidden: relu(1), relu(0.5), relu(2 - 1 - 1) = 1, 0.5, 0; out: 1.25, 0.5; the second is stretched to [0, 4]
    action = expert.act({ENVIRONMENT_STATE: np.array([1, -0.5], np.float32)})
    assert action == pytest.approx([np.tanh(1.25), 2 + 2 * np.tanh(0.5)], abs=1e-6)
    assert action.dtype == np.float32
    assert expert.metadata == {"steps": 3}


def test_actions_stay_inside_their_bounds(tmp_path):
    write_actor(tmp_path)
    expert = RLExpert(SPEC, assets=tmp_path)
    for x in (-1e6, 1e6):
        action = expert.act({ENVIRONMENT_STATE: np.array([x, -x], np.float32)})
        assert (action >= SPEC.action_low).all()
        assert (action <= SPEC.action_high).all()


def test_a_task_without_actor_lists_those_with_one_and_the_command(tmp_path):
    write_actor(tmp_path, task="reach")
    write_actor(tmp_path, task="lift")
    with pytest.raises(
        UsageError,
        match=r"no rl expert for push of toy: there is one for lift, reach. Train one: "
        "python benchmarks/train_experts.py train toy push FOLDER",
    ):
        RLExpert(SPEC, assets=tmp_path)
    with pytest.raises(UsageError, match="there is one for no task"):
        RLExpert(SPEC, assets=tmp_path / "empty")


@pytest.mark.parametrize(
    ("sizes", "found"), [({"inputs": 3}, "3 numbers of state and 2"), ({"outputs": 1}, "2.* and 1")]
)
def test_an_actor_for_another_state_or_action_is_refused(tmp_path, sizes, found):
    write_actor(tmp_path, **sizes)
    with pytest.raises(UsageError, match=f"is for {found} of action, but the task has 2 and 2: train it again"):
        RLExpert(SPEC, assets=tmp_path)


def test_a_damaged_actor_is_refused(tmp_path):
    write_actor(tmp_path)
    path = tmp_path / "toy/push.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"push.safetensors is damaged or no actor"):
        RLExpert(SPEC, assets=tmp_path)


def test_the_card_names_every_shipped_actor_and_all_are_small():
    card = (ASSETS / "README.md").read_text()
    assert SHIPPED
    for suite, task in SHIPPED:
        path = ASSETS / suite / f"{task}.safetensors"
        assert path.stat().st_size < 2**20
        metadata = load_actor(path)[1]
        assert f"| {suite} | {task} | {np.mean(metadata['evaluation']['score']):.3f} " in card
        assert metadata["command"] in card


@pytest.mark.sim
@pytest.mark.parametrize(("suite", "task"), SHIPPED)
def test_shipped_actors_do_what_their_card_says(suite, task):
    pytest.importorskip({"dmc": "dm_control", "adroit": "gymnasium_robotics"}[suite])
    path = ASSETS / suite / f"{task}.safetensors"
    evaluation, settings = (load_actor(path)[1][name] for name in ("evaluation", "settings"))
    env = TaskEnv(
        suite=suite,
        task=task,
        protocol=settings["protocol"],
        horizon=settings["horizon"],
        action_repeat=settings["action_repeat"],
        images=False,
    )
    expert = load_suite(suite).make_expert("rl", task, env.simulation)
    observation, _ = env.reset(seed=2_000_000)  # the first of the evaluation's
    expert.reset(2_000_000)
    over = False
    while not over:
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        over = terminated or truncated
    assert info["score"] == pytest.approx(evaluation["score"][0], abs=0.05)


@pytest.fixture
def trainer(monkeypatch):
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("dm_control")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import train_experts

    return train_experts


def settings(trainer, **changes):
    small = {"horizon": 20, "round_steps": 40, "learning_starts": 20, "width": 8, "batch": 16, "steps": 120}
    return trainer.Settings(suite="dmc", task="pendulum_swingup", **{**small, **changes})


@pytest.mark.sim
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_SEEDS", range(2))
    trainer.train(settings(trainer), tmp_path / "whole")
    trainer.train(settings(trainer, steps=80), tmp_path / "parts")
    np.random.random(5)
    torch.rand(5)
    trainer.train(settings(trainer), tmp_path / "parts")
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    for name, expected in states[0]["parameters"]["policy"].items():
        assert torch.equal(expected, states[1]["parameters"]["policy"][name]), name
    assert states[0]["counters"] == states[1]["counters"]
    assert states[0]["counters"]["num_timesteps"] == 120
    records = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert [record["steps"] for record in records] == [40, 80, 120]


@pytest.mark.sim
def test_a_training_saves_the_actor_it_evaluates_and_publishes_it(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_SEEDS", range(3))
    wanted = settings(trainer, seed=1)
    trainer.train(wanted, tmp_path / "run")
    path = tmp_path / "run/dmc/pendulum_swingup.safetensors"
    tensors, metadata = load_checkpoint(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert metadata["command"].startswith(
        "python benchmarks/train_experts.py train dmc pendulum_swingup FOLDER --horizon 20"
    )
    assert "--seed 1" in metadata["command"]
    assert len(metadata["evaluation"]["score"]) == 3
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")
    trainer.publish([tmp_path / "run"], tmp_path / "assets", note="never swings")
    card = (tmp_path / "assets/README.md").read_text()
    assert "| dmc | pendulum_swingup |" in card
    assert "dmc pendulum_swingup: not solved" in card
    assert "dmc pendulum_swingup: never swings" in card
    assert metadata["command"] in card
    assert (tmp_path / "assets/curves.png").read_bytes().startswith(b"\x89PNG")
    assert tasks_with_actor("dmc", assets=tmp_path / "assets") == ["pendulum_swingup"]


@pytest.mark.sim
def test_the_actor_that_is_saved_is_the_policys_mean(trainer, tmp_path):
    wanted = settings(trainer)
    env = trainer.StateEnv(wanted)
    model = trainer.make_model(wanted, env)
    path = trainer.actor_path(wanted, tmp_path)
    trainer.save_actor(path, model, env, {})
    expert = RLExpert(env.unwrapped.spec_of_task, assets=tmp_path)
    for seed in range(3):
        state, _ = env.reset(seed=seed)
        expected, _ = model.predict(state, deterministic=True)
        assert expert.act({ENVIRONMENT_STATE: state}) == pytest.approx(expected, abs=2e-3)


@pytest.mark.sim
def test_training_episodes_go_on_after_a_success(trainer, monkeypatch):
    plain = trainer.make_env(settings(trainer))
    plain.spec_of_task = replace(plain.spec_of_task, ends_on_success=True)
    plain.simulation.step = lambda action: Progress(1.0, success=True)
    plain.reset(seed=0)
    assert plain.step(np.zeros(1, np.float32))[2] is True
    monkeypatch.setattr("expert_env.make_env", lambda settings: plain)
    env = trainer.StateEnv(settings(trainer))
    env.reset()
    assert env.step(np.zeros(1, np.float32))[2] is False


@pytest.mark.sim
def test_other_settings_do_not_go_on_in_the_same_folder(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_SEEDS", range(1))
    trainer.train(settings(trainer, steps=40), tmp_path)
    with pytest.raises(UserError, match="holds a training with the settings"):
        trainer.train(settings(trainer, steps=40, seed=5), tmp_path)


@pytest.mark.sim
def test_an_unfinished_training_is_not_published(trainer, tmp_path):
    wanted = settings(trainer)
    env = trainer.StateEnv(wanted)
    model = trainer.make_model(wanted, env)
    trainer.save_actor(trainer.actor_path(wanted, tmp_path / "run"), model, env, {"steps": 0})
    with pytest.raises(UserError, match=r"run is not finished: run its command again"):
        trainer.publish([tmp_path / "run"], tmp_path / "assets")
