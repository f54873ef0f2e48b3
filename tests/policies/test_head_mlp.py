"""Regression heads: VC-1's network, and the errors that are averaged."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads.mlp import BatchNormMLP, MLPHead

REAL = torch.ones(1, 2, dtype=torch.bool)


def test_mlp_normalises_its_whole_input():
    torch.manual_seed(0)
    mlp = BatchNormMLP(3, 2)
    inputs = torch.randn(64, 3)
    scaled = inputs * torch.tensor([1.0, 100.0, 0.5]) + torch.tensor([0.0, 5.0, -3.0])
    torch.testing.assert_close(mlp(inputs), mlp(scaled), atol=1e-4, rtol=1e-3)


def test_mlp_starts_near_zero_actions():
    torch.manual_seed(0)
    assert BatchNormMLP(10, 4)(torch.randn(32, 10)).abs().max() < 0.2


@pytest.mark.parametrize(
    ("error", "expected"),
    [("mse", (0.01 + 1.0) / 2), ("l1", (0.1 + 1.0) / 2), ("huber", (0.1**2 / (2 * 0.2) + 1.0 - 0.2 / 2) / 2)],
)
def test_errors_are_averaged_as_named(error, expected):
    head = MLPHead(feature_dim=1, horizon=2, action_dim=1, error=error, beta=0.2)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    loss, metrics = head.loss(torch.ones(1, 1, 1), torch.tensor([[[0.1], [-1.0]]]), REAL)
    assert loss.item() == pytest.approx(expected)
    assert metrics["action_error"].item() == pytest.approx(0.55)


def test_only_real_steps_are_averaged():
    head = MLPHead(feature_dim=1, horizon=2, action_dim=1)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    loss, _ = head.loss(torch.ones(1, 1, 1), torch.tensor([[[0.5], [9.0]]]), torch.tensor([[True, False]]))
    assert loss.item() == 0.25


def test_presets_are_what_their_papers_use():
    vc1 = MLPHead.vc1(feature_dim=5, action_dim=4)
    assert isinstance(vc1.network, BatchNormMLP) and vc1.error == "mse" and not vc1.bounded
    hpt = MLPHead.hpt(feature_dim=5, action_dim=4)
    assert (hpt.error, hpt.beta, hpt.horizon, hpt.bounded) == ("huber", 0.05, 8, True)
    assert hpt(torch.full((2, 1, 5), 1e4)).abs().max() <= 1


def test_an_unknown_error_is_refused():
    with pytest.raises(UsageError, match="unknown error 'cosine': choose one of huber, l1, mse"):
        MLPHead(feature_dim=1, action_dim=1, error="cosine")
