"""Bins: where they lie, OpenVLA's off-by-one among them, and the three ways back to actions."""

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads.bins import BinsHead


def make_head(**options):
    torch.manual_seed(0)
    return BinsHead(feature_dim=2, action_dim=1, hidden=(8,), **options)


def test_four_bins_of_the_range():
    head = make_head(bins=4)
    assert head.centres.tolist() == [-0.75, -0.25, 0.25, 0.75]
    actions = torch.tensor([-1.0, -0.51, -0.5, 0.0, 0.4999, 0.5, 1.0])
    assert head.encode(actions).tolist() == [0, 0, 1, 2, 2, 3, 3]


def test_actions_outside_the_range_count_as_the_outermost_bins():
    assert make_head(bins=4).encode(torch.tensor([-7.0, 7.0])).tolist() == [0, 3]


def test_a_centre_is_at_most_half_a_bin_from_what_it_stands_for():
    head, actions = make_head(), torch.linspace(-1, 1, 999)
    assert len(head.centres) == 256
    assert (head.centres[head.encode(actions)] - actions).abs().max() <= 1 / 256 + 1e-6


def test_255_bins_are_openvlas_256_edges():
    """Its tokenizer digitizes by 256 edges, so 1..256, takes one off when it decodes, and clips to its 255 centres."""
    edges = np.linspace(-1, 1, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    actions = np.random.default_rng(0).uniform(-1, 1, size=500)
    codes = np.clip(np.digitize(actions, edges) - 1, 0, 254)
    head = make_head(bins=255)
    np.testing.assert_allclose(head.centres.numpy(), centres, atol=1e-7)
    assert np.array_equal(head.encode(torch.from_numpy(actions).float()).numpy(), codes)


def with_logits(head, *logits):
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        head.network[-1].bias.copy_(torch.tensor(logits))
    return head


def test_three_ways_to_decode():
    logits, features = np.log([0.1, 0.2, 0.3, 0.4]).tolist(), torch.zeros(4000, 1, 2)
    argmax = with_logits(make_head(bins=4), *logits).sample(features)
    assert (argmax == 0.75).all()
    mean = with_logits(make_head(bins=4, decode="expectation"), *logits).sample(features)
    assert mean[0].item() == pytest.approx(0.1 * -0.75 + 0.2 * -0.25 + 0.3 * 0.25 + 0.4 * 0.75)
    head = with_logits(make_head(bins=4, decode="sample"), *logits)
    draws = head.encode(head.sample(features, generator=torch.Generator().manual_seed(0))).flatten()
    assert (torch.bincount(draws, minlength=4) / 4000).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


def test_loss_is_the_cross_entropy():
    head = with_logits(make_head(bins=4), *np.log([0.1, 0.2, 0.3, 0.4]).tolist())
    loss, metrics = head.loss(torch.zeros(2, 1, 2), torch.tensor([[[-0.9]], [[0.9]]]), torch.ones(2, 1).bool())
    assert loss.item() == pytest.approx(-(np.log(0.1) + np.log(0.4)) / 2, rel=1e-5)
    assert metrics["bin_accuracy"].item() == 0.5


@pytest.mark.parametrize(
    ("options", "message"), [({"bins": 1}, "bins must be at least 2, got 1"), ({"decode": "mode"}, "unknown decode")]
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UsageError, match=message):
        make_head(**options)
