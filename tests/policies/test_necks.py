"""Necks fuse what their papers say they fuse."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.necks.attention import Attention
from embodied.policies.necks.flare import Flare, flare
from embodied.policies.necks.pooled import Pooled
from embodied.policies.necks.registry import load_neck, necks
from embodied.policies.necks.spatial import ConvNeck, Spatial
from embodied.policies.necks.spatial_softmax import SpatialSoftmax
from embodied.policies.necks.text_query import TextQuery


def test_registry_finds_every_neck_by_its_module():
    assert list(necks()) == ["attention", "flare", "pooled", "sequence", "spatial", "spatial_softmax", "text_query"]
    assert load_neck("flare") is Flare
    with pytest.raises(UsageError, match="unknown policy neck 'spatial_sofmax': did you mean spatial_softmax"):
        load_neck("spatial_sofmax")


def test_every_neck_gives_vectors_of_its_output_dim():
    tokens, vectors, instruction = torch.randn(2, 3, 64, 8), torch.randn(2, 3, 8), torch.randn(2, 5)
    grid = (8, 8)
    for neck, arguments, moments in (
        (Pooled(width=8), (tokens,), 3),
        (Pooled(width=8, output_dim=4), (vectors,), 3),
        (Flare(width=8), (vectors,), 3),
        (Spatial(grid=grid, width=8, history=3, channels=6, bottleneck=None), (tokens,), 1),
        (SpatialSoftmax(grid=grid, width=8), (tokens,), 3),
        (Attention(width=8), (tokens,), 3),
        (TextQuery(width=8, text_width=5), (tokens, instruction), 3),
    ):
        assert neck(*arguments).shape == (2, moments, neck.output_dim), type(neck).__name__


def test_flare_puts_differences_before_the_last_frame():
    features = torch.tensor([[[1.0, 10.0], [3.0, 10.0], [7.0, 5.0]]])  # one episode, three frames, two values
    assert flare(features).tolist() == [[2.0, 0.0, 4.0, -5.0, 7.0, 5.0]]
    assert Flare(width=2)(features).tolist() == [[[2.0, 0.0], [4.0, -5.0], [7.0, 5.0]]]


def test_flare_of_one_frame_is_the_frame():
    assert flare(torch.tensor([[[1.0, 2.0]]])).tolist() == [[1.0, 2.0]]


def test_pooled_is_the_mean_token_of_each_moment():
    tokens = torch.tensor([[[[1.0], [3.0]], [[5.0], [6.0]]]])
    assert Pooled(width=1)(tokens).tolist() == [[[2.0], [5.5]]]
    assert Pooled(width=1)(tokens[:, :, 0]).tolist() == [[[1.0], [5.0]]]
    with pytest.raises(UsageError, match=r"features: expected \[B, T, 2\] or \[B, T, N, 2\], got \[1, 2, 2, 1\]"):
        Pooled(width=2)(tokens)


def test_conv_neck_on_theias_grid_ends_in_one_cell_of_256():
    neck = ConvNeck((14, 14), 32, frames=3, bottleneck=None)
    shapes = [tuple(layer.kernel_size) for layer in neck.network if isinstance(layer, torch.nn.Conv2d)]
    assert shapes == [(4, 4), (3, 3), (3, 3)]
    assert neck(torch.randn(2, 3, 196, 32)).shape == (2, 256)
    assert neck.output_dim == 256


@pytest.mark.parametrize("grid", [(8, 8), (9, 12), (16, 16)])
def test_conv_neck_fits_other_grids(grid):
    neck = ConvNeck(grid, 5, frames=2, channels=7, bottleneck=4)
    assert neck(torch.randn(2, 2, grid[0] * grid[1], 5)).shape == (2, neck.output_dim)


def test_conv_neck_sees_where_a_token_is():
    torch.manual_seed(0)
    neck = ConvNeck((8, 8), 3, frames=1, channels=8, bottleneck=None)
    tokens = torch.zeros(2, 1, 64, 3)
    tokens[0, 0, 0], tokens[1, 0, 63] = 1.0, 1.0
    first, last = neck(tokens)
    assert (first - last).abs().max() > 1e-3


def test_spatial_neck_is_the_conv_neck_as_one_moment():
    torch.manual_seed(0)
    neck, tokens = Spatial(grid=(8, 8), width=3, history=2, channels=8, bottleneck=None), torch.randn(2, 2, 64, 3)
    assert torch.equal(neck(tokens)[:, 0], neck.network(tokens))
    with pytest.raises(UsageError, match=r"features: expected \[B, T=2, N=64, D=3\], got \[2, 1, 64, 3\]"):
        neck(tokens[:, :1])


def test_conv_neck_refuses_a_grid_that_is_too_small():
    with pytest.raises(UsageError, match="at least 8x8, got 1x1"):
        ConvNeck((1, 1), 3)


def test_keypoints_are_where_a_map_is_high():
    neck = SpatialSoftmax(grid=(3, 5), width=2, keypoints=None)
    tokens = torch.zeros(1, 1, 15, 2)
    tokens[0, 0, 4, 0] = 100.0  # first row, last column
    tokens[0, 0, 10, 1] = 100.0  # last row, first column
    torch.testing.assert_close(neck(tokens), torch.tensor([[[1.0, -1.0, -1.0, 1.0]]]))
    assert neck(torch.zeros(1, 1, 15, 2)).abs().max() < 1e-6


def test_a_low_temperature_sharpens_the_maps_and_may_be_learned():
    tokens = torch.zeros(1, 1, 4, 1)
    tokens[0, 0, 3] = 1.0  # lower right
    options = {"grid": (2, 2), "width": 1, "keypoints": None}
    places = [SpatialSoftmax(temperature=t, **options)(tokens)[0, 0, 0].item() for t in (10.0, 1.0, 0.1)]
    assert 0 < places[0] < places[1] < places[2] < 1
    neck = SpatialSoftmax(learn_temperature=True, **options)
    neck(tokens).sum().backward()
    assert neck.log_temperature.grad < 0
    with pytest.raises(UsageError, match="temperature must be above 0, got 0"):
        SpatialSoftmax(temperature=0, **options)


def test_keypoints_need_the_grid_they_were_built_for():
    with pytest.raises(UsageError, match=r"N=4, D=1\] on a grid of 2x2, got \[1, 1, 9, 1\]"):
        SpatialSoftmax(grid=(2, 2), width=1)(torch.zeros(1, 1, 9, 1))


def test_attention_does_not_depend_on_the_order_of_tokens_and_treats_moments_alike():
    torch.manual_seed(0)
    neck, tokens = Attention(width=8, queries=2).eval(), torch.randn(2, 1, 6, 8)
    torch.testing.assert_close(neck(tokens), neck(tokens.flip(2)))
    twice = neck(torch.cat([tokens, tokens], dim=1))
    torch.testing.assert_close(twice[:, 0], twice[:, 1])
    assert not torch.allclose(neck(tokens)[..., :8], neck(tokens)[..., 8:])


def test_attention_can_pick_one_token():
    neck = Attention(width=4, queries=1, heads=1)
    with torch.no_grad():
        attention = neck.pooling.attention
        attention.in_proj_weight.copy_(torch.eye(4).repeat(3, 1))
        attention.in_proj_bias.zero_()
        attention.out_proj.weight.copy_(torch.eye(4))
        neck.queries.copy_(torch.tensor([[100.0, 0.0, 0.0, 0.0]]))
    tokens = torch.eye(4)[None, None]
    torch.testing.assert_close(neck(tokens)[0, 0], neck.pooling.norm(tokens)[0, 0, 0])


def test_the_instruction_decides_what_is_read():
    torch.manual_seed(0)
    neck, tokens = TextQuery(width=8, text_width=5, queries=2), torch.randn(1, 2, 6, 8)
    first, second = (neck(tokens, text) for text in torch.randn(2, 1, 5))
    assert not torch.allclose(first[..., :16], second[..., :16])
    torch.testing.assert_close(first[..., 16:], tokens.mean(dim=2))
    torch.testing.assert_close(first[..., 16:], second[..., 16:])
    with pytest.raises(UsageError, match=r"instruction: expected \[B=1, 5\], got \[2, 5\]"):
        neck(tokens, torch.randn(2, 5))


def test_each_sample_is_asked_its_own_instruction():
    torch.manual_seed(0)
    neck, tokens, texts = TextQuery(width=8, text_width=5), torch.randn(2, 3, 6, 8), torch.randn(2, 5)
    both = neck(tokens, texts)
    for row in range(2):
        torch.testing.assert_close(both[row : row + 1], neck(tokens[row : row + 1], texts[row : row + 1]))


@pytest.mark.parametrize("kind", [Attention, TextQuery])
def test_attention_needs_tokens_of_its_width(kind):
    neck = kind(width=8) if kind is Attention else kind(width=8, text_width=5)
    extra = () if kind is Attention else (torch.zeros(1, 5),)
    with pytest.raises(UsageError, match=r"features: expected \[B, T, N, 8\], got \[1, 2, 8\]"):
        neck(torch.zeros(1, 2, 8), *extra)
