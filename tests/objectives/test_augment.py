"""Random resized crops: what they keep, and where their randomness comes from."""

import torch

from embodied.objectives.augment import (
    colour_jitter,
    gaussian_blur,
    grey_scale,
    random_resized_crop,
    solarize,
)


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


def test_another_size_shows_the_same_part():
    large, small = (
        random_resized_crop(ramp(4), generator(1), scale=(0.3, 0.6), size=size) for size in ((16, 16), (8, 8))
    )
    assert small.shape == (4, 2, 8, 8)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(large, 2), atol=1e-3, rtol=0.0)


def pixels():
    return torch.rand(64, 3, 12, 12, generator=generator(3))


def test_no_jitter_is_the_identity_and_grey_stays_grey():
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    torch.testing.assert_close(colour_jitter(pixels(), generator(), **none), pixels(), atol=1e-5, rtol=0.0)
    grey = pixels()[:, :1].expand(-1, 3, -1, -1)
    turned = colour_jitter(grey, generator(), **{**none, "saturation": 0.9, "hue": 0.5})
    torch.testing.assert_close(turned, grey, atol=2e-3, rtol=0.0)


def test_jitter_changes_each_image_in_its_own_way():
    one = pixels()[:1].expand(64, -1, -1, -1)
    changed = colour_jitter(one, generator(), brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.mean(dim=(1, 2, 3)).std() > 0.05


def test_shares_of_images_are_changed():
    for change, options in ((grey_scale, {}), (solarize, {}), (gaussian_blur, {"sigma": (1.0, 2.0)})):
        changed = change(pixels(), generator(), share=0.5, **options)
        touched = (changed != pixels()).flatten(1).any(dim=1)
        assert 20 <= int(touched.sum()) <= 44
    grey = grey_scale(pixels(), generator(), share=1.0)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    assert torch.equal(solarize(pixels(), generator(), share=1.0) < 0.5 + 1e-6, torch.ones(64, 3, 12, 12).bool())


def test_blur_keeps_the_mean_and_takes_the_detail():
    blurred = gaussian_blur(pixels(), generator(), share=1.0, sigma=(1.5, 1.5))
    torch.testing.assert_close(blurred.mean(), pixels().mean(), atol=5e-3, rtol=0.0)
    assert blurred.std() < 0.4 * pixels().std()
    assert torch.allclose(gaussian_blur(torch.full((2, 3, 9, 9), 0.3), generator(), share=1.0), torch.tensor(0.3))
