"""Targets and losses against loops, closed forms and figures of other libraries."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embodied.core.errors import UsageError
from embodied.models.patches import patchify
from embodied.objectives.parts.hog import hog_cells, hog_target, orientation_cells
from embodied.objectives.parts.losses import (
    code_error,
    frequency_error,
    koleo,
    masked_mean,
    soft_code_error,
    spectrum,
)
from embodied.objectives.parts.targets import denormalize_patches, flat_share, next_patch, normalize_patches

GOLDENS = Path(__file__).parent / "goldens" / "hog.safetensors"


def picture(seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, size, size, generator=generator)


def test_patches_are_normalised_by_the_unbiased_variance():
    patches = patchify(picture(), 8)
    ours = normalize_patches(patches)
    one = patches[1, 3].numpy()
    np.testing.assert_allclose(ours[1, 3], (one - one.mean()) / np.sqrt(one.var(ddof=1) + 1e-6), atol=1e-6)
    torch.testing.assert_close(denormalize_patches(ours, patches), patches, atol=1e-5, rtol=1e-4)


def test_next_patches_and_flat_ones():
    patches = torch.arange(8.0).view(1, 4, 2)
    assert torch.equal(next_patch(patches), patches[:, 1:])
    images = picture()
    images[:, :, :16] = 0.5
    assert flat_share(images, 8) == 0.5


def hog_by_loop(image, cell):
    """One channel float64 [S, S] to [9, S / cell, S / cell]."""
    size = len(image)
    padded = np.pad(image, 1, mode="reflect")
    cells = np.zeros((9, size // cell, size // cell))
    for y in range(size):
        for x in range(size):
            part = padded[y : y + 3, x : x + 3]
            gx = (part[:, 0] - part[:, 2]) @ [1, 2, 1]
            gy = (part[0] - part[2]) @ [1, 2, 1]
            angle = math.atan2(gx, gy) / math.pi * 9
            cells[math.floor(angle) % 9, y // cell, x // cell] += math.hypot(gx, gy)
    return cells


def test_histograms_equal_a_loop():
    image = picture()[0].double()
    ours = hog_cells(image[None], cell=8)[0]
    for channel in range(3):
        np.testing.assert_allclose(ours[channel], hog_by_loop(image[channel].numpy(), 8), atol=1e-6)


def test_histograms_equal_scikit_images_on_the_same_gradients():
    """Goldens: tests/objectives/goldens/make_hog.py, scikit-image's histogram kernel fed with Sobel gradients."""
    golden = load_file(GOLDENS)
    ours = hog_cells(golden["image"].double(), cell=8)[0]
    equal = ((ours - golden["cells"]).abs() < 1e-3).double().mean()
    assert equal > 0.999  # the rest are angles on the edge between two bins


def test_histograms_of_central_differences_are_those_of_scikit_images_public_function():
    """`hog` of the transposed picture, since its angle has the axes the other way round, and without Sobel."""
    golden = load_file(GOLDENS)
    theirs = golden["transposed_hog"].permute(2, 0, 1)[:, 1:-1, 1:-1]  # its border is another one
    image = golden["image"][:, :1].double()
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")
    across, down = padded[..., 1:-1, :-2] - padded[..., 1:-1, 2:], padded[..., :-2, 1:-1] - padded[..., 2:, 1:-1]
    unit = torch.nn.functional.normalize(orientation_cells(across, down, cell=8)[0, 0], dim=0)[:, 1:-1, 1:-1]
    torch.testing.assert_close(unit.to(theirs), theirs, atol=1e-5, rtol=0.0)
    sobel = torch.nn.functional.normalize(hog_cells(image, cell=8)[0, 0], dim=0)[:, 1:-1, 1:-1]
    assert torch.nn.functional.cosine_similarity(sobel.to(theirs), theirs, dim=0).mean() > 0.85


def test_target_is_ordered_channel_bin_cell_and_of_unit_norm():
    images = picture()
    target, empty = hog_target(images, 16, cell=8)
    assert target.shape == (2, 4, 108)
    assert empty == 0
    parts = target.view(2, 4, 3, 9, 2, 2)
    torch.testing.assert_close(parts.norm(dim=3), torch.ones(2, 4, 3, 2, 2))
    cells = hog_cells(images, cell=8)[1, 2, :, 3, 0]  # channel 2, cell in row 3, column 0: patch (1, 0), its lower left
    torch.testing.assert_close(parts[1, 2, 2, :, 1, 0], cells / cells.norm())


def test_target_ignores_brightness_and_contrast_of_a_channel():
    images = picture()
    scale, shift = torch.tensor([0.5, 2.0, 3.0]).view(3, 1, 1), torch.tensor([1.0, -1.0, 0.2]).view(3, 1, 1)
    first, other = hog_target(images, 8)[0], hog_target(images * scale + shift, 8)[0]
    # a difference of rounding may move one pixel over the edge of a bin
    assert ((first - other).abs() < 1e-3).float().mean() > 0.999


def test_flat_cells_are_zero_and_counted():
    images = picture()
    images[0] = 0.25
    target, empty = hog_target(images, 8)
    assert torch.equal(target[0], torch.zeros_like(target[0]))
    assert empty == 0.5


def test_gaussian_weighting_is_another_target():
    images = picture()
    weighted = hog_cells(images, cell=8, gaussian=True)
    assert (weighted.sum() / hog_cells(images, cell=8).sum()).item() == pytest.approx(1 / 256, rel=0.05)
    assert not torch.allclose(hog_target(images, 8, gaussian=True)[0], hog_target(images, 8)[0], atol=1e-3)


def test_reductions():
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert masked_mean(values, mask, reduction="batch") == (1 + 60) / 4
    assert masked_mean(values, mask, reduction="image") == (1 + 20 + 0) / 3
    assert masked_mean(values, torch.zeros(3, 3), reduction="batch") == 0
    with pytest.raises(UsageError, match="unknown reduction 'token': choose one of batch, image"):
        masked_mean(values, mask, reduction="token")


def test_soft_classes_contain_hard_ones():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[0, 4, 2], [1, 1, 3]])
    one_hot = torch.nn.functional.one_hot(codes, 5).float()
    torch.testing.assert_close(soft_code_error(logits, one_hot), code_error(logits, codes))


def test_spectrum_is_numpys_and_keeps_energy():
    images = picture()
    np.testing.assert_allclose(spectrum(images), np.fft.fft2(images.numpy(), norm="ortho"), atol=1e-4)
    other = picture(1)
    parseval = frequency_error(images, other, gamma=2.0).mean()
    torch.testing.assert_close(parseval, (images - other).pow(2).mean(), rtol=1e-5, atol=1e-7)


def test_koleo_is_lowest_where_features_spread():
    generator = torch.Generator().manual_seed(0)
    spread, close = torch.randn(64, 8, generator=generator), 1 + 0.01 * torch.randn(64, 8, generator=generator)
    assert koleo(spread) < koleo(close) - 2
    unit = torch.nn.functional.normalize(spread, dim=1).double()
    distance = torch.cdist(unit, unit) + 10 * torch.eye(64)
    assert koleo(spread).item() == pytest.approx(-distance.min(dim=1).values.log().mean().item(), rel=1e-4)
