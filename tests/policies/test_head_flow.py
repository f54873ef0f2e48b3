"""Flow matching: the direction of time, and what Euler steps do exactly."""

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError
from embodied.policies.heads.flow import FlowHead

from .head_samples import make_batch, make_head


class Constant(nn.Module):
    """A velocity that depends on nothing, and remembers when it was asked."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity, self.times = velocity, []

    def forward(self, x, tau, features):
        self.times.append(tau[0].item())
        return self.velocity.expand_as(x)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_euler_is_exact_for_a_constant_velocity(steps):
    """noise - actions everywhere: the straight line ends at the actions, however many steps it takes."""
    head, (features, actions, _) = make_head("flow-unet"), make_batch()
    noise = torch.randn(8, 4, 2)
    head.network, head.sample_steps = Constant(noise - actions), steps
    torch.testing.assert_close(head.sample(features, noise=noise), actions)
    assert head.network.times == pytest.approx([1 - step / steps for step in range(steps)])


def test_time_one_is_noise_and_time_zero_the_actions():
    head, (features, actions, _) = make_head("flow-unet"), make_batch()
    seen = {}

    class Recorder(nn.Module):
        def forward(self, x, tau, features):
            seen[tau[0].item()] = x
            return torch.zeros_like(x)

    head.network, noise, real = Recorder(), torch.randn(8, 4, 2), torch.ones(8, 4, dtype=torch.bool)
    for tau in (0.0, 1.0):
        loss = head.velocity_loss(features, actions, real, torch.full((8,), tau), noise)
        torch.testing.assert_close(loss, (noise - actions).square().mean())
    torch.testing.assert_close(seen[0.0], actions)
    torch.testing.assert_close(seen[1.0], noise)


@pytest.mark.parametrize(("times", "median"), [("beta", 0.001 + 0.999 * 0.5 ** (1 / 1.5)), ("uniform", 0.5)])
def test_times_are_drawn_as_named(times, median, monkeypatch):
    head = FlowHead(feature_dim=1, horizon=4, action_dim=1, times=times, network_options={"channels": (8,)})
    drawn = []
    monkeypatch.setattr(head, "velocity_loss", lambda *args, **_: drawn.append(args[3]) or torch.zeros(()))
    batch = torch.zeros(20000, 4, 1)
    generator = torch.Generator().manual_seed(0)
    head.loss(torch.zeros(20000, 1, 1), batch, torch.ones(20000, 4, dtype=torch.bool), generator=generator)
    assert drawn[0].median().item() == pytest.approx(median, abs=0.01)
    assert drawn[0].min() >= 0 and drawn[0].max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sample_steps": 0}, "sample_steps must be at least 1, got 0"), ({"times": "beta2"}, "unknown times 'beta2'")],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UsageError, match=message):
        FlowHead(feature_dim=1, action_dim=1, **options)
