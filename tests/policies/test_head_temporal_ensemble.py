"""Temporal ensembling against the weighted mean of all predictions that were kept."""

import math

import pytest
import torch

from embodied.policies.heads.temporal_ensemble import EnsembleCarry, ensemble, initial_ensemble


def brute_force(chunks, decay):
    """The action of every step from all chunks [steps, H] at once."""
    actions, horizon = [], chunks.shape[1]
    for step in range(len(chunks)):
        made = range(max(0, step - horizon + 1), step + 1)  # oldest first
        weights = [math.exp(-decay * age) for age in range(len(made))]
        values = [chunks[start, step - start].item() for start in made]
        actions.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return torch.tensor(actions)


@pytest.mark.parametrize("decay", [0.01, 0.5, -0.3, 0.0])
@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_equals_brute_force(decay, horizon):
    chunks = torch.randn(20, horizon, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    carry, actions = initial_ensemble(1, horizon, 1, like=chunks), []
    for chunk in chunks:
        carry, action = ensemble(carry, chunk[None, :, None], decay=decay)
        actions.append(action.item())
    torch.testing.assert_close(torch.tensor(actions), brute_force(chunks, decay))


def test_angles_are_averaged_at_the_turn_of_the_newest_prediction():
    """A joint passes pi: its state is now told as -3.13, the older prediction was made when it was 3.1."""
    carry = initial_ensemble(1, 2, 2, like=torch.zeros(()))
    turning = torch.tensor([True, False])
    carry, _ = ensemble(carry, torch.tensor([[[3.12, 3.0], [3.20, 5.0]]]), decay=0.0, angles=turning)
    carry, action = ensemble(carry, torch.tensor([[[-3.10, -3.0], [-3.0, 0.0]]]), decay=0.0, angles=turning)
    torch.testing.assert_close(action, torch.tensor([[(3.20 - 2 * math.pi - 3.10) / 2, 1.0]]))


def test_the_oldest_prediction_weighs_most():
    carry = initial_ensemble(1, 2, 1, like=torch.zeros(()))
    carry, first = ensemble(carry, torch.tensor([[[5.0], [1.0]]]), decay=1.0)
    _, second = ensemble(carry, torch.tensor([[[0.0], [0.0]]]), decay=1.0)
    assert first.item() == 5.0
    assert second.item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_carry_that_was_given_stays_as_it_was():
    carry = initial_ensemble(1, 2, 1, like=torch.zeros(()))
    after, _ = ensemble(carry, torch.ones(1, 2, 1))
    assert all(part.abs().sum() == 0 for part in carry)
    kept = [part.clone() for part in after]
    ensemble(after, torch.ones(1, 2, 1))
    assert all(torch.equal(part, old) for part, old in zip(after, kept, strict=True))


def test_an_episode_starts_anew_where_its_row_is_zero():
    start = initial_ensemble(2, 3, 1, like=torch.zeros(()))
    carry, _ = ensemble(start, torch.randn(2, 3, 1))
    mixed = EnsembleCarry(*(torch.stack([used[0], new[1]]) for used, new in zip(carry, start, strict=True)))
    chunk = torch.randn(2, 3, 1)
    assert ensemble(mixed, chunk)[1][1] == chunk[1, 0]
    assert ensemble(mixed, chunk)[1][0] != chunk[0, 0]
