"""Running statistics inside agents' networks: what stable-baselines3's VecNormalize computes, kept with the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

import gymnasium
from gymnasium.spaces import Box, Dict
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd

from embodied.policies.rl import state
from embodied.policies.rl.frames import BODY, FRAMES
from embodied.policies.rl.networks import LearnedFeatures, ProjectedFeatures, Standardise
from embodied.policies.rl.ppo import PPOAgent

RANDOM = np.random.default_rng(0)


def test_statistics_equal_stable_baselines3s() -> None:
    ours, theirs = Standardise(5), RunningMeanStd(epsilon=0.0, shape=(5,))
    for size in (7, 1, 300):
        rows = (RANDOM.normal(size=(size, 5)) * [1, 10, 0.1, 3, 1] + [0, 100, -1, 5, 2]).astype(np.float32)
        ours.take_in(rows)
        theirs.update(rows.astype(np.float64))
    assert np.allclose(ours.mean, theirs.mean, rtol=1e-4)
    assert np.allclose(ours.variance, theirs.var, rtol=1e-4)
    assert float(ours.count) == theirs.count


def test_before_anything_was_seen_values_pass_and_outliers_are_cut_after() -> None:
    norm = Standardise(2)
    values = torch.tensor([[3.0, -400.0]])
    assert torch.equal(norm(values), values)
    norm.take_in(np.array([[0.0, 0.0], [2.0, 2.0]], np.float32))
    assert torch.allclose(norm(values), torch.tensor([[2.0, -10.0]]))


def test_a_constant_value_stays_finite() -> None:
    norm = Standardise(1)
    norm.take_in(np.full((10, 1), 3.0, np.float32))
    assert torch.equal(norm(torch.tensor([[3.0]])), torch.zeros(1, 1))


def test_frames_are_left_alone_and_the_body_is_standardised() -> None:
    frames, body = Box(0, 255, (3, 16, 16), np.uint8), Box(-np.inf, np.inf, (4,), np.float32)
    layers = LearnedFeatures(Dict({FRAMES: frames, BODY: body}), standardise=True)
    layers.take_in({FRAMES: np.zeros((8, 3, 16, 16), np.uint8), BODY: np.arange(32, dtype=np.float32).reshape(8, 4)})
    assert layers.standardise is not None
    assert layers.standardise.mean.tolist() == [14, 15, 16, 17]


def test_without_the_option_there_is_nothing_to_keep() -> None:
    plain = ProjectedFeatures(Box(-1, 1, (6,), np.float32), feature_dim=4)
    assert not any("standardise" in name for name in plain.state_dict())


@pytest.mark.parametrize("standardise", [False, True])
def test_an_iteration_takes_in_what_it_saw_after_its_updates(tmp_path: Path, standardise: bool) -> None:
    agent = PPOAgent(rollout_steps=16, epochs=1, standardise=standardise, value_clip=None)
    environments = make_vec_env(lambda: gymnasium.make("Pendulum-v1"), n_envs=2, seed=1)
    network = agent.network(feature_dim=3, normalise=False)
    algorithm = agent.build(environments, network=network, total_steps=64, seed=0, device=torch.device("cpu"))
    algorithm.learn(64)
    kept = {name: value for name, value in algorithm.policy.state_dict().items() if "standardise.count" in name}
    assert {float(count) for count in kept.values()} == ({64.0} if standardise else set())

    state.save_state(tmp_path / "state.safetensors", algorithm)
    again = agent.build(environments, network=network, total_steps=64, seed=5, device=torch.device("cpu"))
    state.load_state(tmp_path / "state.safetensors", again)
    for name, value in algorithm.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name]), name


def test_the_first_minibatch_of_an_iteration_has_the_ratio_one() -> None:
    agent = PPOAgent(rollout_steps=16, minibatches=1, epochs=1, standardise=True, learning_rate=1e-3)
    environments = make_vec_env(lambda: gymnasium.make("Pendulum-v1"), n_envs=2, seed=1)
    network = agent.network(feature_dim=3, normalise=False)
    algorithm = agent.build(environments, network=network, total_steps=96, seed=0, device=torch.device("cpu"))
    algorithm.learn(96)
    assert abs(algorithm.logger.name_to_value["train/approx_kl"]) < 1e-6
