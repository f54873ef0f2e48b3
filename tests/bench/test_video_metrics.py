"""Distances of predicted frames: against scikit-image, against scipy's matrix root, and what they must be by nature."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from embodied.bench.video_metrics import (
    FeatureNetwork,
    bootstrap_distance,
    bootstrap_mean,
    clip_features,
    frechet_distance,
    kernel_distance,
    perceptual_distance,
    psnr,
    ssim,
)
from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.vit import ViTEncoder


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = ViTEncoder(image_size=16, patch_size=8, width=8, depth=2, heads=2)
    encoder = freeze(LayersEncoder(encoder=inner, layers=[1, 2]))
    return FeatureNetwork("tiny@1+2", encoder, fingerprint(encoder))


def pair(number):
    """Two pictures that differ by a shift and noise, by a rule that any program can follow."""
    rows, columns, colours = np.meshgrid(np.arange(24), np.arange(20), np.arange(3), indexing="ij")
    first = (128 + 100 * np.sin(0.3 * rows + 0.5 * number) * np.cos(0.2 * columns * (1 + colours))).round()
    noise = (rows * 7 + columns * 13 + colours * 29 + number * 31) % 41 - 20
    second = np.clip(np.roll(first, number, axis=1) + noise, 0, 255)
    return first.astype(np.uint8), second.astype(np.uint8)


def clips(count=5, frames=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, frames, 16, 16, 3), dtype=np.uint8)


# scikit-image 0.26: peak_signal_noise_ratio(first, second, data_range=255) and structural_similarity(first, second,
# channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False), for pair(0), (1), (2)
SKIMAGE_PSNR = [26.669630965157538, 18.446489781160846, 13.914916281732982]
SKIMAGE_SSIM = [0.9246215716517269, 0.8209357083440914, 0.5620382269810598]


def test_psnr_and_ssim_are_scikit_images():
    first, second = (np.stack([pair(number)[place] for number in range(3)])[None] for place in (0, 1))
    assert psnr(first, second)[0] == pytest.approx(SKIMAGE_PSNR, abs=1e-9)
    assert ssim(first, second)[0] == pytest.approx(SKIMAGE_SSIM, abs=1e-9)


def test_equal_frames_are_as_near_as_rounding_lets_them():
    same = clips()
    assert psnr(same, same) == pytest.approx(10 * np.log10(255**2 * 12))
    assert ssim(same, same) == pytest.approx(1)
    off = same.copy()
    off[0, 1] ^= 1  # every value off by one: worse than rounding
    assert psnr(same, off)[0] == pytest.approx([58.9226, 48.1308, 58.9226], abs=1e-4)


def test_perceptual_distance_is_none_for_equal_frames_and_grows_with_noise(network):
    truth = clips()
    assert perceptual_distance(truth, truth, network) == pytest.approx(np.zeros((5, 3)), abs=1e-9)
    random = np.random.default_rng(1)
    noisy = [
        np.clip(truth + random.normal(size=truth.shape) * level, 0, 255).astype(np.uint8) for level in (10, 40, 160)
    ]
    near, middle, far = (perceptual_distance(truth, each, network).mean() for each in noisy)
    assert 0 < near < middle < far <= 4


def test_perceptual_distance_is_the_mean_over_layers_and_places(network):
    truth, other = clips(1, 1), clips(1, 1, seed=9)
    x, y = network.tokens(truth[0])[0].double().numpy(), network.tokens(other[0])[0].double().numpy()  # (N, L, D)
    total = 0.0
    for place in range(x.shape[0]):
        for layer in range(x.shape[1]):
            a, b = (each[place, layer] / np.linalg.norm(each[place, layer]) for each in (x, y))
            total += float(((a - b) ** 2).sum())
    assert x.shape[:2] == (4, 2)
    assert perceptual_distance(truth, other, network)[0, 0] == pytest.approx(total / 8, rel=1e-5)


def test_clip_features_tell_what_is_seen_from_how_it_moves(network):
    still = np.repeat(clips(2, 1), 4, axis=1)
    found = clip_features(still, network)
    assert found.shape == (2, 2 * 2 * 8)
    assert found[:, 16:] == pytest.approx(np.zeros((2, 16)), abs=1e-7)
    moving = clips(2, 4)
    assert (clip_features(moving, network)[:, 16:] > 0).all()
    backwards = clip_features(moving[:, ::-1].copy(), network)
    assert backwards == pytest.approx(clip_features(moving, network), abs=1e-6)  # as its docstring says


def test_frechet_distance_is_scipys_where_that_has_one():
    random = np.random.default_rng(0)
    mix = random.normal(size=(6, 6))
    first, second = random.normal(size=(200, 6)) @ mix, random.normal(size=(150, 6)) * 1.5 + 0.3
    shift = first.mean(axis=0) - second.mean(axis=0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = shift @ shift + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_fewer_clips_than_features():
    random = np.random.default_rng(0)
    rows = random.normal(size=(5, 300))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 2) == pytest.approx(4 * 300)  # a shift alone
    # Of what is scaled by 3 around its mean each deviation differs by two: (3 - 1)^2 Tr S.
    scaled = rows.mean(axis=0) + 3 * (rows - rows.mean(axis=0))
    assert frechet_distance(rows, scaled) == pytest.approx(4 * np.trace(np.cov(rows, rowvar=False)))


def test_frechet_distance_is_biased_by_few_clips_and_the_kernel_distance_is_not():
    random = np.random.default_rng(0)

    def mean(distance, count):
        return np.mean([distance(*random.normal(size=(2, count, 8))) for _ in range(200)])

    assert mean(frechet_distance, 8) > 1.8 * mean(frechet_distance, 32) > 0
    values = [kernel_distance(*random.normal(size=(2, 8, 8))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert min(values) < 0 < kernel_distance(random.normal(size=(50, 8)), random.normal(size=(50, 8)) + 1)


def test_intervals_cover_and_shrink():
    random = np.random.default_rng(0)
    few, many = random.normal(size=10), random.normal(size=1000)
    value, low, high = bootstrap_mean(few)
    assert low < value == few.mean() < high
    assert bootstrap_mean(few) == (value, low, high)  # by its seed
    _, lower, higher = bootstrap_mean(many)
    assert higher - lower < (high - low) / 5
    first, second = random.normal(size=(20, 4)), random.normal(size=(20, 4)) + 1
    value, low, high = bootstrap_distance(frechet_distance, first, second)
    assert low < value == frechet_distance(first, second) < high


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 3, 8, 8, 3), np.float32), clips(), r"truth: expected uint8 \[B, T, H, W, 3\], got float32"),
        (clips(), clips()[0], r"predicted: expected uint8 \[B, T, H, W, 3\], got uint8 \[3, 16, 16, 3\]"),
        (clips(), clips(4), r"expected the shape of the truth, \[5, 3, 16, 16, 3\], got \[4, "),
    ],
)
def test_what_is_no_pair_of_clips_is_refused(truth, predicted, message):
    for measure in (psnr, ssim):
        with pytest.raises(UsageError, match=message):
            measure(truth, predicted)


def test_other_refusals(network):
    small = np.zeros((1, 1, 10, 16, 3), np.uint8)
    with pytest.raises(UsageError, match="at least 11 x 11"):
        ssim(small, small)
    with pytest.raises(UsageError, match="at least 2 frames to move, got 1"):
        clip_features(small, network)
    with pytest.raises(UserError, match="at least 2 of each"):
        frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))
    with pytest.raises(UserError, match="not finite"):
        kernel_distance(np.full((3, 4), np.nan), np.zeros((3, 4)))
    with pytest.raises(UsageError, match="features=state reads no pictures"):
        FeatureNetwork.load("state")


def test_the_default_network_has_three_layers():
    network = FeatureNetwork.load()
    assert network.tokens(clips(1, 1)[0]).shape == (1, 64, 3, 192)
