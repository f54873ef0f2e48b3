"""DrQ-v2: the augmentation, the update's rules, learning from pictures of the toy."""

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from gymnasium.spaces import Box
from toy_environments import make_points

from embodied.core.errors import UsageError
from embodied.encoders.scratch import ConvEncoder
from embodied.policies.rl import state
from embodied.policies.rl.drqv2 import DrQv2Agent
from embodied.policies.rl.drqv2_networks import DrQPolicy, random_shift
from embodied.policies.rl.frames import stacked
from embodied.policies.rl.policy import RLPolicy
from embodied.policies.rl.stacked_frames import StackedFrames
from embodied.policies.rl.vec_env import SlotVecEnv

CPU = torch.device("cpu")
SIDE = 20
SPACE, ACTIONS = Box(0, 255, (9, SIDE, SIDE), np.uint8), Box(-1, 1, (2,), np.float32)


def small_agent(**settings):
    chosen = {"warmup_steps": 64, "batch_size": 16, "train_every": 4, "trunk": 16, "hidden": 32, "shift": 1}
    return DrQv2Agent(**{**chosen, "noise_steps": 200, **settings})


def build(agent, count=2):
    observed = StackedFrames(SlotVecEnv(make_points(count, side=SIDE), seed=0), camera="top")
    return agent.build(observed, network=agent.frames_network(), total_steps=600, seed=1, device=CPU)


def test_frames_are_stacked_oldest_first():
    frames = torch.arange(2 * 3 * 4 * 4 * 3).to(torch.uint8).reshape(2, 3, 4, 4, 3)
    channels = stacked(frames)
    assert channels.shape == (2, 9, 4, 4)
    for moment in range(3):
        for channel in range(3):
            assert torch.equal(channels[:, 3 * moment + channel], frames[:, moment, :, :, channel])
    assert stacked(frames[:, 0]).shape == (2, 3, 4, 4)


def test_a_shift_moves_each_picture_by_whole_pixels_and_repeats_the_border():
    torch.manual_seed(0)
    frames = torch.rand(64, 3, 6, 6)
    shifted = random_shift(frames, 2)
    padded = torch.nn.functional.pad(frames, (2,) * 4, mode="replicate")
    found = set()
    for before, after in zip(padded, shifted, strict=True):
        matches = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.allclose(before[:, y : y + 6, x : x + 6], after, atol=1e-5)
        ]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 15  # of 25
    assert torch.equal(random_shift(frames, 0), frames)


@pytest.mark.parametrize("encoder", ["drqv2", "lfs"])
def test_the_encoder_learns_from_the_critics_alone(encoder):
    algorithm = build(small_agent(encoder=encoder))
    algorithm.learn(60)  # random actions only
    before = {name: tensor.clone() for name, tensor in algorithm.policy.state_dict().items()}

    def changed():
        now = algorithm.policy.state_dict()
        return {name.split(".")[0] for name, old in before.items() if not torch.allclose(now[name], old, atol=1e-8)}

    critic_step = algorithm.critic.optimizer.step
    algorithm.critic.optimizer.step = lambda: None
    algorithm.train(gradient_steps=2, batch_size=8)
    assert changed() == {"actor"}
    algorithm.critic.optimizer.step = critic_step
    algorithm.train(gradient_steps=1, batch_size=8)
    assert changed() == {"actor", "encoder", "critic", "critic_target"}


def test_the_bounds_cut_noisy_actions_but_not_their_gradients():
    """As the authors' TruncatedNormal: else an actor near a bound would learn from the noise that points inwards."""
    algorithm = build(small_agent())
    action = torch.full((500, 2), 0.95, requires_grad=True)
    noisy = algorithm._noisy(action)
    noisy.sum().backward()
    assert noisy.max() < 1 and (noisy > 1 - 1e-5).any() and torch.equal(action.grad, torch.ones(500, 2))


def test_noise_falls_along_a_line():
    algorithm = build(small_agent())
    found = []
    for steps in (0, 100, 200, 400):
        algorithm.num_timesteps = steps
        found.append(algorithm.noise())
    assert found == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_exploration_is_noisy_and_evaluation_is_not():
    policy = DrQPolicy(SPACE, ACTIONS, lambda _: 1e-4, trunk=8, hidden=16)
    policy.noise = lambda: 0.5
    frames = torch.zeros(4, 9, SIDE, SIDE, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(policy(frames, deterministic=True), policy(frames, deterministic=True))
        noisy = policy(frames)
    assert noisy.abs().max() <= 1
    assert noisy[0].ne(noisy[1]).all()


def test_widths_match_the_papers_at_84_pixels():
    policy = DrQPolicy(Box(0, 255, (9, 84, 84), np.uint8), ACTIONS, lambda _: 1e-4)
    assert policy.encoder.width == 39200  # 32 x 35 x 35
    assert policy.actor.network[0][0].out_features == 50
    with pytest.raises(UsageError, match="did you mean lfs"):
        DrQPolicy(SPACE, ACTIONS, lambda _: 1e-4, encoder="lsf")


def test_the_whole_state_survives_and_the_artifact_acts_like_the_agent(tmp_path):
    agent = small_agent()
    algorithm = build(agent)
    algorithm.learn(200)
    state.save_state(tmp_path / "s.safetensors", algorithm)
    other = build(agent)
    state.load_state(tmp_path / "s.safetensors", other)
    for name, tensor in algorithm.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name
    assert np.array_equal(algorithm.replay_buffer.observations, other.replay_buffer.observations)
    settings = {name: getattr(agent, name) for name in DrQv2Agent.__dataclass_fields__}
    policy = RLPolicy(
        ConvEncoder(), method="drqv2", settings=settings, camera="top", feature="pooled", feature_dim=0,
        proprioception_dim=0, action_low=[-1.0], action_high=[1.0], frames_shape=[3, SIDE, SIDE],
    )  # fmt: skip
    policy.load_trained_tensors({f"agent.{k}": v for k, v in algorithm.policy.state_dict().items()})
    frames = algorithm._last_obs
    observation = {"observation.images.top": torch.from_numpy(frames.transpose(0, 2, 3, 1).copy())}
    _, chunk = policy.act({}, observation)
    assert np.allclose(chunk[:, 0].numpy(), algorithm.predict(frames, deterministic=True)[0], atol=1e-6)


@pytest.mark.slow
def test_learns_from_pictures():
    """The picture shows where the point is, not the goal: going to the middle is the best that can be done."""
    agent = small_agent(
        learning_rate=1e-3, discount=0.8, train_every=2, updates=2, batch_size=64, noise_steps=1500, polyak=0.02
    )
    observed = StackedFrames(SlotVecEnv(make_points(4, side=SIDE), seed=0), camera="top")
    algorithm = agent.build(observed, network=agent.frames_network(), total_steps=2400, seed=1, device=CPU)
    algorithm.learn(2400)
    policy = algorithm.policy

    def action_at(column):
        frames = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
        frames[..., column] = 255
        with torch.no_grad():
            return float(policy(frames, deterministic=True))

    assert action_at(2) > 0.2
    assert action_at(SIDE - 3) < -0.2
