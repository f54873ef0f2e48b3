"""Blocks without gradients save memory; nothing else changes: not a bit of a number, and no tensor of the caller."""

import pytest
import torch
from torch import nn

from embodied.models.block import MLPS, Block
from embodied.models.in_place import gelu_of, plus_branch
from embodied.models.sequence.attention_rules import additive
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.models.sequence.trunk import Trunk

KEEP = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]


def both(module, **options):
    """What it gives with and without gradients, after a look at what it did to its input."""
    tokens = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    given, learned = tokens.clone(), module(tokens, **options)
    with torch.no_grad():
        found = module(given, **options)
    assert torch.equal(given, tokens) and learned.requires_grad and not found.requires_grad
    return learned.detach(), found


@pytest.mark.parametrize("mlp", MLPS)
def test_a_block_gives_the_same_with_and_without_gradients(mlp):
    block = Block(16, 2, mlp=mlp, layer_scale=0.5, qk_norm=True).eval()
    assert torch.equal(*both(block, mask=KEEP[:, None, None]))


@pytest.mark.parametrize(
    "made", [lambda: Trunk(width=16, depth=3, heads=2), lambda: HPTTrunk(size=None, width=16, depth=3, heads=2)]
)
def test_so_do_trunks_in_half_the_precision_too(made):
    trunk = made().eval()
    options = {"keep_mask": KEEP} if isinstance(trunk, HPTTrunk) else {"mask": KEEP[:, None, None]}
    assert torch.equal(*both(trunk, **options))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learned, found = both(trunk, **options)
    assert torch.equal(learned, found) and found.dtype == torch.float32


def test_nothing_is_written_over_what_has_gradients_or_another_type():
    tokens, branch = torch.ones(2, 3, 4), torch.ones(2, 3, 4)
    assert plus_branch(tokens, branch) is not branch and bool((branch == 1).all())
    with torch.no_grad():
        assert plus_branch(tokens, branch) is branch and bool((tokens == 1).all())
        half = branch.bfloat16()
        assert plus_branch(tokens, half).dtype == torch.float32 and bool((half == 2).all())
        values = torch.randn(5, generator=torch.Generator().manual_seed(0))
        expected = nn.functional.gelu(values)
        assert gelu_of(values) is values and torch.equal(values, expected)


def test_a_mask_of_logits_is_what_attention_makes_of_one_of_yes_and_no():
    keep = KEEP[:, None, None]
    assert additive(keep, like=torch.zeros(1))[1].flatten().tolist() == [0, 0, *[-torch.inf] * 3]
    query = torch.randn(3, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    attend = nn.functional.scaled_dot_product_attention
    expected = attend(query, query, query, attn_mask=keep)
    assert torch.equal(attend(query, query, query, attn_mask=additive(keep, like=query)), expected)
