"""Chunks that go on where the last one is."""

import math

import pytest
import torch
from small_policies import SMALL

from embodied.core.errors import UsageError
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.flow import FlowHead
from embodied.policies.prefix_guidance import Prefix, can_guide, guided_chunk, soft_mask

H, FROZEN, KNOWN = 8, 2, 6


def trained(kind, steps=120, batch=24):
    """A head that has seen chunks of two kinds from the same observation: all -0.8, or all 0.8."""
    torch.manual_seed(0)
    name = {FlowHead: "flow", DiffusionHead: "diffusion"}[kind]
    options = {**SMALL[name], "network_options": {**SMALL[name]["network_options"], "channels": [16, 32]}}
    if kind is DiffusionHead:
        options |= {"levels": 20, "sampler": "ddim", "sample_steps": 10}
    head = kind(feature_dim=3, history=1, horizon=H, action_dim=2, **options)
    optimiser = torch.optim.Adam(head.parameters(), 6e-3)
    features, mask = torch.ones(batch, 1, 3), torch.ones(batch, H, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        sign = torch.randint(0, 2, (batch, 1, 1), generator=generator) * 2.0 - 1
        loss, _ = head.loss(features, 0.8 * sign.expand(batch, H, 2), mask, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.eval()


@pytest.fixture(scope="module", params=[FlowHead, DiffusionHead])
def head(request):
    return trained(request.param)


def samples(head, count=32):
    generator = torch.Generator().manual_seed(1)
    return torch.ones(count, 1, 3), torch.randn(head.noise_shape(count), generator=generator)


def test_weights_fall_from_what_is_frozen_to_the_end_of_the_old_plan():
    weights = soft_mask(H, frozen=FROZEN, known=KNOWN)
    assert weights[:2].tolist() == [1, 1] and weights[6:].tolist() == [0, 0]
    shares = [4 / 5, 3 / 5, 2 / 5, 1 / 5]
    assert weights[2:6].tolist() == pytest.approx([c * (math.exp(c) - 1) / (math.e - 1) for c in shares], abs=1e-6)


def test_the_frozen_steps_are_those_of_the_old_plan_exactly(head):
    features, noise = samples(head)
    wanted = torch.full((32, H, 2), 0.8) + 0.01 * torch.randn(32, H, 2)
    with torch.inference_mode():
        chunk = guided_chunk(head, features, noise, Prefix(actions=wanted, frozen=FROZEN, known=KNOWN))
    assert torch.equal(chunk[:, :FROZEN], wanted[:, :FROZEN])


def test_a_chunk_stays_with_the_old_plan_where_another_would_contradict_it(head):
    features, noise = samples(head)
    free = head.sample(features, noise=noise)
    wanted = torch.full((32, H, 2), 0.8)
    guided = guided_chunk(head, features, noise, Prefix(actions=wanted, frozen=FROZEN, known=KNOWN))
    border = slice(FROZEN, FROZEN + 1)  # where the new chunk takes over
    jumps = [(chunk[:, border] - wanted[:, border]).abs().mean().item() for chunk in (free, guided)]
    assert jumps[0] > 0.4 and jumps[1] < 0.3 * jumps[0]  # half of the free ones go the other way
    other = (free[:, -1].mean(-1) < 0).float().mean(), (guided[:, -1].mean(-1) < 0).float().mean()
    assert other[0] > 0.25 and other[1] < 0.5 * other[0]  # behind the old plan, too


def test_without_an_old_plan_nothing_is_guided(head):
    features, noise = samples(head, 4)
    chunk = guided_chunk(head, features, noise, Prefix(actions=torch.zeros(4, H, 2), frozen=0, known=0))
    torch.testing.assert_close(chunk, head.sample(features, noise=noise), atol=1e-5, rtol=1e-5)


def test_masked_dimensions_stay_zero(head):
    features, noise = samples(head, 4)
    mask = torch.tensor([True, False])
    prefix = Prefix(actions=torch.full((4, H, 2), 0.8), frozen=1, known=4)
    chunk = guided_chunk(head, features, noise, prefix, action_mask=mask)
    assert (chunk[..., 1] == 0).all() and (chunk[:, 0, 0] == 0.8).all()


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="expected 0 <= frozen <= known <= 8, got 3 and 2"):
        Prefix(actions=torch.zeros(1, H, 2), frozen=3, known=2)
    assert not can_guide(torch.nn.Linear(1, 1))
