"""Corruptions of frames: filters for one episode."""

import numpy as np
import pytest

from embodied.envs.visuals.corruptions import CORRUPTIONS, JPEG_QUALITY, PHOTONS, READ_NOISE, exposure, noise, occlusion


def scene():
    """A frame uint8 [48, 64, 3] with edges, slopes and colours."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[..., 0] = np.arange(64) * 3
    frame[8:30, 20:40, 1] = 200
    frame[::6, :, 2] = 120
    return frame


def corrupted(name, strength, seed=3, frame=None):
    return CORRUPTIONS[name](np.random.default_rng(seed), strength)(scene() if frame is None else frame)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_keeps_shape_and_type_and_its_input(name):
    frame = scene()
    before = frame.copy()
    result = corrupted(name, 5, frame=frame)
    assert result.shape == frame.shape
    assert result.dtype == np.uint8
    assert np.array_equal(frame, before)
    assert not np.shares_memory(result, frame)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_and_frame_give_the_same(name):
    assert np.array_equal(corrupted(name, 3), corrupted(name, 3))


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"jpeg"}))
def test_another_episode_is_corrupted_otherwise(name):
    assert len({corrupted(name, 3, seed).tobytes() for seed in range(6)}) > 1


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_higher_strength_changes_more(name, seed):
    frame = scene().astype(float)
    changes = [np.abs(corrupted(name, strength, seed) - frame).mean() for strength in range(1, 6)]
    assert changes[0] > 0
    assert np.all(np.diff(changes) > 0), changes


def test_noise_has_the_deviation_that_it_says():
    for strength in (1, 5):
        for level in (64, 160):
            frame = np.full((200, 200, 3), level, np.uint8)
            wanted = np.sqrt(READ_NOISE[strength - 1] ** 2 + level * 255 / PHOTONS[strength - 1])
            spread = noise(np.random.default_rng(0), strength)(frame).std()
            if level + 3 * wanted < 255 and level - 3 * wanted > 0:
                assert spread == pytest.approx(wanted, rel=0.03)


def test_noise_of_the_next_frame_is_other_noise():
    apply = noise(np.random.default_rng(0), 3)
    frame = np.full((8, 8, 3), 100, np.uint8)
    following = frame.copy()
    following[0, 0, 0] += 1
    assert not np.array_equal(apply(frame)[1:], apply(following)[1:])


def test_exposure_moves_every_level_the_same_way():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    for seed in range(4):
        assert np.all(np.diff(exposure(np.random.default_rng(seed), 4)(ramp)[0, :, 0].astype(int)) >= 0)


def test_occlusion_leaves_the_middle():
    frame = np.full((100, 100, 3), 77, np.uint8)
    for seed in range(10):
        result = occlusion(np.random.default_rng(seed), 5)(frame)
        assert np.all(result[45:55, 45:55] == 77)
        assert 0.03 < np.mean(np.any(result != 77, axis=2)) < 0.21


def test_quality_of_compression_falls():
    assert list(JPEG_QUALITY) == sorted(JPEG_QUALITY, reverse=True)
