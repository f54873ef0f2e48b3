"""Behaviour cloning: what the policy reads, and that acting equals what it was trained on."""

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError
from embodied.policies.bc import BCPolicy, feature_scales


class TinyEncoder(nn.Module):
    """Pooled feature = mean colour times a weight; tokens = the pixels."""

    modality, width, grid, trainable = "image", 3, (8, 8), False

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def preprocess(self, frames):
        return frames.permute(0, 3, 1, 2).float() / 255

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2) * self.scale
        return tokens, {"pooled": tokens.mean(1)}


def make_policy(head="mlp", history=3, **options):
    torch.manual_seed(0)
    shape = (64, 3) if head == "conv" else (3,)
    return BCPolicy(
        TinyEncoder(),
        camera="front",
        proprioception_dim=2,
        action_dim=4,
        feature_shape=shape,
        head=head,
        history=history,
        hidden=(16, 16),
        channels=8,
        bottleneck=None,
        **options,
    )


def make_observations(steps, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "observation.images.front": torch.randint(0, 256, (batch, 8, 8, 3), generator=generator, dtype=torch.uint8),
            "observation.state": torch.randn(batch, 2, generator=generator),
        }
        for _ in range(steps)
    ]


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_acting_step_by_step_equals_predicting_from_the_window(head):
    policy = make_policy(head).eval()
    policy.set_action_statistics(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 1.0, 2.0, 0.0]))
    observations = make_observations(4)
    carry, actions = policy.initial(2), []
    for observation in observations:
        carry, chunk = policy.act(carry, observation)
        actions.append(chunk)
    features = [policy.encode(observation["observation.images.front"]) for observation in observations]
    for step in range(4):
        window = torch.stack([features[max(0, step - 2)], features[max(0, step - 1)], features[step]], dim=1)
        expected = policy.predict(window, observations[step]["observation.state"])
        expected = expected * policy.action_std + policy.action_mean
        assert actions[step].shape == (2, 1, 4)
        torch.testing.assert_close(actions[step][:, 0], expected)


def test_act_does_not_change_the_carry_it_was_given():
    policy = make_policy().eval()
    first, second = make_observations(2)
    carry, _ = policy.act(policy.initial(2), first)
    before = {name: tensor.clone() for name, tensor in carry.items()}
    _, once = policy.act(carry, second)
    _, twice = policy.act(carry, second)
    assert torch.equal(once, twice)
    assert all(torch.equal(before[name], carry[name]) for name in carry)


def test_a_constant_action_is_reproduced():
    policy = make_policy()
    policy.set_action_statistics(torch.full((4,), 0.7), torch.zeros(4))
    assert torch.equal(policy.action_std, torch.ones(4))


def test_gradient_stays_out_of_a_frozen_encoder_that_reads_the_cache():
    policy = make_policy()
    batch = {
        "features": torch.randn(8, 3, 3),
        "observation.state": torch.randn(8, 2),
        "action": torch.randn(8, 4),
    }
    loss, metrics = policy.loss(batch)
    loss.backward()
    assert policy.encoder.scale.grad is None
    assert set(metrics) == {"action_error"}


def test_frozen_encoder_is_left_out_of_the_checkpoint_and_a_trained_one_is_in():
    policy = make_policy()
    assert not any(name.startswith("encoder.") for name in policy.trained_tensors())
    policy.trainable_encoder = True
    assert "encoder.scale" in policy.trained_tensors()


def test_a_checkpoint_of_another_policy_is_refused():
    with pytest.raises(UsageError, match="another policy"):
        make_policy(history=3).load_trained_tensors(make_policy(history=2).trained_tensors())


def test_scales_bring_differences_and_features_to_unit_variance():
    generator = torch.Generator().manual_seed(0)
    frames = 5 + 0.1 * torch.randn(2000, 1, 4, generator=generator)
    windows = torch.cat([frames, frames + 1e-4 * torch.randn(2000, 1, 4, generator=generator)], dim=1)
    difference, present = feature_scales(windows)
    assert difference.item() == pytest.approx(1e4, rel=0.05)
    assert present.item() == pytest.approx(10, rel=0.05)
    assert [scale.item() for scale in feature_scales(torch.ones(3, 1, 2))] == [1.0, 1.0]


def test_scaling_leaves_present_features_last():
    policy = make_policy(history=2)
    policy.set_feature_scale(torch.tensor(10.0), torch.tensor(2.0))
    assert policy.scale(torch.tensor([[1.0, 1.0, 1.0, 3.0, 4.0, 5.0]])).tolist() == [[10.0, 10.0, 10.0, 6.0, 8.0, 10.0]]


def test_history_must_be_positive():
    with pytest.raises(UsageError, match="at least 1, got 0"):
        make_policy(history=0)


def test_learns_to_read_the_feature():
    policy = make_policy(history=1)
    generator = torch.Generator().manual_seed(0)
    features, state = torch.randn(256, 1, 3, generator=generator), torch.zeros(256, 2)
    action = torch.cat([features[:, 0], features[:, 0, :1] * 2], dim=1)
    batch = {"features": features, "observation.state": state, "action": action}
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trivial = action.var(dim=0).mean()
    assert loss.item() < 0.1 * trivial.item()
