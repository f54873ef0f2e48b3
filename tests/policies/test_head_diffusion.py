"""Diffusion: schedules and samplers step as `diffusers` does, networks and losses as the released codes do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.networks.denoising_transformer import DenoisingTransformer
from embodied.policies.heads.networks.unet import UNet
from embodied.policies.heads.noise_schedule import NoiseSchedule

from ..oracles.heads_numbers import fill, tensor
from .head_samples import UNET, make_batch, make_head

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def diffusers():
    return np.load(FIXTURES / "heads_diffusers.npz")


def close(actual, golden, atol=2e-6):
    np.testing.assert_allclose(actual.detach().numpy(), golden, atol=atol, rtol=1e-5)


def test_schedule_equals_diffusers(diffusers):
    schedule = NoiseSchedule(levels=100)
    close(schedule.alpha_bars, diffusers["alpha_bars"], atol=1e-7)
    actions, noise = tensor("actions", 4, 4, 2), tensor("added", 4, 4, 2)
    close(schedule.add_noise(actions, noise, torch.tensor([0, 13, 57, 99])), diffusers["noisy"])


@pytest.mark.parametrize("case", ["ddpm_100_epsilon", "ddpm_10_sample", "ddim_10_epsilon", "ddim_7_sample"])
def test_every_step_equals_diffusers(diffusers, case):
    sampler, steps, prediction = case.split("_")
    schedule = NoiseSchedule(levels=100, prediction=prediction)
    noise = tensor("noise", int(steps), 2, 4, 2)
    states = torch.from_numpy(diffusers[case])
    for number, (t, after) in enumerate(schedule.levels_down(int(steps))):
        x = states[number]
        output = torch.tanh(1.3 * x.flip(-1) + 0.01 * t - 0.2)
        if sampler == "ddim":
            stepped = schedule.ddim_step(output, x, t=t, after=after)
        else:
            fresh = noise[number + 1] if after >= 0 else torch.full_like(x, float("nan"))
            stepped = schedule.ddpm_step(output, x, fresh, t=t, after=after)
        close(stepped, states[number + 1])


def test_levels_are_evenly_spaced_from_zero_up():
    schedule = NoiseSchedule(levels=100)
    assert schedule.levels_down(4) == [(75, 50), (50, 25), (25, 0), (0, -1)]
    assert schedule.levels_down(7)[0] == (84, 70)


@pytest.mark.parametrize("steps", [0, 101])
def test_more_steps_than_levels_are_refused(steps):
    with pytest.raises(UsageError, match=rf"sample_steps must be in 1..100 \(the levels trained\), got {steps}"):
        NoiseSchedule(levels=100).levels_down(steps)


def test_ddim_recovers_actions_from_a_perfect_network():
    """With the true noise as its output, the process ends at the actions that the noise was added to."""
    schedule = NoiseSchedule(levels=100)
    actions, noise = 0.5 * torch.ones(1, 2, 2), torch.tensor([[[0.3, -1.0], [2.0, 0.1]]])
    x = schedule.add_noise(actions, noise, torch.tensor([90]))
    for t, after in schedule.levels_down(10):
        x = schedule.ddim_step(noise, x, t=t, after=after)
    torch.testing.assert_close(x, actions)


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_equals_the_released_code(causal):
    golden = np.load(FIXTURES / "heads_diffusion_policy.npz")[f"causal_{causal}"]
    network = DenoisingTransformer(
        feature_dim=5,
        history=3,
        horizon=6,
        action_dim=2,
        width=16,
        depth=2,
        heads=2,
        causal=causal,
        causal_moments=causal,
    ).eval()
    fill(dict(network.named_parameters()))
    x, features = tensor("dp noisy", 2, 6, 2), tensor("dp features", 2, 3, 5)
    close(network(x, torch.tensor([3, 80]), features), golden, atol=1e-5)


def test_transformer_hides_later_steps_and_no_moment():
    network = DenoisingTransformer(feature_dim=2, history=3, horizon=4, action_dim=1, width=8, depth=2, heads=2).eval()
    x = torch.zeros(1, 4, 1).requires_grad_()
    features = torch.zeros(1, 3, 2).requires_grad_()
    output = network(x, torch.tensor([5]), features)
    seen, moments = torch.autograd.grad(output[0, 1, 0], (x, features))
    assert (seen[0, :2, 0] != 0).all() and (seen[0, 2:, 0] == 0).all()
    assert (moments[0].abs().sum(dim=1) > 0).all()


def test_defaults_are_the_papers():
    """As many parameters as the released `ConditionalUnet1D` with its image experiments' settings."""
    with torch.device("meta"):
        network = UNet(feature_dim=66, history=2, horizon=16, action_dim=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 251_540_618


def test_sampling_may_be_changed_on_a_trained_head():
    head, (features, _, _) = make_head("diffusion-unet").eval(), make_batch()
    assert head.noise_shape(8) == (8, 20, 4, 2)
    head.sampler, head.sample_steps = "ddim", 3
    assert head.noise_shape(8) == (8, 1, 4, 2)
    assert head.sample(features).shape == (8, 4, 2)


def test_ddim_has_ten_steps_unless_told():
    assert DiffusionHead.small(feature_dim=3, action_dim=2).sample_steps == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 6}, "a multiple of 4, got 6: take 8, fewer channels, or network=transformer"),
        ({"network": "unet2"}, "unknown network 'unet2': did you mean unet?"),
        ({"network_options": {"chanels": (8,)}}, "unknown option of network=unet 'chanels': did you mean channels?"),
        ({"network_options": {"channels": (12,)}}, "channels must be multiples of groups=8, got 12"),
        ({"network_options": {"kernel_size": 4}}, "kernel_size must be odd, got 4"),
        ({"network_options": {"channels": ()}}, "channels must name at least one level"),
        ({"network_options": {"time_width": 7}}, "must be even and at least 4, got 7"),
        ({"network": "transformer", "network_options": {"heads": 3}}, "width must be a multiple of heads=3, got 256"),
        ({"sampler": "dpm"}, "unknown sampler 'dpm'"),
        ({"prediction": "v"}, "unknown prediction 'v'"),
        ({"sample_steps": 200}, "sample_steps must be in 1..100"),
    ],
)
def test_mistakes_are_explained(options, message):
    arguments = {"horizon": 8, "network_options": {"channels": (8, 16, 16)}, **options}
    with pytest.raises(UsageError, match=message):
        DiffusionHead(feature_dim=3, action_dim=2, **arguments)


def test_predicting_samples_learns_the_actions():
    torch.manual_seed(0)
    head = DiffusionHead(feature_dim=3, history=4, horizon=4, action_dim=2, network_options=UNET, prediction="sample")
    features, actions, _ = make_batch()
    real = torch.ones(8, 4, dtype=torch.bool)
    t = torch.zeros(8, dtype=torch.int64)
    target = actions.clone()
    with torch.no_grad():
        output = head.network(head.schedule.add_noise(actions, torch.ones_like(actions), t), t, features)
    loss = head.denoising_loss(features, actions, real, t, torch.ones_like(actions))
    torch.testing.assert_close(loss, (output - target).square().mean())
