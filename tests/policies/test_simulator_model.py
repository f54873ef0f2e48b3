"""The simulator as a world model: it says what would really happen, wherever the episode is."""

from functools import cache

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import image_key
from embodied.encoders.load import load_encoder
from embodied.envs.task_env import TaskEnv
from embodied.models.sequence.world_model import Context
from embodied.policies.action_space import ActionSpace
from embodied.policies.visual_mpc import VisualMPC
from embodied.policies.visual_planning import simulator
from embodied.policies.visual_planning.simulator import SimulatorModel

pytestmark = pytest.mark.sim
OPTIONS = {"suite": "metaworld", "task": "reach-v3", "camera": "corner4", "image_size": 24, "horizon": 60}
KEY = image_key("corner4")


def actions(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (*shape, 4)).astype(np.float32))


def context_of(seeds, past, steps):
    """Environments of these seeds, of whose actions so many have been taken."""
    count = len(seeds)
    return Context(
        frames=torch.zeros(count, 1, 24, 24, 3, dtype=torch.uint8),
        actions=torch.zeros(count, 0, 4),
        steps=torch.tensor(steps),
        keys=torch.zeros(count).long(),
        seeds=torch.tensor(seeds),
        past=past,
    )


@cache
def real_environment(images):
    return TaskEnv(**{**OPTIONS, "images": images})


def really(seed, past, plan, *, images=False):
    """Rewards and frames of a plan, in an environment that is reset and never set back."""
    env = real_environment(images)
    env.reset(seed=seed)
    for action in past:
        env.step(action.numpy())
    steps = [env.step(action.numpy()) for action in plan]
    return [step[1] for step in steps], [step[0].get(KEY) for step in steps]


def test_it_says_what_really_happens():
    model = SimulatorModel(OPTIONS, camera="corner4")
    past, plans = actions(2, 60, seed=1), actions(2, 3, 4)
    for steps in ([7, 4], [9, 4], [3, 0]):  # on, and back to the beginning
        rewards = model.rollout(context_of([5, 8], past, steps), plans).rewards
        assert rewards.shape == (2, 3, 4)
        for row, seed in enumerate((5, 8)):
            for candidate in range(3):
                wanted, _ = really(seed, past[row, : steps[row]], plans[row, candidate])
                assert rewards[row, candidate].tolist() == pytest.approx(wanted, abs=1e-6)
    swapped = model.rollout(context_of([8, 5], past.flip(0), [0, 3]), plans.flip(0)).rewards
    assert torch.equal(swapped.flip(0), rewards)
    model.close()


def test_it_shows_what_really_would_be_seen():
    past, plans = actions(1, 60, seed=1), actions(1, 2, 3)
    shown = {
        frames: SimulatorModel(OPTIONS, camera="corner4", frames=frames)
        .rollout(context_of([5], past, [4]), plans)
        .frames
        for frames in ("all", "last")
    }
    assert shown["all"].shape == (1, 2, 3, 24, 24, 3)
    assert torch.equal(shown["last"], shown["all"][:, :, -1:])
    for candidate in range(2):
        _, frames = really(5, past[0, :4], plans[0, candidate], images=True)
        assert np.array_equal(shown["all"][0, candidate].numpy(), np.stack(frames))


def test_after_a_success_its_reward_is_repeated_and_after_another_end_there_is_none(monkeypatch):
    model = SimulatorModel({**OPTIONS, "horizon": 6}, camera="corner4")
    rewards = model.rollout(context_of([5], actions(1, 6), [4]), actions(1, 1, 4)).rewards[0, 0]
    assert (rewards[:2] != 0).all()
    assert (rewards[2:] == 0).all()  # the episode has ended
    step = TaskEnv.step

    def succeeding(self, action):
        observation, reward, _, _, info = step(self, action)
        return observation, reward, True, False, {**info, "success": True}

    model = SimulatorModel(OPTIONS, camera="corner4")
    context = context_of([5], actions(1, 6), [0])
    model.rollout(context, actions(1, 1, 1))
    monkeypatch.setattr(TaskEnv, "step", succeeding)
    rewards = model.rollout(context, actions(1, 1, 4)).rewards[0, 0]
    assert torch.equal(rewards, rewards[:1].expand(4))
    assert rewards[0] != 0


def planner(**settings):
    env = TaskEnv(**{**OPTIONS, "images": False})
    space = ActionSpace(low=tuple(env.action_space.low.tolist()), high=tuple(env.action_space.high.tolist()))
    arguments = {"model": "simulator", "env": OPTIONS, "camera": "corner4", "image_size": 24, "cost": "reward"}
    return VisualMPC(
        load_encoder("pixels"), **arguments, action_space=space.record(), episode_steps=60, goals=0, **settings
    ).eval()


def test_a_problem_of_one_step_is_solved_to_the_simulators_bound():
    """No candidate has more reward in a simulator of its own than the one that is chosen."""
    tried = {}
    for name, options in (("shooting", {"samples": 24}), ("cem", {"samples": 24, "iterations": 4})):
        policy = planner(horizon=1, planner=name, planner_options=options)
        offered = []
        rollout = policy.model.rollout
        policy.model.rollout = lambda context, plans, r=rollout, o=offered: o.append(plans) or r(context, plans)
        observation = {KEY: torch.zeros(1, 24, 24, 3, dtype=torch.uint8)}
        _, chunk = policy.act(policy.initial(1, seeds=[3]), observation)
        bound = max(really(3, [], plan)[0][0] for plans in offered for plan in plans[0])
        tried[name] = really(3, [], chunk[0])[0][0]
        assert tried[name] == pytest.approx(bound, abs=1e-6)
    assert tried["cem"] > tried["shooting"]


def test_a_planned_episode_is_the_same_beside_others():
    """The environments are stepped here, as the evaluation does it: the model never sees them."""

    def run(seeds, steps=3):
        policy = planner(horizon=2, planner_options={"samples": 6, "elites": 2, "iterations": 2})
        environments = [TaskEnv(**OPTIONS) for _ in seeds]
        frames = [env.reset(seed=seed)[0][KEY] for env, seed in zip(environments, seeds, strict=True)]
        carry, taken = policy.initial(len(seeds), seeds=seeds), []
        for _ in range(steps):
            carry, chunk = policy.act(carry, {KEY: torch.from_numpy(np.stack(frames))})
            taken.append(chunk[:, 0])
            frames = [env.step(action.numpy())[0][KEY] for env, action in zip(environments, chunk[:, 0], strict=True)]
        for env in environments:
            env.close()
        return torch.stack(taken, dim=1)

    together = run([4, 11])
    assert torch.equal(run([11])[0], together[1])
    assert torch.equal(run([4])[0], together[0])


def test_what_cannot_be_is_explained(monkeypatch):
    with pytest.raises(UsageError, match="needs to know the seed of the episode"):
        context = context_of([1], actions(1, 6), [0])
        model = SimulatorModel(OPTIONS, camera="corner4")
        model.rollout(Context(**{**vars(context), "seeds": None}), actions(1, 1, 1))
    with pytest.raises(UsageError, match=str(unknown_name("x", "first", ["none", "last", "all"])).split(": ")[1]):
        SimulatorModel(OPTIONS, camera="corner4", frames="first")
    with pytest.raises(UsageError, match=r"env\.chain must be 1, got 3"):
        SimulatorModel({**OPTIONS, "chain": 3}, camera="corner4")
    with pytest.raises(UsageError, match="plans in simulation, not on a robot"):
        planner(horizon=1).initial(1)
    monkeypatch.setattr(simulator, "is_exact", lambda env, seed: False)
    with pytest.raises(UserError, match="cannot be set back exactly"):
        SimulatorModel(OPTIONS, camera="corner4").rollout(context, actions(1, 1, 1))
