"""What rl experts are trained with: units of the state, rewards, hindsight, and SAC in less time."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.experts.rl import RLExpert

pytest.importorskip("stable_baselines3")
if find_spec("gymnasium_robotics") is None:  # importing it would import MuJoCo before a GL library is chosen
    pytest.skip("gymnasium-robotics is not installed", allow_module_level=True)

pytestmark = pytest.mark.sim
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIRECTION, GOAL, OFFSET = slice(33, 36), slice(36, 39), slice(42, 45)


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import train_experts

    return train_experts


def settings(trainer, **changes):
    small = {"learning_starts": 10_000, "width": 8, "batch": 16, "symlog": 1, "reward_scale": 0.5, "reward_offset": 1.0}
    return trainer.Settings(suite="adroit", task="pen", **{"action_repeat": 1, **small, **changes})


def filled(trainer, steps=150, **changes):
    """A model that has seen random steps, and its environment."""
    wanted = settings(trainer, **changes)
    env = trainer.StateEnv(wanted)
    model = trainer.make_model(wanted, env)
    model.learn(steps)
    return model, env


def test_what_is_learnt_from_a_reward(trainer):
    import expert_env

    wanted = settings(trainer)
    assert expert_env.learnt_reward(wanted, np.e - 1) == pytest.approx(1.5)
    assert expert_env.learnt_reward(wanted, 1 - np.e) == pytest.approx(0.5)
    assert expert_env.learnt_reward(settings(trainer, symlog=0), 4.0) == pytest.approx(3.0)


def test_units_are_of_random_motion_and_the_saved_actor_needs_none(trainer, tmp_path):
    model, env = filled(trainer, units=1)
    states = model.replay_buffer.observations[:100, 0]
    assert np.abs(states).max() < 30  # velocities in rad/s reach 50
    assert env.unit.min() == pytest.approx(0.05)
    path = trainer.actor_path(env.settings, tmp_path)
    trainer.save_actor(path, model, env, {})
    expert = RLExpert(env.unwrapped.spec_of_task, assets=tmp_path)
    for state in states[::20]:
        expected, _ = model.predict(state, deterministic=True)
        assert expert.act({ENVIRONMENT_STATE: state * env.unit + env.mean}) == pytest.approx(expected, abs=0.02)


def test_hindsight_knows_the_suites_reward(trainer):
    import expert_goals

    model, env = filled(trainer, hindsight=0.5)
    buffer = model.replay_buffer
    size = buffer.size()
    found = expert_goals.learnt_reward(env.settings, expert_goals.pen_reward(buffer.next_observations[:size, 0]))
    assert found == pytest.approx(buffer.rewards[:size, 0], abs=1e-5)


def test_hindsight_goals_are_directions_that_the_episode_came_to_later(trainer):
    model, _ = filled(trainer, hindsight=1.0)
    buffer = model.replay_buffer
    ends = np.flatnonzero(buffer.dones[: buffer.size(), 0])
    assert len(ends) > 1
    steps = np.arange(ends[0] + 1, ends[1] + 1)
    drawn = buffer._get_samples(steps)
    reached = buffer.next_observations[:, 0]
    for step, state, after in zip(steps, drawn.observations.numpy(), drawn.next_observations.numpy(), strict=True):
        later = reached[step : ends[1] + 1, DIRECTION]
        assert np.abs(later - state[GOAL]).max(1).min() < 1e-5
        assert np.array_equal(state[GOAL], after[GOAL])
        assert after[OFFSET] == pytest.approx(after[DIRECTION] - after[GOAL], abs=1e-5)
    own = reached[steps, DIRECTION] - drawn.next_observations.numpy()[:, GOAL]
    assert (np.abs(own).max(1) > 1e-4).any()  # not just what the step itself led to


def test_without_a_share_the_goals_stay(trainer):
    model, _ = filled(trainer, hindsight=1e-9, units=1)
    steps = np.arange(40)
    drawn = model.replay_buffer._get_samples(steps)
    for found, kept in ((drawn.observations, "observations"), (drawn.next_observations, "next_observations")):
        expected = getattr(model.replay_buffer, kept)[steps, 0]
        assert found.numpy() == pytest.approx(expected, abs=1e-3)
    assert drawn.rewards.numpy() == pytest.approx(model.replay_buffer.rewards[steps], abs=1e-5)


def test_hindsight_is_refused_where_no_goal_is_known(trainer):
    wanted = trainer.Settings(suite="adroit", task="door", hindsight=0.5)
    with pytest.raises(UsageError, match="hindsight is for the pen of adroit, got door of adroit"):
        trainer.make_model(wanted, trainer.StateEnv(wanted))


def test_the_update_is_stable_baselines3s(trainer, monkeypatch):
    from stable_baselines3 import SAC

    found = []
    for algorithm in (SAC, trainer.LeanSAC):
        monkeypatch.setattr(trainer, "LeanSAC", algorithm)
        model, _ = filled(trainer, steps=60)
        before = [parameter.detach().clone() for parameter in model.policy.parameters()]
        for _ in range(3):
            model.train(1, 16)
        found.append([*model.policy.parameters(), model.log_ent_coef])
        assert all(not torch.equal(old, new) for old, new in zip(before, found[-1], strict=False))
    for expected, parameter in zip(*found, strict=True):
        assert torch.allclose(expected, parameter, atol=1e-6)
