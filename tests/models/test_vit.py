"""Patches, positions, masks and the transformer."""

import math

import numpy as np
import pytest
import torch

from embodied.models.conv import ConvNet
from embodied.models.masks import uniform_mask
from embodied.models.patches import patchify, unpatchify
from embodied.models.positions import sincos_2d
from embodied.models.vit import VisionTransformer


def test_patches_are_in_raster_order_with_row_column_channel_inside():
    images = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    expected = [images[1, channel, 2 + p, 4 + q].item() for p in range(2) for q in range(2) for channel in range(3)]
    assert patches[1, 5].tolist() == expected
    assert torch.equal(unpatchify(patches, 2, rows=2), images)


def test_position_table_has_the_column_first():
    table = sincos_2d(8, rows=2, columns=3, class_token=True)
    assert table.shape == (7, 8)
    assert not table[0].any()
    for row in range(2):
        for column in range(3):
            expected = []
            for position in (column, row):
                angles = [position / 10000 ** (k / 2) for k in range(2)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            np.testing.assert_allclose(table[1 + row * 3 + column], expected, atol=1e-6)


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(64, 0.75, 16), (196, 0.75, 49), (10, 0.75, 2), (16, 0.5, 8)])
def test_mask_counts_are_exact(patches, ratio, kept):
    noise = torch.rand(5, patches, generator=torch.Generator().manual_seed(0))
    keep_ids, restore_ids, mask = uniform_mask(noise, ratio)
    assert keep_ids.shape == (5, kept)
    assert mask.sum(dim=1).tolist() == [patches - kept] * 5
    assert not mask.gather(1, keep_ids).any()
    shuffled = torch.cat([keep_ids, mask.nonzero()[:, 1].reshape(5, -1)], dim=1)
    assert torch.equal(shuffled.gather(1, restore_ids).sort(dim=1).values, torch.arange(patches).expand(5, -1))


def test_the_lowest_noise_is_kept():
    keep_ids, restore_ids, mask = uniform_mask(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 0.5)
    assert keep_ids.tolist() == [[1, 3]]
    assert restore_ids.tolist() == [[3, 0, 2, 1]]
    assert mask.tolist() == [[1.0, 0.0, 1.0, 0.0]]


def make(**options):
    torch.manual_seed(0)
    return VisionTransformer(image_size=16, patch_size=4, width=12, depth=2, heads=3, **options).eval()


def test_outputs_and_their_meaning():
    vit = make()
    tokens, out = vit(torch.randn(2, 3, 16, 16), layers=True)
    assert tokens.shape == (2, 16, 12)
    assert set(out) == {"pooled", "cls", "layer1", "layer2"}
    torch.testing.assert_close(out["pooled"], tokens.mean(dim=1))
    torch.testing.assert_close(vit.norm(out["layer2"]), tokens)


def test_dropping_patches_keeps_their_positions():
    vit = make()
    images = torch.randn(1, 3, 16, 16)
    everything = torch.arange(16)[None]
    whole, _ = vit(images)
    torch.testing.assert_close(vit(images, everything)[0], whole)
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(0))[None]
    torch.testing.assert_close(vit(images, shuffled)[0], whole[:, shuffled[0]])


def test_position_matters():
    vit = make()
    image = torch.zeros(2, 3, 16, 16)
    image[0, :, :4, :4], image[1, :, 12:, 12:] = 1.0, 1.0
    _, out = vit(image)
    assert (out["pooled"][0] - out["pooled"][1]).abs().max() > 1e-3


def test_without_class_token():
    tokens, out = make(class_token=False)(torch.randn(2, 3, 16, 16))
    assert tokens.shape == (2, 16, 12)
    assert set(out) == {"pooled"}


def test_sizes_must_fit():
    with pytest.raises(ValueError, match="multiple of patch_size=16, got 100"):
        VisionTransformer(image_size=100)
    with pytest.raises(ValueError, match="multiple of heads=5"):
        VisionTransformer(heads=5)


@pytest.mark.parametrize("size", [64, 84, 128])
def test_conv_net_keeps_a_map(size):
    tokens, out = ConvNet(image_size=size, width=10)(torch.randn(2, 3, size, size))
    assert tokens.shape[0] == 2
    assert tokens.shape[2] == 32
    assert out["pooled"].shape == (2, 10)


@pytest.mark.parametrize("positions", ["sincos", "learned", "rope"])
def test_patches_dropped_before_the_embedding_are_those_dropped_after_it(positions):
    torch.manual_seed(0)
    vit = VisionTransformer(image_size=32, patch_size=8, width=24, depth=2, heads=3, positions=positions, registers=2)
    images, keep_ids = torch.randn(3, 3, 32, 32), uniform_mask(torch.rand(3, 16), 0.6)[0]
    early, _ = vit(images, keep_ids)
    late, _ = vit(images, keep_ids, embeddings=vit.embed_patches(images))
    torch.testing.assert_close(early, late)
    gradients = [torch.autograd.grad(tokens.square().sum(), list(vit.parameters())) for tokens in (early, late)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
