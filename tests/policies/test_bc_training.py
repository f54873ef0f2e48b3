"""Behaviour cloning learns: what its loss depends on, what is fitted before it, what is averaged after it."""

import numpy as np
import pytest
import torch
from cloning_policies import make_batch, make_observations, make_policy, rollout
from small_policies import PLAIN_HEADS, TinyEncoder

from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.core.seeding import numpy_generator
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.policies.bc import BCPolicy
from embodied.policies.controller import feature_scales
from embodied.training.imitate import Training, imitate


@pytest.mark.parametrize("reduced", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("head", PLAIN_HEADS)
def test_every_head_learns_by_its_defaults_and_leaves_a_frozen_encoder_alone(head, reduced):
    policy = make_policy(head, history=None)
    policy.normalizer.fit(torch.rand(50, 4) * 2 - 1)
    batch = make_batch(policy)
    optimizer = torch.optim.Adam(
        [p for name, p in policy.named_parameters() if not name.startswith("encoder")], lr=1e-2
    )
    losses = []
    for step in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss, metrics = policy.loss(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert policy.encoder.scale.grad is None
    assert metrics


def test_padded_steps_change_nothing():
    policy = make_policy("flow", history=1, chunk=4)
    batch = make_batch(policy)
    batch["pad_mask"][:, 2:] = False
    other = {**batch, "action": batch["action"].clone()}
    other["action"][:, 2:] = 5.0
    losses = [policy.loss(each, torch.Generator().manual_seed(0))[0] for each in (batch, other)]
    assert torch.equal(*losses)


def test_dimensions_a_robot_lacks_reach_neither_loss_nor_action():
    policy = make_policy("mlp", history=1, action_mask=[True, True, False, True])
    batch = make_batch(policy)
    other = {**batch, "action": batch["action"].clone()}
    other["action"][..., 2] = 9.0
    assert torch.equal(*(policy.eval().loss(each)[0] for each in (batch, other)))
    _, chunk = policy.act(policy.initial(2), make_observations(1)[0])
    assert chunk[..., 2].eq(0).all() and chunk[..., [0, 1, 3]].ne(0).all()


def test_averaged_weights_are_evaluated_and_saved():
    policy = make_policy("flow", history=1)
    before = rollout(policy.eval(), make_observations(1))[1][0]
    policy.train()
    for parameter in policy.controller.parameters():
        parameter.data.add_(1.0)
    torch.testing.assert_close(rollout(policy.eval(), make_observations(1))[1][0], before)  # the average stands still
    policy.after_step()
    assert not torch.allclose(rollout(policy.eval(), make_observations(1))[1][0], before)
    copy = make_policy("flow", history=1)
    copy.load_trained_tensors(policy.trained_tensors())
    assert torch.equal(rollout(copy.eval(), make_observations(1))[1][0], rollout(policy, make_observations(1))[1][0])


def test_scales_bring_differences_and_features_to_unit_variance():
    generator = torch.Generator().manual_seed(0)
    frames = 5 + 0.1 * torch.randn(2000, 1, 4, generator=generator)
    windows = torch.cat([frames, frames + 1e-4 * torch.randn(2000, 1, 4, generator=generator)], dim=1)
    difference, present = feature_scales(windows)
    assert difference.item() == pytest.approx(1e4, rel=0.05)
    assert present.item() == pytest.approx(10, rel=0.05)
    assert [scale.item() for scale in feature_scales(torch.ones(3, 1, 2))] == [1.0, 1.0]


def test_heads_with_batch_norm_see_raw_values_and_others_centred_ones():
    generator = torch.Generator().manual_seed(0)
    windows, states = 5 + torch.randn(500, 1, 3, generator=generator), 7 + 3 * torch.randn(500, 2, generator=generator)
    for head, mean in (("mlp", 5.0), ("gmm", 0.0)):
        controller = make_policy(head, history=1).controller
        controller.fit_features(windows)
        controller.fit_state(states)
        fused = controller.fuse(windows, states[:, None])
        assert fused[..., :3].mean().item() == pytest.approx(mean * controller.feature_scale[1].item(), abs=0.1)
        assert fused[..., 3:].mean().item() == pytest.approx(7.0 if mean else 0.0, abs=0.3)


def test_scaling_leaves_present_features_last():
    policy = make_policy(history=2, proprioception_dim=0)
    policy.controller.feature_scale.copy_(torch.tensor([10.0, 2.0]))
    fused = policy.controller.fuse(torch.tensor([[[2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]]), None)
    assert fused.tolist() == [[[10.0, 10.0, 10.0, 6.0, 8.0, 10.0]]]


@pytest.mark.parametrize("head", ["mlp", "flow"])
def test_differences_of_tokens_are_those_of_all_their_values(head):
    policy = make_policy(head=head, neck="flare", feature="tokens", feature_shape=(4, 3), history=2)
    batch = make_batch(policy)
    policy.controller.fit_features(batch["features"])
    flat = make_policy(head=head, neck="flare", feature="pooled", feature_shape=(12,), history=2)
    flat.load_state_dict(policy.state_dict())
    loss, same = (
        made.loss({**batch, "features": batch["features"].flatten(start)}, torch.Generator().manual_seed(0))[0]
        for made, start in ((policy, 3), (flat, 2))
    )
    assert torch.isfinite(loss) and torch.equal(loss, same)


def test_batch_norm_needs_two_samples():
    policy = make_policy(history=1)
    with pytest.raises(UsageError, match=r"train\.batch_size must be at least 2"):
        policy.loss(make_batch(policy, batch=1))


# Of the protocol before heads and necks were parts: the same seeds must go on giving the same training.
RECORDED = {
    ("mlp", 1): [0.9988957643508911, 1.160629153251648, 1.3333444595336914, 0.7286217212677002, 0.6283708214759827],
    ("mlp", 3): [0.9734135866165161, 1.136605978012085, 1.3330135345458984, 0.7258038520812988, 0.598767876625061],
    ("conv", 1): [0.8336573243141174, 1.210797905921936, 1.0984200239181519, 0.8248589038848877, 1.0838067531585693],
    ("conv", 2): [0.8213979005813599, 1.1275728940963745, 1.0828582048416138, 0.7515356540679932, 1.0151809453964233],
}


@pytest.mark.parametrize(("head", "history"), list(RECORDED))
def test_the_protocol_trains_as_it_did_before(head, history, tmp_path):
    rng = numpy_generator(0, "bc")
    shape = (64, 3) if head == "conv" else (5,)
    samples = Demonstrations(
        rng.normal(size=(40, *shape)).astype(np.float32) + 1,
        state=rng.normal(size=(40, 2)).astype(np.float32),
        action=rng.normal(size=(40, 3)).astype(np.float32),
        lengths=[15, 25],
        history=history,
    )
    torch.manual_seed(11)
    options = {"head": head, "hidden": (16, 16), "channels": 8, "bottleneck": 4, "history": history}
    policy = BCPolicy(TinyEncoder(), camera="front", proprioception_dim=2, action_dim=3, feature_shape=shape, **options)
    policy.encoder.requires_grad_(False)
    policy.normalizer.fit(samples.actions)
    policy.controller.fit_state(samples.states)
    policy.controller.fit_features(samples.batch(np.arange(40))["features"])
    records = []
    imitate(
        policy,
        samples,
        Training(steps=6, batch_size=14, learning_rate=1e-2, weight_decay=0.01, checkpoints=1),
        seed=3,
        checkpoint_folder=tmp_path,
        metadata={},
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        log_every=1,
    )
    assert [record["loss"] for record in records[:5]] == pytest.approx(RECORDED[head, history], rel=1e-5)


def test_learns_to_read_the_feature():
    policy = make_policy(history=1)
    generator = torch.Generator().manual_seed(0)
    features, state = torch.randn(256, 1, 3, generator=generator), torch.zeros(256, 1, 2)
    action = torch.cat([features[:, 0], features[:, 0, :1] * 2], dim=1)[:, None]
    batch = {
        "features": features,
        "observation.state": state,
        "action": action,
        "pad_mask": torch.ones(256, 1, dtype=torch.bool),
    }
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trivial = action.var(dim=0).mean()
    assert loss.item() < 0.1 * trivial.item()
