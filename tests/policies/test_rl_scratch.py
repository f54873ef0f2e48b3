"""PPO that learns its encoder: what it sees, what the shifts add to its loss; and agents that see nothing."""

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from toy_environments import make_points

from embodied.core.errors import UsageError
from embodied.encoders.load import load_encoder
from embodied.encoders.scratch import ConvEncoder
from embodied.policies.rl.drqv2_networks import random_shift
from embodied.policies.rl.frames import BODY, FRAMES, frames_space, seen_frames, stacked
from embodied.policies.rl.frozen_features import FrozenFeatures
from embodied.policies.rl.networks import ActorCritic, LearnedFeatures
from embodied.policies.rl.ppo import PPOAgent
from embodied.policies.rl.stacked_frames import StackedFrames
from embodied.policies.rl.vec_env import SlotVecEnv

CPU = torch.device("cpu")
SIDE = 20


def slots(count=2):
    return SlotVecEnv(make_points(count, side=SIDE), seed=0)


def network(**settings):
    torch.manual_seed(0)
    arguments = PPOAgent(image_size=16, **settings).frames_network()
    actions = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    return ActorCritic(frames_space((6, 16, 16), 3), actions, lambda _: 1e-3, **arguments)


def minibatch(count=8):
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (count, 6, 16, 16), dtype=torch.uint8, generator=generator)
    return {FRAMES: frames, BODY: torch.randn(count, 3, generator=generator)}, torch.zeros(count, 2)


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_frames_are_made_small_as_for_cloning_and_rounded():
    frames = torch.randint(0, 256, (2, 9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = stacked(frames, 4)
    assert small.dtype == torch.uint8 and small.shape == (2, 3, 4, 4)
    assert torch.equal(small.float(), ConvEncoder(image_size=4).resize(frames).round())
    flat = stacked(torch.full((1, 3, 8, 8, 3), 77, dtype=torch.uint8), 5)
    assert torch.equal(flat, torch.full((1, 9, 5, 5), 77, dtype=torch.uint8))


def test_proprioception_is_of_the_present_moment():
    history = {
        "observation.images.top": torch.zeros(2, 3, 8, 8, 3, dtype=torch.uint8),
        "observation.state": torch.arange(12.0).reshape(2, 3, 2),
    }
    seen = seen_frames(history, key="observation.images.top", image_size=None, proprioception_dim=2)
    assert seen[FRAMES].shape == (2, 9, 8, 8)
    assert seen[BODY].tolist() == [[4, 5], [10, 11]]


def test_the_rollouts_hold_small_frames_as_bytes():
    agent = PPOAgent(image_size=16, rollout_steps=8, epochs=1)
    observed = agent.see_frames(slots(), camera="top")
    algorithm = agent.build(observed, network=agent.frames_network(), total_steps=16, seed=0, device=CPU)
    algorithm.learn(16)
    buffer = algorithm.rollout_buffer.observations
    assert buffer[FRAMES].dtype == np.uint8
    assert buffer[FRAMES].reshape(16, -1).shape == (16, 3 * 16 * 16)
    assert buffer[BODY].dtype == np.float32


def test_the_last_observation_of_an_episode_is_its_own():
    environments = StackedFrames(slots(1), camera="top", image_size=16, proprioception=True)
    before = {name: part[0].copy() for name, part in environments.reset().items()}
    for _ in range(10):
        observation, _, dones, infos = environments.step(np.zeros((1, 1), np.float32))
    assert dones.tolist() == [True]
    for name, part in before.items():  # nothing moved
        assert np.array_equal(infos[0]["terminal_observation"][name], part)
    assert not np.array_equal(observation[BODY][0], before[BODY])  # of the next episode


def test_frames_come_alone_where_the_robot_has_no_proprioception():
    bare = make_points(2, side=SIDE)
    spaces = bare.single_observation_space.spaces
    bare.single_observation_space = gymnasium.spaces.Dict(
        {name: space for name, space in spaces.items() if name != "observation.state"}
    )
    environments = StackedFrames(SlotVecEnv(bare, seed=0), camera="top", image_size=16, proprioception=True)
    assert environments.reset().shape == (2, 3, 16, 16)
    features = LearnedFeatures(environments.observation_space)
    assert features(torch.zeros(2, 3, 16, 16)).shape == (2, 128)


def test_every_part_of_the_encoder_learns_from_actor_and_critic():
    policy = network(augmentation="none")
    observations, actions = minibatch()
    parts = [f"features_extractor.{name}" for name, _ in policy.features_extractor.named_parameters()]
    assert len(parts) == 12 + 4 + 2 + 4  # convolutions, their head, proprioception, trunk
    for number in range(2):  # values, log probabilities
        found = gradients(policy, policy.evaluate_actions(observations, actions)[number].mean())
        assert all(found[name].abs().sum() > 0 for name in parts)


def test_consistency_adds_the_gradient_of_its_own_term_and_changes_no_value():
    policy, (observations, actions) = network(augmentation="consistency", shift=2), minibatch()

    def loss_of(values, log_prob):
        return 0.3 * (values - 1).square().mean() + 0.1 * log_prob.mean()

    torch.manual_seed(3)
    values, log_prob, _ = policy.evaluate_actions(observations, actions)
    together = gradients(policy, loss_of(values, log_prob))

    plain = network(augmentation="none")
    torch.manual_seed(3)
    moved = {**observations, FRAMES: random_shift(observations[FRAMES].float(), 2)}
    plain_values, plain_log_prob, _ = plain.evaluate_actions(observations, actions)
    term = (plain.predict_values(moved) - plain_values.detach()).square().mean()
    apart = gradients(plain, loss_of(plain_values, plain_log_prob) + term)
    assert torch.equal(values, plain_values) and torch.equal(log_prob, plain_log_prob)
    assert together.keys() == apart.keys()
    for name, gradient in apart.items():
        torch.testing.assert_close(together[name], gradient, atol=1e-6, rtol=1e-5)
    without = gradients(plain, loss_of(*plain.evaluate_actions(observations, actions)[:2]))
    assert not torch.allclose(without["value_net.weight"], apart["value_net.weight"])


def test_shifted_frames_are_what_everything_is_computed_from_if_asked():
    policy, (observations, actions) = network(augmentation="frames", shift=2), minibatch()
    torch.manual_seed(3)
    values, log_prob, _ = policy.evaluate_actions(observations, actions)
    torch.manual_seed(3)
    moved = {**observations, FRAMES: random_shift(observations[FRAMES].float(), 2)}
    expected = network(augmentation="none").evaluate_actions(moved, actions)
    assert torch.equal(values, expected[0]) and torch.equal(log_prob, expected[1])
    assert not torch.allclose(values, network(augmentation="none").evaluate_actions(observations, actions)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augmentation": "consistancy"}, "did you mean consistency"),
        ({"history": 0}, "policy.history must be at least 1, got 0"),
        ({"image_size": 8}, "policy.image_size must be at least 16, got 8"),
        ({"shift": -1}, "policy.shift must be at least 0, got -1"),
        ({"rollout_steps": 0}, "policy.rollout_steps must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, "policy.epochs must be a whole number of at least 1, got 1.5"),
        ({"initial_std": 0}, "policy.initial_std must be a number above 0, got 0"),
        ({"value_clip": -0.1}, "policy.value_clip must be a number above 0, got -0.1"),
        ({"discount": 1.01}, r"policy.discount must be in \(0, 1\], got 1.01"),
        ({"schedule": "cosin"}, "unknown policy.schedule 'cosin': did you mean cosine"),
    ],
)
def test_mistakes_are_explained(settings, message):
    with pytest.raises(UsageError, match=message):
        PPOAgent(**settings)


def test_more_channels_than_pixels_are_refused():
    environments = slots()
    space = environments.observation_space["observation.images.top"]
    longer = gymnasium.spaces.Box(0, 255, (8, *space.shape), np.uint8)
    environments.observation_space = gymnasium.spaces.Dict({"observation.images.top": longer})
    with pytest.raises(UsageError, match=r"policy.history=8 is too long for frames of 20 pixels"):
        StackedFrames(environments, camera="top")


def test_an_agent_without_a_picture_sees_proprioception_and_acts_on_it():
    agent = PPOAgent(rollout_steps=8, epochs=1)
    observed = FrozenFeatures(slots(), load_encoder("proprioception"), camera="top", device=CPU)
    assert (observed.feature_dim, observed.state_dim) == (0, 1)
    assert observed.reset().shape == (2, 1)
    algorithm = agent.build(
        observed, network=agent.network(feature_dim=0, normalise=False), total_steps=32, seed=0, device=CPU
    )
    algorithm.learn(32)
    actions, _ = algorithm.predict(np.array([[0.9], [-0.9]], np.float32), deterministic=True)
    assert actions[0] != actions[1]


def test_an_agent_needs_what_its_encoder_reads():
    environments = slots()
    spaces = environments.observation_space.spaces
    environments.observation_space = gymnasium.spaces.Dict(
        {name: space for name, space in spaces.items() if name != "observation.state"}
    )
    with pytest.raises(UsageError, match=r"the encoder reads 'observation.state', these environments give"):
        FrozenFeatures(environments, load_encoder("proprioception"), camera="top", device=CPU)
