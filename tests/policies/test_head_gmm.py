"""Mixtures: densities of `torch.distributions` and of robomimic, draws that follow them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions

from embodied.core.errors import UsageError
from embodied.policies.heads.gmm import GMMHead
from embodied.policies.heads.mixture import Mixture
from embodied.policies.heads.rnn_gmm import RNNGMMHead

from ..oracles.heads_numbers import fill, tensor

FIXTURES = Path(__file__).parent / "fixtures"


def make_mixture(batch=6, modes=3, values=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, modes, generator=generator)
    means = torch.randn(batch, modes, values, generator=generator)
    return Mixture(logits, means, torch.rand(batch, modes, values, generator=generator) + 0.1)


def reference(mixture, kept=slice(None)):
    components = distributions.Independent(distributions.Normal(mixture.means[..., kept], mixture.stds[..., kept]), 1)
    return distributions.MixtureSameFamily(distributions.Categorical(logits=mixture.logits), components)


def test_log_likelihood_equals_torch_distributions():
    mixture, values = make_mixture(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    ours = mixture.log_prob(values, torch.ones_like(values))
    torch.testing.assert_close(ours, reference(mixture).log_prob(values))


def test_masked_values_are_integrated_out():
    mixture, values = make_mixture(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    ours = mixture.log_prob(values, torch.tensor([1.0, 0.0, 1.0, 0.0]).expand_as(values))
    torch.testing.assert_close(ours, reference(mixture, [0, 2]).log_prob(values[:, [0, 2]]))


def test_loss_of_a_chunk_is_nats_per_real_step():
    torch.manual_seed(0)
    head = GMMHead(feature_dim=3, horizon=2, action_dim=2, hidden=(8,), modes=3)
    features, actions = torch.randn(5, 1, 3), torch.rand(5, 2, 2) - 0.5
    loss, _ = head.loss(features, actions, torch.ones(5, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, -reference(head(features)).log_prob(actions.flatten(1)).sum() / 10)


def test_draws_follow_the_mixture():
    one = Mixture(torch.tensor([1.0, -1.0]).log_softmax(0), torch.tensor([[-2.0], [3.0]]), torch.tensor([[0.5], [0.1]]))
    many = Mixture(one.logits.expand(20000, 2), one.means.expand(20000, 2, 1), one.stds.expand(20000, 2, 1))
    draws = many.draw(torch.randn(20000, 2, generator=torch.Generator().manual_seed(0)))[:, 0]
    low = draws[draws < 1]
    assert len(low) / 20000 == pytest.approx(one.logits.softmax(0)[0].item(), abs=0.01)
    assert (low.mean().item(), low.std().item()) == pytest.approx((-2.0, 0.5), abs=0.02)
    assert draws[draws > 1].std().item() == pytest.approx(0.1, abs=0.01)


def test_low_noise_samples_stay_at_the_means():
    torch.manual_seed(0)
    options = {"feature_dim": 3, "action_dim": 2, "hidden": (8,), "modes": 2}
    quiet, noisy = GMMHead(**options), GMMHead(low_noise_eval=False, **options)
    noisy.load_state_dict(quiet.state_dict())
    features, noise = torch.randn(64, 1, 3), torch.randn(64, 3)
    mixture = quiet(features)
    distance = (quiet.sample(features, noise=noise) - mixture.means).abs().amax(dim=-1).amin(dim=1)
    assert distance.max() < 1e-3
    torch.testing.assert_close(noisy.sample(features, noise=noise)[:, 0], mixture.draw(noise))


def test_deviations_are_never_below_min_std():
    head = GMMHead(feature_dim=1, action_dim=1, hidden=(4,), min_std=0.01)
    torch.nn.init.constant_(head.mixture.scale.bias, -50.0)
    assert head(torch.zeros(2, 1, 1)).stds.min().item() == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["gmm", "rnn_gmm"])
def test_likelihood_equals_robomimic(name):
    golden = np.load(FIXTURES / "heads_robomimic.npz")[name]
    if name == "gmm":
        head, shape = GMMHead(feature_dim=5, action_dim=2, hidden=(16, 12), modes=3), (4,)
    else:
        head, shape = RNNGMMHead(feature_dim=5, action_dim=2, history=6, width=12, modes=3), (4, 6)
    fill(dict(head.named_parameters()))
    prefix = name.split("_")[0]
    features = tensor(f"{prefix} features", *shape, 5).view(4, -1, 5)
    actions = tensor(f"{prefix} actions", *shape, 2)
    likelihood = head(features).log_prob(actions, torch.ones_like(actions))
    np.testing.assert_allclose(likelihood.detach().numpy(), golden, rtol=1e-4, atol=1e-5)


def test_a_head_without_hidden_layers_is_refused():
    with pytest.raises(UsageError, match="hidden must name at least one width"):
        GMMHead(feature_dim=1, action_dim=1, hidden=())


def test_a_mixture_without_modes_is_refused():
    with pytest.raises(UsageError, match="modes must be at least 1, got 0"):
        GMMHead(feature_dim=1, action_dim=1, modes=0)


def make_rnn(history=4):
    torch.manual_seed(0)
    return RNNGMMHead(feature_dim=3, action_dim=2, history=history, width=8, modes=2).eval()


def test_stepping_equals_the_whole_window():
    head, features = make_rnn(), torch.randn(3, 4, 3)
    noise = torch.randn(head.noise_shape(3))
    whole, carry, steps = head.sample(features, noise=noise), head.initial(3), []
    for moment in range(4):
        carry, action = head.step(carry, features[:, moment], noise=noise[:, moment])
        steps.append(action)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_the_state_is_forgotten_after_as_many_steps_as_were_trained():
    head, features = make_rnn(history=2), torch.randn(1, 5, 3)
    noise, carry, actions = torch.zeros(1, 3), head.initial(1), []
    for moment in range(5):
        carry, action = head.step(carry, features[:, moment], noise=noise)
        actions.append(action)
    _, again = head.step(head.initial(1), features[:, 4], noise=noise)
    torch.testing.assert_close(actions[4], again)
    assert carry.age.tolist() == [1]


def test_episodes_in_a_batch_forget_by_themselves():
    head, features = make_rnn(history=2), torch.randn(2, 3)
    fresh = head.initial(2)
    used, _ = head.step(fresh, features, noise=torch.zeros(2, 3))
    mixed = type(used)(*(torch.stack([a[0], b[1]]) for a, b in zip(used, fresh, strict=True)))
    after, _ = head.step(mixed, features, noise=torch.zeros(2, 3))
    assert after.age.tolist() == [2, 1]
    torch.testing.assert_close(after.hidden[1], used.hidden[1])


def test_one_action_per_moment_or_a_message():
    with pytest.raises(UsageError, match="horizon must be history=10, got 4"):
        RNNGMMHead(feature_dim=1, action_dim=1, horizon=4)
