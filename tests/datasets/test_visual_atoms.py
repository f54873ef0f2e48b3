"""Visual Atoms: pictures that depend on seed and index alone, of classes as the paper's program draws them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from embodied.core.errors import UsageError
from embodied.datasets.loading.visual_atoms import CANVAS, Atom, atom, atom_labels, perlin_values, render_atoms

PLAIN = {"vertices": 256, "lines": 60, "width": 0.05, "radius": 20.0, "axes": (1.0, 1.0)}


def radii(kind, seed=0):
    """float [L, V]: distance of each vertex from the centre along its direction."""
    angles = 2 * np.pi * np.arange(kind.vertices) / kind.vertices
    rings = kind.rings(np.random.default_rng(seed)).astype(np.float64)
    return rings[..., 0] * np.cos(angles) + rings[..., 1] * np.sin(angles)


def test_a_picture_is_a_function_of_seed_and_index():
    options = {"size": 24, "classes": 5}
    alone = render_atoms(np.array([7]), seed=3, **options)
    among = render_atoms(np.array([1, 12, 7, 0]), seed=3, **options)
    assert among.shape == (4, 24, 24, 3) and among.dtype == np.uint8
    assert np.array_equal(alone[0], among[2])
    assert not np.array_equal(alone, render_atoms(np.array([7]), seed=4, **options))
    assert not np.array_equal(among[1], among[2])  # of one class


def test_labels_go_through_the_classes_in_turn():
    assert atom_labels(np.array([0, 4, 5, 13]), 5).tolist() == [0, 4, 0, 3]
    assert render_atoms(np.arange(0), size=8, classes=2, seed=0).shape == (0, 8, 8, 3)


def test_pictures_are_grey_lines_on_black():
    images = render_atoms(np.arange(40), size=64, classes=40, seed=0)
    assert np.array_equal(images[..., 0], images[..., 1]) and np.array_equal(images[..., 0], images[..., 2])
    assert (images == 0).mean() > 0.3
    assert np.mean([image.max() > 50 for image in images]) > 0.9  # a few lie out of sight, or are thin


def test_classes_stay_within_the_ranges_of_the_paper():
    kinds = [atom(label, 0) for label in range(2000)]
    for name, low, high in [
        ("vertices", 200, 1000),
        ("lines", 1, 200),
        ("gain", 0, 4),
        ("width", 0, 0.1),
        ("radius", 10, 60),
    ]:
        values = np.array([getattr(kind, name) for kind in kinds])
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high
    frequencies = np.array([kind.frequencies for kind in kinds])
    assert set(frequencies[:, 0]) == set(frequencies[:, 1]) == set(range(21))
    same = frequencies[:, 0] == frequencies[:, 1]
    assert (frequencies[same] == 0).all() and same.any()
    axes = np.array([kind.axes for kind in kinds])
    assert 1 <= axes.min() < 1.01 and 1.99 < axes.max() <= 2


def test_without_noise_lines_are_the_formula():
    kind = Atom(frequencies=(3, 8), gain=0.0, **{**PLAIN, "axes": (1.5, 1.0)})
    rings = kind.rings(np.random.default_rng(0))
    for line, vertex in [(0, 0), (0, 17), (5, 100), (59, 255)]:
        angle = 2 * np.pi * vertex / 256
        grown = (line + 1) * (0.5 * np.sin(3 * angle) + 0.5 * np.sin(8 * angle) + 0.05)
        expected = [np.cos(angle) * (20 * 1.5 + grown), np.sin(angle) * (20 + grown)]
        np.testing.assert_allclose(rings[line, vertex], expected, rtol=1e-4, atol=1e-3)


def test_the_two_frequencies_are_the_peaks_of_the_radius():
    growth = np.diff(radii(Atom(frequencies=(4, 11), gain=3.0, **PLAIN)), axis=0).mean(axis=0)
    spectrum = 2 * np.abs(np.fft.rfft(growth)) / len(growth)
    assert set(np.argsort(spectrum[1:])[-2:] + 1) == {4, 11}
    np.testing.assert_allclose(spectrum[[4, 11]], 0.5, atol=0.1)
    assert growth.mean() == pytest.approx(3.05, abs=0.1)  # a line lies about the gain outside the one before


def test_perlin_noise_has_the_distribution_of_the_library():
    values = perlin_values()
    assert values.shape == (1 << 16,)
    assert np.abs(values).max() == pytest.approx(0.952, abs=1e-3)  # measured on `noise` 1.2.2, as the next
    assert values.std() == pytest.approx(0.3285, abs=0.015)
    assert np.quantile(values, [0.25, 0.75]) == pytest.approx([-0.15, 0.14], abs=0.02)
    distance, left, right = 0.75, -1, 5  # between two gradients, by the definition
    fade = 6 * distance**5 - 15 * distance**4 + 10 * distance**3
    expected = 0.4 * ((1 - fade) * left * distance + fade * right * (distance - 1))
    assert np.abs(values - expected).min() < 0.02


def test_an_image_is_all_of_its_lines_in_order(monkeypatch):
    """Lines that are left out as out of sight change nothing, and Pillow reads arrays as it reads lists."""
    drawn = render_atoms(np.arange(6), size=CANVAS, classes=6, seed=2)
    draw_line = ImageDraw.ImageDraw.line
    monkeypatch.setattr(ImageDraw.ImageDraw, "line", lambda self, xy, fill: draw_line(self, xy.ravel().tolist(), fill))
    monkeypatch.setattr(
        "embodied.datasets.loading.visual_atoms._touches_canvas", lambda points: np.ones(len(points), bool)
    )
    assert np.array_equal(drawn, render_atoms(np.arange(6), size=CANVAS, classes=6, seed=2))


def test_a_smaller_picture_is_the_large_one_resized():
    large, small = (render_atoms(np.array([5]), size=size, classes=9, seed=1)[0, ..., 0] for size in (CANVAS, 100))
    resized = Image.fromarray(large).resize((100, 100), Image.Resampling.BILINEAR)
    assert np.array_equal(small, np.asarray(resized))


def test_wrong_arguments():
    with pytest.raises(UsageError, match="classes of visual_atoms must be at least 1, got 0"):
        atom_labels(np.arange(3), 0)
    with pytest.raises(UsageError, match="no index negative, got 8 and -1"):
        render_atoms(np.array([0, -1]), size=8, classes=2, seed=0)
    with pytest.raises(UsageError, match="size must be at least 1"):
        render_atoms(np.arange(2), size=0, classes=2, seed=0)
