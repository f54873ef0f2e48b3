"""Windows of a volume: an exact inverse, the mask they stand for, and attention in them."""

from itertools import product

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.models.block import Block
from embodied.models.sequence.windows3d import merge_windows, split_windows, window_mask

SIZE = (4, 6, 2)
WINDOWS = [(1, 6, 2), (4, 2, 1), (2, 3, 2), (1, 1, 1), SIZE]


def block():
    torch.manual_seed(0)
    return Block(8, 2).eval()


@pytest.mark.parametrize("window", WINDOWS)
def test_merging_gives_back_every_bit(window):
    volume = torch.randn(3, *SIZE, 5)
    windows = split_windows(volume, window)
    assert windows.shape == (3 * volume[0, ..., 0].numel() // (window[0] * window[1] * window[2]), *windows.shape[1:])
    assert torch.equal(merge_windows(windows, window, SIZE), volume)


def test_a_window_holds_its_tokens_frame_by_frame():
    volume = torch.arange(4 * 6 * 2).view(1, *SIZE, 1).float()
    windows = split_windows(volume, (2, 3, 2))
    expected = [[t * 12 + row * 2 + column for t, row, column in product(frames, rows, range(2))]
                for frames, rows in product(([0, 1], [2, 3]), ([0, 1, 2], [3, 4, 5]))]  # fmt: skip
    assert windows[..., 0].tolist() == expected


@pytest.mark.parametrize("window", WINDOWS)
def test_the_mask_is_what_a_loop_over_pairs_says(window):
    mask = window_mask(SIZE, window)
    places = list(product(*(range(count) for count in SIZE)))
    cell = [tuple(at // part for at, part in zip(place, window, strict=True)) for place in places]
    assert mask.tolist() == [[one == other for other in cell] for one in cell]


@torch.no_grad()
@pytest.mark.parametrize("window", WINDOWS)
def test_attention_in_windows_is_full_attention_under_the_mask(window):
    layer, volume = block(), torch.randn(2, *SIZE, 8)
    inside = merge_windows(layer(split_windows(volume, window)), window, SIZE)
    full = layer(volume.flatten(1, 3), mask=window_mask(SIZE, window))
    torch.testing.assert_close(inside.flatten(1, 3), full)


@torch.no_grad()
def test_a_window_of_the_whole_volume_is_full_attention():
    layer, volume = block(), torch.randn(2, *SIZE, 8)
    inside = merge_windows(layer(split_windows(volume, SIZE)), SIZE, SIZE)
    assert torch.equal(inside.flatten(1, 3), layer(volume.flatten(1, 3)))


def test_what_does_not_divide_is_refused():
    for window in ((3, 6, 2), (4, 4, 2), (1, 0, 1)):
        with pytest.raises(UsageError, match=r"window must divide the 4 frames of 6 x 2 tokens, got"):
            split_windows(torch.zeros(1, *SIZE, 1), window)
        with pytest.raises(UsageError, match="window must divide"):
            window_mask(SIZE, window)
