"""Mask samplers: exact counts, shapes, and what is equal to what."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.models.masks import uniform_mask
from embodied.objectives.masked.beit import BEiT
from embodied.objectives.masked.droppos import DropPos
from embodied.objectives.masked.mae import MAE
from embodied.objectives.masked.maskfeat import MaskFeat
from embodied.objectives.masked.mfm import MFM
from embodied.objectives.masked.pixio import Pixio
from embodied.objectives.masked.ropim import ROPIM
from embodied.objectives.parts.masks import (
    block_mask,
    grid_mask,
    masked_ids,
    multi_block_mask,
    prefix_attention,
    prefix_lengths,
    tube_mask,
)
from embodied.objectives.parts.quantizers import VectorQuantizer
from embodied.objectives.parts.settings import scaled_block
from embodied.objectives.parts.tokenizer import Tokenizer
from embodied.objectives.self_distillation.ibot import IBOT


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_squares_of_one_patch_are_the_uniform_mask_bit_for_bit():
    noise = torch.rand(5, 48, generator=generator())
    ours = grid_mask(noise, 0.75, rows=6, columns=8, block=1)
    assert all(torch.equal(one, other) for one, other in zip(ours, uniform_mask(noise, 0.75), strict=True))


def test_squares_are_hidden_whole_and_in_the_papers_number():
    noise = torch.rand(7, 16, generator=generator())
    keep_ids, restore_ids, mask = grid_mask(noise, 0.75, rows=16, columns=16, block=4)
    assert keep_ids.shape == (7, 64)  # 4 of 16 squares; the encoder's length is 64 and the class tokens
    squares = mask.view(7, 4, 4, 4, 4).transpose(2, 3).flatten(3)  # (B, rows, columns, 16 patches)
    assert ((squares == 0).all(-1) | (squares == 1).all(-1)).all()
    assert torch.equal(mask.gather(1, keep_ids), torch.zeros(7, 64))
    order = restore_ids.argsort(dim=1)
    assert torch.equal(order[:, :64], keep_ids)
    assert torch.equal(order.sort(dim=1).values, torch.arange(256).expand(7, -1))


def test_squares_must_fit():
    with pytest.raises(UsageError, match="grid must divide the 14x14 patches, got 4"):
        grid_mask(torch.rand(1, 9), 0.75, rows=14, columns=14, block=4)


def test_counts_of_blocks_are_those_of_the_released_code():
    """BEiT on 14 x 14: mean 74.5, from 66 to 75 over 3,000 draws of the released sampler."""
    counts = block_mask(2000, rows=14, columns=14, counts=75, smallest=16, generator=generator()).sum(dim=1)
    assert 66 <= counts.min() <= 72
    assert counts.max() == 75
    assert counts.float().mean() == pytest.approx(74.5, abs=0.2)


def test_blocks_of_maskfeat_hide_about_forty_per_cent():
    counts = block_mask(2000, rows=14, columns=14, counts=78, smallest=15, generator=generator()).sum(dim=1)
    assert counts.min() >= 66
    assert counts.max() == 78
    assert counts.float().mean() == pytest.approx(77.6, abs=0.2)


def test_blocks_completed_are_exact_for_each_image():
    wanted = torch.tensor([0, 1, 20, 98, 196])
    mask = block_mask(5, rows=14, columns=14, counts=wanted, smallest=4, generator=generator(), exact=True)
    assert torch.equal(mask.sum(dim=1), wanted)
    assert masked_ids(mask[2:3]).shape == (1, 20)


def test_blocks_are_rectangles():
    masks = block_mask(50, rows=14, columns=14, counts=16, smallest=16, generator=generator()).view(50, 14, 14)
    sides = [(int(mask.any(dim=1).sum()), int(mask.any(dim=0).sum())) for mask in masks if mask.any()]
    # Where rounding leaves a patch or two of the count, a second block may follow; most images have one.
    whole = [(high, wide) for mask, (high, wide) in zip(masks, sides, strict=False) if mask.sum() == high * wide]
    assert len(whole) > 30
    assert all(0.25 <= high / wide <= 4 for high, wide in whole)
    assert len(set(whole)) > 3


def test_methods_hide_the_papers_numbers_on_the_papers_grid():
    """Of 14 x 14 patches, Pixio of 16 x 16, with the defaults of the signatures."""
    vit = {"patch_size": 4, "width": 16, "depth": 1, "heads": 2}
    encoder, decoder = ViTEncoder(image_size=56, **vit), {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    hidden = MAE(encoder, **decoder).masked_loss(torch.zeros(1, 3, 56, 56), torch.rand(1, 196))[2]
    assert hidden.sum() == 147
    maskfeat = MaskFeat(encoder, cell=4)
    assert (maskfeat.count, maskfeat.min_block) == (78, 15)
    beit = BEiT(encoder, tokenizer=Tokenizer(encoder, VectorQuantizer(codes=16, width=4)))
    assert (beit.count, beit.min_block) == (75, 16)
    droppos = DropPos(encoder, **decoder)
    assert (droppos.visible, droppos.placed) == (49, 12)
    assert IBOT(encoder, prototypes=8, hidden=8, bottleneck=8).min_block == 16
    assert ROPIM(encoder).rank == 28
    assert MFM(encoder).radius == 16 * 56 / 224
    larger = Pixio(ViTEncoder(image_size=64, class_tokens=8, positions="learned", **vit), **decoder)
    kept = larger.masked_loss(torch.zeros(1, 3, 64, 64), torch.rand(1, 16))[2] == 0
    assert (kept.sum(), larger.decoder.positions.shape) == (64, (8 + 256, 16))


def test_the_generator_decides_about_blocks():
    first, again, other = (
        block_mask(3, rows=14, columns=14, counts=75, smallest=16, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_smallest_blocks_on_other_grids():
    assert [scaled_block(patches, 16) for patches in (196, 64, 16, 4)] == [16, 5, 1, 1]


def test_multi_blocks_have_one_size_in_a_batch_and_the_area():
    mask = multi_block_mask(200, rows=16, columns=16, blocks=1, area=0.15, generator=generator()).view(200, 16, 16)
    heights, widths = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)
    assert len(heights.unique()) == len(widths.unique()) == 1
    assert 0.11 < float(heights[0] * widths[0]) / 256 < 0.19
    assert 0.6 < heights[0] / widths[0] < 1.7
    assert len(mask.flatten(1).unique(dim=0)) > 50
    union = multi_block_mask(200, rows=16, columns=16, blocks=8, area=0.15, generator=generator())
    assert 0.4 < union.float().mean() < 0.85


def test_tubes_repeat_in_every_frame():
    mask = torch.tensor([[True, False, True]])
    assert torch.equal(tube_mask(mask, 2), torch.tensor([[True, False, True, True, False, True]]))


def test_prefixes_see_both_ways_and_the_rest_backwards():
    seen = prefix_attention(torch.tensor([2, 1]), 4)
    assert seen.shape == (2, 1, 4, 4)
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    assert torch.equal(seen[0, 0], expected)
    assert torch.equal(seen[1, 0], torch.ones(4, 4).tril().bool())
    lengths = prefix_lengths(3000, 8, generator())
    assert torch.equal(lengths.unique(), torch.arange(1, 8))
    assert lengths.float().mean() == pytest.approx(4.0, abs=0.15)
