"""ACT: what the style carries, and who sees what."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads.act import ACTHead

from .head_samples import make_batch, make_head


def test_style_is_zero_at_test_time():
    head, (features, _, _) = make_head("act").eval(), make_batch()
    assert head.noise_shape(8) is None
    torch.testing.assert_close(head.sample(features), head.decode(features, torch.zeros(8, 4)))


def test_style_is_drawn_from_its_prior_if_asked():
    head, (features, _, _) = make_head("act-prior").eval(), make_batch()
    z = torch.randn(8, 4)
    torch.testing.assert_close(head.sample(features, noise=z), head.decode(features, z))


def test_decoder_sees_the_actions_through_the_style_only():
    head, (features, actions, _) = make_head("act").eval(), make_batch()
    actions.requires_grad_()
    mean, log_variance = head.posterior(features, actions, torch.ones(8, 4, dtype=torch.bool))
    assert mean.shape == log_variance.shape == (8, 4)
    chunk = head.decode(features, mean.detach())
    assert torch.autograd.grad(chunk.sum(), actions, allow_unused=True)[0] is None
    assert torch.autograd.grad(mean.sum(), actions)[0].abs().sum() > 0


def test_style_is_conditioned_on_the_present_moment_only():
    head, (features, actions, _) = make_head("act").eval(), make_batch()
    features.requires_grad_()
    mean, _ = head.posterior(features, actions, torch.ones(8, 4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(mean.sum(), features)
    assert gradient[:, :-1].abs().max() == 0 and gradient[:, -1].abs().max() > 0


def test_divergence_is_zero_for_the_prior_and_literal_elsewhere():
    head, (features, actions, pad_mask) = make_head("act").eval(), make_batch()
    torch.nn.init.zeros_(head.vae_latent.weight)
    torch.nn.init.zeros_(head.vae_latent.bias)
    assert head.loss(features, actions, pad_mask)[1]["kl"].item() == 0.0
    with torch.no_grad():
        head.vae_latent.bias[:4] = 2.0  # the mean: 0.5 * 2^2 per dimension
    assert head.loss(features, actions, pad_mask)[1]["kl"].item() == pytest.approx(8.0)


def test_width_must_fit_the_heads():
    with pytest.raises(UsageError, match="width must be a multiple of heads=5, got 512"):
        ACTHead(feature_dim=1, action_dim=1, heads=5)
