"""Filters, projectors and noise: the algebra that the methods rest on."""

import numpy as np
import pytest
import torch
from tiny_objectives import encoder, frames, generator, make

from embodied.core.errors import UsageError
from embodied.models.patches import patchify
from embodied.objectives.masked.mfm import MFM
from embodied.objectives.masked.ropim import ROPIM, complement_error
from embodied.objectives.parts.corruptions import (
    NoiseSchedule,
    add_noise,
    count_sketch,
    filter_frequencies,
    low_frequencies,
    projector,
    subset,
    time_embedding,
)
from embodied.objectives.parts.decoders import PixelHead


def photo(size=224):
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    waves = torch.stack([torch.sin(9 * x + 4 * y), torch.cos(7 * y), torch.sin(11 * x * y)])
    return (0.5 + 0.3 * waves + 0.02 * torch.randn(3, size, size, generator=generator()))[None].clamp(0, 1)


def test_the_circle_holds_the_papers_share_of_frequencies():
    inside = low_frequencies((224, 224), 16, torch.device("cpu"))
    assert inside.sum() == 793  # 1.58 %


def test_low_and_high_frequencies_are_a_partition():
    images = photo()
    inside = low_frequencies((224, 224), 16, torch.device("cpu"))[None]
    low, high = filter_frequencies(images, inside), filter_frequencies(images, ~inside)
    torch.testing.assert_close(low + high, images, atol=2e-6, rtol=0.0)
    assert low.pow(2).sum() > 0.9 * images.pow(2).sum()


def test_the_filter_is_numpys_and_leaves_no_imaginary_part():
    image = photo(32)[0, 0].double().numpy()
    inside = low_frequencies((32, 32), 4, torch.device("cpu"))
    kept = np.fft.ifft2(np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(image)) * inside.numpy()))
    assert np.abs(kept.imag).max() < 1e-12  # the circle is Hermitian: F(-k) is kept with F(k)
    ours = filter_frequencies(torch.from_numpy(image)[None, None].float(), inside[None])[0, 0]
    np.testing.assert_allclose(ours, kept.real, atol=1e-6)


def test_mfm_clamps_the_high_pass_image():
    mfm = MFM(encoder(), radius=4)
    images = mfm.encoder.preprocess(frames(4))
    low = torch.tensor([True, True, False, False])
    pixels = mfm.corrupt(images, mfm.kept_frequencies(images, low)) * mfm.encoder.normalize.std
    pixels = pixels + mfm.encoder.normalize.mean
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    assert (pixels[2:] < 1e-6).float().mean() > 0.3  # without the zero frequency about half are negative
    assert (pixels[:2] < 1e-6).float().mean() < 0.2


def test_mfm_counts_removed_frequencies_only():
    mfm = make("mfm")
    images = mfm.encoder.preprocess(frames(2))
    low = torch.tensor([True, False])
    _, prediction, _ = mfm.filtered_loss(images, low)
    kept = mfm.kept_frequencies(images, low)
    # what lies within the kept frequencies is free
    shift = filter_frequencies(torch.randn(2, 3, 32, 32, generator=generator()), kept)
    mfm.head.forward = lambda tokens: prediction + shift
    torch.testing.assert_close(mfm.filtered_loss(images, low)[0], make("mfm").filtered_loss(images, low)[0])
    mfm.head.forward = lambda tokens: images
    assert mfm.filtered_loss(images, low)[0] < 1e-5


def test_mfm_reductions_weigh_the_branches_differently():
    loss = {}
    for reduction in ("batch", "image"):
        torch.manual_seed(0)
        mfm = MFM(encoder(), radius=4, reduction=reduction)
        images = mfm.encoder.preprocess(frames(2))
        loss[reduction], _, each = mfm.filtered_loss(images, torch.tensor([True, False]))
    torch.testing.assert_close(loss["image"], each.mean())
    inside = float(low_frequencies((32, 32), 4, torch.device("cpu")).sum())
    weights = torch.tensor([1024 - inside, inside])
    torch.testing.assert_close(loss["batch"], (each * weights).sum() / weights.sum())


def test_projectors_are_symmetric_idempotent_and_of_the_rank():
    sketch = count_sketch(3, 196, 28, generator())
    seen = projector(sketch)
    torch.testing.assert_close(seen, seen.transpose(1, 2))
    torch.testing.assert_close(seen @ seen, seen, atol=1e-6, rtol=0.0)
    assert torch.equal(torch.linalg.matrix_rank(seen), torch.full((3,), 28))
    torch.testing.assert_close(seen.diagonal(dim1=1, dim2=2).sum(1), torch.full((3,), 28.0))
    # a released detail: buckets and signs are balanced
    assert torch.equal(sketch.abs().sum(dim=1), torch.full((3, 28), 7.0))
    assert torch.equal(sketch.sum(dim=(1, 2)), torch.zeros(3))


def test_projectors_keep_a_seventh_of_the_energy():
    seen = projector(count_sketch(50, 196, 28, generator()))
    signal = torch.randn(50, 196, 16, generator=generator(1))
    assert ((seen @ signal).pow(2).sum() / signal.pow(2).sum()).item() == pytest.approx(1 / 7, rel=0.05)


def test_ropim_does_not_count_what_was_seen():
    seen = projector(count_sketch(2, 16, 4, generator()))
    residual = torch.randn(2, 16, 12, generator=generator(1))
    assert complement_error(seen @ residual, seen) < 1e-6
    hidden = residual - seen @ residual
    torch.testing.assert_close(complement_error(residual, seen), hidden.abs().mean())


def test_ropim_ranks():
    assert ROPIM(encoder()).rank == 2  # 16 / 7, and the divisor below
    with pytest.raises(UsageError, match="rank must divide the 16 patches and be smaller, got 5"):
        ROPIM(encoder(), rank=5)


def test_linear_pixel_head_is_convolution_and_pixel_shuffle():
    head = PixelHead(6, 4, 3)
    convolution, shuffle = torch.nn.Conv2d(6, 48, 1), torch.nn.PixelShuffle(4)
    with torch.no_grad():
        order = (
            torch.arange(48).view(4, 4, 3).permute(2, 0, 1).flatten()
        )  # row, column, channel to channel, row, column
        convolution.weight.copy_(head.linear.weight[order][:, :, None, None])
        convolution.bias.copy_(head.linear.bias[order])
    tokens = torch.randn(2, 9, 6, generator=generator())
    theirs = shuffle(convolution(tokens.transpose(1, 2).unflatten(2, (3, 3))))
    torch.testing.assert_close(head(tokens), theirs)


def test_noise_schedule_ends_in_noise_and_keeps_variance():
    kept = NoiseSchedule().kept()
    assert kept[0] > 0.999
    assert kept[-1] < 1e-4
    assert (kept.diff() < 0).all()
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(kept, np.cumprod(1 - betas), rtol=1e-5)
    torch.testing.assert_close(NoiseSchedule(exponent=2.0).kept(), kept**2, rtol=1e-4, atol=1e-9)
    clean, noise = torch.randn(2, 4000, 2, generator=generator()), torch.randn(2, 4000, 2, generator=generator(1))
    noised = add_noise(clean, noise, torch.tensor([1.0, 0.3]))
    assert torch.equal(noised[0], clean[0])
    assert noised[1].var().item() == pytest.approx(1.0, abs=0.05)
    with pytest.raises(UsageError, match="exponent positive, got 1000 and 0"):
        NoiseSchedule(exponent=0)


def test_diffmae_gets_harder_with_time():
    """A decoder that copies its input makes the smallest error at the first time and the largest at the last."""
    objective = make("diffmae").eval()
    images = objective.encoder.preprocess(frames(16))
    clean = patchify(images, 8)
    noise = torch.randn(clean.shape, generator=generator())
    errors = [
        (add_noise(clean, noise, objective.kept[time - 1].expand(16)) - clean).pow(2).mean().item()
        for time in (1, 250, 500, 1000)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.001 * errors[-1]


def test_subsets_are_exact_and_uniform():
    chosen = subset(3000, 8, 3, generator())
    assert (chosen.sum(dim=1) == 3).all()
    torch.testing.assert_close(chosen.float().mean(dim=0), torch.full((8,), 3 / 8), atol=0.03, rtol=0.0)


def test_times_are_told_apart():
    code = time_embedding(torch.tensor([0.001, 0.01, 0.5, 1.0]), 32)
    assert code.shape == (4, 32)
    assert torch.pdist(code).min() > 0.5
