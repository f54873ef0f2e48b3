"""Environments as stable-baselines3 sees them: features instead of frames, right last observations, right seeds."""

from contextlib import closing
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env
from toy_environments import Point, make_points

from embodied.core.errors import UsageError, UserError
from embodied.encoders.state import StateEncoder
from embodied.envs.task_env import TaskEnv
from embodied.policies.rl.frozen_features import FrozenFeatures
from embodied.policies.rl.vec_env import SlotVecEnv

CPU = torch.device("cpu")


class ColumnEncoder(nn.Module):
    """Counts its calls; the feature is the mean of each column."""

    modality = "image"

    def __init__(self):
        super().__init__()
        self.batches = []

    def preprocess(self, frames):
        return frames.float() / 255

    def forward(self, images):
        self.batches.append(len(images))
        return images[:, :, 0], {"pooled": images.mean(dim=(1, 3))}


def features(count, encoder=None, **options):
    slots = SlotVecEnv(make_points(count), seed=3)
    return FrozenFeatures(slots, encoder or ColumnEncoder(), camera="top", device=CPU, **options)


def test_agents_see_features_and_proprioception():
    environments = features(2)
    observation = environments.reset()
    assert observation.dtype == np.float32
    assert observation.shape == (2, 8 + 1)
    assert environments.observation_space.shape == (9,)
    assert (environments.feature_dim, environments.state_dim) == (8, 1)
    assert observation[:, :8].sum(axis=1) == pytest.approx([1, 1])
    assert features(2, proprioception=False).reset().shape == (2, 8)


def test_an_output_that_the_encoder_lacks_is_named():
    with pytest.raises(UsageError, match=r"unknown reinforce\.feature 'poold': did you mean pooled"):
        features(2, feature="poold")


def test_the_oracle_reads_the_privileged_state():
    environments = features(2, encoder=StateEncoder(dim=2))
    observation = environments.reset()
    assert observation.shape == (2, 3)
    assert np.array_equal(observation[:, 0], observation[:, 2])  # x is in both


def test_one_encoder_call_per_step_also_when_episodes_end():
    encoder = ColumnEncoder()
    environments = features(3, encoder=encoder)
    environments.reset()
    encoder.batches.clear()
    ended = 0
    for _ in range(12):
        *_, dones, _ = environments.step(np.zeros((3, 1), np.float32))
        ended += int(dones.sum())
        assert encoder.batches == [3 + int(dones.sum())]
        encoder.batches.clear()
    assert ended >= 3


def test_the_last_observation_of_an_episode_is_its_own():
    environments = features(1, encoder=StateEncoder(dim=2))
    before = environments.reset()[0].copy()
    for _ in range(10):
        observation, _, dones, infos = environments.step(np.zeros((1, 1), np.float32))
    assert dones.tolist() == [True]
    assert infos[0]["terminal_observation"] == pytest.approx(before)  # nothing moved
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[0]["is_success"] is False
    assert infos[0]["episode"]["l"] == 10
    assert infos[0]["episode"]["r"] == pytest.approx(-10 * abs(before[0] - before[1]), rel=1e-5)
    assert observation[0] != pytest.approx(before)  # of the next episode


def test_a_success_is_no_time_limit():
    environments = features(1, encoder=StateEncoder(dim=2))
    observation = environments.reset()
    for _ in range(10):
        x, goal = observation[0, :2]
        observation, _, dones, infos = environments.step(np.clip(np.array([[(goal - x) / 0.3]], np.float32), -1, 1))
        if dones[0]:
            break
    assert infos[0]["is_success"] is True
    assert infos[0]["TimeLimit.truncated"] is False


def test_restarting_with_a_seed_repeats_its_episodes():
    slots = SlotVecEnv(make_points(2), seed=3)
    first = slots.reset()["observation.environment_state"].copy()
    assert not np.array_equal(first[0], first[1])
    slots.step(np.ones((2, 1), np.float32))
    slots.restart(4)
    other = slots.reset()["observation.environment_state"].copy()
    slots.restart(3)
    assert np.array_equal(slots.reset()["observation.environment_state"], first)
    assert not np.array_equal(other, first)


def test_only_environments_that_reset_in_the_same_step_are_taken():
    later = SyncVectorEnv([Point], autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(ValueError, match="SAME_STEP"):
        SlotVecEnv(later, seed=0)


@pytest.mark.sim
@pytest.mark.parametrize(("suite", "task"), [("metaworld", "reach-v3"), ("pixmc", "franka-reach")])
def test_stable_baselines3_finds_nothing_to_complain_about(suite, task):
    if suite == "pixmc" and find_spec("robosuite") is None:
        pytest.skip("robosuite has the robots' files")
    with closing(TaskEnv(suite=suite, task=task, image_size=40, horizon=12)) as environment:
        check_env(environment, warn=True)  # a warning is an error here


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite_reaches_no_simulator(value):
    slots = SlotVecEnv(make_points(2), seed=0)
    slots.reset()
    with pytest.raises(UserError, match=r"actions of the agent are not finite: lower policy\.learning_rate"):
        slots.step(np.array([[0.0], [value]], np.float32))
