"""The heads compute what their papers say."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads import BatchNormMLP, ConvNeck, flare


def test_flare_puts_differences_before_the_last_frame():
    features = torch.tensor([[[1.0, 10.0], [3.0, 10.0], [7.0, 5.0]]])  # one episode, three frames, two values
    assert flare(features).tolist() == [[2.0, 0.0, 4.0, -5.0, 7.0, 5.0]]


def test_flare_of_one_frame_is_the_frame():
    assert flare(torch.tensor([[[1.0, 2.0]]])).tolist() == [[1.0, 2.0]]


def test_mlp_normalises_its_whole_input():
    torch.manual_seed(0)
    mlp = BatchNormMLP(3, 2)
    inputs = torch.randn(64, 3)
    scaled = inputs * torch.tensor([1.0, 100.0, 0.5]) + torch.tensor([0.0, 5.0, -3.0])
    torch.testing.assert_close(mlp(inputs), mlp(scaled), atol=1e-4, rtol=1e-3)


def test_mlp_starts_near_zero_actions():
    torch.manual_seed(0)
    assert BatchNormMLP(10, 4)(torch.randn(32, 10)).abs().max() < 0.2


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


def test_conv_neck_refuses_a_grid_that_is_too_small():
    with pytest.raises(UsageError, match="at least 8x8, got 1x1"):
        ConvNeck((1, 1), 3)
