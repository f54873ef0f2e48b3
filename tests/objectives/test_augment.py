"""Random resized crops: what they keep, and where their randomness comes from."""

import torch

from embodied.objectives.augment import random_resized_crop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ramp(batch=64, size=16):
    """Images whose two channels are the x and the y coordinate of each pixel's centre, from 0 to 1."""
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y]).expand(batch, -1, -1, -1)


def test_the_whole_image_is_the_identity():
    images = torch.rand(3, 3, 8, 8, generator=generator())
    crops = random_resized_crop(images, generator(), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    torch.testing.assert_close(crops, images, atol=1e-5, rtol=0.0)


def test_area_and_place_are_in_range():
    crops = random_resized_crop(ramp(), generator(), scale=(0.25, 0.49), ratio=(1.0, 1.0))
    # neighbouring pixels lie side / size apart in the image they come from
    side = (crops[:, 0, 8, 9] - crops[:, 0, 8, 8]) * 16
    assert side.min() >= 0.5 - 1e-4
    assert side.max() <= 0.7 + 1e-4
    centre = crops[:, :, 7:9, 7:9].mean((2, 3))  # (B, 2)
    assert (centre >= side[:, None] / 2 - 1e-3).all()
    assert (centre <= 1 - side[:, None] / 2 + 1e-3).all()
    assert centre.std() > 0.05


def test_width_over_height_is_in_range():
    crops = random_resized_crop(ramp(), generator(), scale=(0.3, 0.3), ratio=(0.75, 4 / 3))
    width, height = crops[:, 0, 8, 9] - crops[:, 0, 8, 8], crops[:, 1, 9, 8] - crops[:, 1, 8, 8]
    assert (width / height).min() >= 0.75 - 1e-3
    assert (width / height).max() <= 4 / 3 + 1e-3
    torch.testing.assert_close(width * height * 256, torch.full((64,), 0.3), atol=1e-3, rtol=0.0)


def test_flip_mirrors_about_half_of_the_images():
    crops = random_resized_crop(ramp(), generator(), scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=True)
    mirrored = crops[:, 0, 0, 0] > 0.5
    assert 20 <= int(mirrored.sum()) <= 44
    torch.testing.assert_close(crops[mirrored], ramp(int(mirrored.sum())).flip(-1), atol=1e-5, rtol=0.0)


def test_the_generator_decides():
    first, again, other = (random_resized_crop(ramp(2), generator(seed), scale=(0.2, 1.0)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
