"""What every action head promises: shapes, masks that hide, and randomness that comes from where it should."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.core.protocols import ActionHead
from embodied.policies.heads.registry import heads, load_head

from .head_samples import MAKERS, A, H, T, V, make_batch, make_head

every_head = pytest.mark.parametrize("name", MAKERS)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def gradients(head, *, features, actions, pad_mask, action_mask=None):
    head.zero_grad()
    loss, _ = head.loss(features, actions, pad_mask, action_mask=action_mask, generator=seeded())
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}


def assert_same(first, second):
    assert torch.equal(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_registry_finds_every_head_by_its_module():
    assert list(heads()) == ["act", "bins", "diffusion", "flow", "gmm", "gr1", "mlp", "rnn_gmm", "vq_bet"]
    assert load_head("gmm").__name__ == "GMMHead"
    with pytest.raises(UsageError, match="unknown policy head 'difusion': did you mean diffusion"):
        load_head("difusion")


@every_head
def test_satisfies_the_protocol(name):
    head = make_head(name)
    assert isinstance(head, ActionHead)
    assert (head.history, head.feature_dim, head.horizon, head.action_dim) == (T, V, H, A)


@every_head
def test_loss_is_a_scalar_with_scalar_metrics_and_gradients(name):
    features, actions, pad_mask = make_batch()
    loss, found = gradients(make_head(name), features=features, actions=actions, pad_mask=pad_mask)
    assert loss.shape == () and loss.isfinite()
    assert found and any(gradient.abs().sum() > 0 for gradient in found.values())
    _, metrics = make_head(name).loss(features, actions, pad_mask)
    assert metrics and all(value.shape == () and not value.requires_grad for value in metrics.values())


@every_head
def test_learns_under_autocast(name):
    head, batch = make_head(name), make_batch()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = head.loss(*batch)
        loss.backward()
    assert torch.isfinite(loss)


@every_head
def test_padded_steps_reach_neither_loss_nor_gradient(name):
    features, actions, pad_mask = make_batch()
    other = torch.where(pad_mask[..., None], actions, torch.full_like(actions, float("nan")))
    first, second = make_head(name), make_head(name)
    options = {"features": features, "pad_mask": pad_mask}
    assert_same(gradients(first, actions=actions, **options), gradients(second, actions=other, **options))


@every_head
def test_real_steps_do_reach_the_loss(name):
    features, actions, pad_mask = make_batch()
    moved = torch.where(pad_mask[..., None], -actions, actions)
    options = {"features": features, "pad_mask": pad_mask}
    first = gradients(make_head(name), actions=actions, **options)
    second = gradients(make_head(name), actions=moved, **options)
    assert not torch.equal(first[0], second[0])


@every_head
@pytest.mark.parametrize("per_sample", [False, True])
def test_masked_dimensions_reach_neither_loss_nor_gradient(name, per_sample):
    features, actions, pad_mask = make_batch()
    mask = torch.tensor([True, False])
    if per_sample:
        mask = torch.stack([mask, ~mask] * 4)
    other = torch.where(mask.reshape(-1, 1, A), actions, torch.full_like(actions, float("inf")))
    first, second = make_head(name), make_head(name)
    options = {"features": features, "pad_mask": pad_mask, "action_mask": mask}
    assert_same(gradients(first, actions=actions, **options), gradients(second, actions=other, **options))


@every_head
def test_nothing_real_is_a_loss_of_zero(name):
    features, actions, _ = make_batch()
    loss, _ = make_head(name).loss(features, actions, torch.zeros(len(actions), H, dtype=torch.bool))
    assert loss.item() == 0.0


@every_head
def test_samples_are_chunks_determined_by_noise(name):
    head, (features, _, _) = make_head(name).eval(), make_batch()
    shape = head.noise_shape(len(features))
    noise = None if shape is None else torch.randn(shape, generator=seeded())
    first = head.sample(features, noise=noise, generator=seeded(4))
    second = head.sample(features, noise=noise, generator=seeded(5))
    assert first.shape == (len(features), H, A)
    assert torch.equal(first, second)
    if shape is not None:
        assert shape[0] == len(features)
        drawn = head.sample(features, generator=seeded(3))
        assert torch.equal(drawn, first), "a generator draws the noise that could have been handed in"
        assert not torch.equal(head.sample(features, generator=seeded(6)), first)


@every_head
def test_rows_of_a_batch_are_sampled_independently(name):
    head, (features, _, _) = make_head(name).eval(), make_batch()
    shape = head.noise_shape(len(features))
    noise = None if shape is None else torch.randn(shape, generator=seeded())
    whole = head.sample(features, noise=noise)
    alone = head.sample(features[2:3], noise=None if noise is None else noise[2:3])
    torch.testing.assert_close(whole[2:3], alone, atol=1e-5, rtol=1e-5)


@every_head
def test_masked_dimensions_are_sampled_as_zero_and_their_noise_moves_nothing(name):
    head, (features, _, _) = make_head(name).eval(), make_batch()
    mask = torch.tensor([True, False])
    shape = head.noise_shape(len(features))
    noise = None if shape is None else torch.randn(shape, generator=seeded()).requires_grad_()
    chunk = head.sample(features, action_mask=mask, noise=noise)
    assert torch.equal(chunk[..., 1], torch.zeros(len(features), H))
    if shape is not None and shape[-2:] == (H, A) and chunk.requires_grad:
        (gradient,) = torch.autograd.grad(chunk.sum(), noise, allow_unused=True)
        if gradient is not None:
            assert gradient[..., 1].abs().max() == 0
            assert name.startswith("bins") or gradient[..., 0].abs().max() > 0


@every_head
def test_the_generator_is_the_only_randomness_of_the_loss(name):
    features, actions, pad_mask = make_batch()
    torch.manual_seed(1)
    first = gradients(make_head(name), features=features, actions=actions, pad_mask=pad_mask)
    torch.manual_seed(2)
    second = gradients(make_head(name), features=features, actions=actions, pad_mask=pad_mask)
    assert_same(first, second)


@pytest.mark.parametrize("name", ["act", "diffusion-transformer", "flow-transformer", "vq_bet"])
def test_dropout_follows_the_generator_and_leaves_the_global_one_alone(name):
    features, actions, pad_mask = make_batch()
    head = make_head(name)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    head.train().loss(features, actions, pad_mask, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    train = head.loss(features, actions, pad_mask, generator=seeded())[0]
    assert not torch.equal(train, head.eval().loss(features, actions, pad_mask, generator=seeded())[0])


@every_head
def test_wrong_shapes_are_named(name):
    head, (features, actions, pad_mask) = make_head(name), make_batch()
    with pytest.raises(UsageError, match=r"features: expected \[B, T=4, V=3\], got \[8, 3, 3\]"):
        head.loss(features[:, 1:], actions, pad_mask)
    with pytest.raises(UsageError, match=r"features: expected"):
        head.sample(features[..., :2])
    with pytest.raises(UsageError, match=r"actions: expected \[B, H=4, A=2\], got \[8, 4, 1\]"):
        head.loss(features, actions[..., :1], pad_mask)
    with pytest.raises(UsageError, match=r"pad_mask: expected bool \[8, 4\] with True = real step, got torch.float32"):
        head.loss(features, actions, pad_mask.float())
    with pytest.raises(UsageError, match=r"action_mask: expected bool \[A=2\] or \[B=8, A=2\]"):
        head.loss(features, actions, pad_mask, action_mask=torch.ones(3, dtype=torch.bool))
    if head.noise_shape(8) is not None:
        with pytest.raises(UsageError, match=r"noise: expected \[8, .*see noise_shape"):
            head.sample(features, noise=torch.zeros(8, 99))


@every_head
@pytest.mark.parametrize("size", ["feature_dim", "history", "horizon", "action_dim"])
def test_sizes_below_one_are_refused(name, size):
    sizes = {"feature_dim": V, "history": T, "horizon": H, "action_dim": A, size: 0}
    if name == "rnn_gmm" and size == "history":
        sizes["horizon"] = 0  # the two are one for it
    with pytest.raises(UsageError, match=f"{size}.* must be .*got 0"):
        MAKERS[name](**sizes)


@every_head
def test_state_dict_rebuilds_the_head(name):
    head, (features, _, _) = make_head(name).eval(), make_batch()
    torch.manual_seed(9)
    other = MAKERS[name](feature_dim=V, history=T, horizon=H, action_dim=A).eval()
    other.load_state_dict(head.state_dict())
    assert torch.equal(head.sample(features, generator=seeded()), other.sample(features, generator=seeded()))
