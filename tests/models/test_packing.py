"""Several sequences in a row: laid out without loss, and computed as if each were alone."""

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError
from embodied.models.sequence.attention_rules import RULES, mask_from_groups
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.models.sequence.packing import pack_sequences
from embodied.models.sequence.trunk import Trunk

WIDTH = 16


def there(lengths, longest):
    """Sequences that begin at the first place."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def alive(*modules):
    """Weights that no initialisation makes equal to nothing."""
    torch.manual_seed(0)
    for module in modules:
        for part in module.parameters():
            nn.init.normal_(part, std=0.3)
    return modules[0]


def test_rows_hold_sequences_side_by_side_the_longest_first():
    keep = there([2, 4, 1, 3, 2], 4)
    packing = pack_sequences(keep)
    assert packing.owner.tolist() == [[1, 1, 1, 1], [3, 3, 3, 2], [0, 0, 4, 4]]
    assert packing.place.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 1]]
    assert pack_sequences(keep, capacity=5).owner.tolist() == [[1, 1, 1, 1, 2], [3, 3, 3, 0, 0], [4, 4, -1, -1, -1]]


def test_what_is_packed_comes_back():
    torch.manual_seed(0)
    keep = torch.rand(9, 7) < 0.4  # holes anywhere
    keep[3] = False  # and a sequence of nothing
    tokens = torch.randn(9, 7, WIDTH)
    packing = pack_sequences(keep)
    rows = packing.pack(tokens)
    assert rows.shape[0] < 9 and rows.shape[1] == int(keep.sum(dim=1).max())
    torch.testing.assert_close(packing.unpack(rows), tokens * keep[..., None], rtol=0, atol=0)
    assert not rows[packing.owner < 0].any()
    with pytest.raises(UsageError, match="capacity must be at least"):
        pack_sequences(keep, capacity=1)
    assert pack_sequences(torch.zeros(2, 3, dtype=torch.bool)).owner.tolist() == [[-1]]


def test_the_mask_is_that_of_the_rule_spatial_within_rows():
    packing = pack_sequences(there([2, 4, 1, 3, 2], 4), capacity=6)
    for row, owners in enumerate(packing.owner):
        expected = mask_from_groups(torch.zeros_like(owners), owners, "spatial")
        assert torch.equal(packing.mask()[row, 0], expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_holds_within_each_sequence(rule):
    groups, times = torch.tensor([0, -1, 1, 0, 1]), torch.tensor([0, 0, 1, 1, 2])
    within = mask_from_groups(groups, times, rule)
    packing = pack_sequences(there([5, 2, 3], 5), capacity=6)
    mask = packing.mask(within)[:, 0]
    for row in range(len(mask)):
        for i in range(6):
            assert mask[row, i].any()  # a softmax over nothing is no number
            for j in range(6):
                one, other = packing.owner[row, i], packing.owner[row, j]
                allowed = one == other and (one < 0 or within[packing.place[row, i], packing.place[row, j]])
                assert bool(mask[row, i, j]) == bool(allowed)


@pytest.mark.parametrize("rule", ["full", "causal"])
def test_a_trunk_makes_of_packed_sequences_what_it_makes_of_each_alone(rule):
    trunk = alive(Trunk(width=WIDTH, depth=3, heads=2))
    lengths = [3, 8, 1, 5, 8, 2]
    tokens = torch.randn(6, 8, WIDTH, requires_grad=True)
    ids = torch.arange(8)
    within = mask_from_groups(torch.zeros_like(ids), ids, rule)
    found = trunk.packed(tokens, there(lengths, 8), within=within)
    weights = torch.randn(6, 8, WIDTH)
    (gradient,) = torch.autograd.grad((found * weights).sum(), tokens)
    for number, length in enumerate(lengths):
        alone = tokens.detach()[number : number + 1, :length].requires_grad_()
        out = trunk(alone, mask=within[:length, :length])
        torch.testing.assert_close(found[number, :length], out[0], rtol=1e-4, atol=1e-5)
        (expected,) = torch.autograd.grad((out[0] * weights[number, :length]).sum(), alone)
        torch.testing.assert_close(gradient[number, :length], expected[0], rtol=1e-3, atol=1e-4)
        assert not gradient[number, length:].any() and not found[number, length:].any()


def test_hpts_trunk_packs_the_same_in_training_too():
    trunk = alive(HPTTrunk(size=None, width=WIDTH, depth=4, heads=2, drop_path=0.5)).train()
    tokens = torch.randn(12, 6, WIDTH)
    keep = torch.rand(12, 6) < 0.5
    keep[:, 0] = True
    found = []
    for run in (lambda: trunk(tokens, keep_mask=keep), lambda: trunk.packed(tokens, keep)):
        torch.manual_seed(1)  # drop-path draws from the global state, for each sequence
        trunk.zero_grad()
        out = run()
        out[keep].square().sum().backward()
        found.append((out, {name: part.grad.clone() for name, part in trunk.named_parameters()}))
    torch.testing.assert_close(found[0][0][keep], found[1][0][keep], rtol=1e-4, atol=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-3, atol=1e-3)
    torch.manual_seed(2)
    assert not torch.allclose(trunk(tokens, keep_mask=keep)[keep], found[0][0][keep])  # paths were dropped
