"""Writes hog.safetensors with scikit-image (pip install scikit-image), which the project does not need otherwise."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from skimage.feature import _hoghistogram, hog

SIZE, CELL, BINS = 64, 8, 9


def picture():
    """float32 [64, 64, 3]: waves, a disk and a little noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(11 * x * y)], axis=-1)
    disk = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06)[..., None]
    return (0.5 + 0.3 * waves + 0.2 * disk + 0.02 * random.standard_normal(waves.shape)).astype(np.float32)


def sobel(channel):
    """Gradients across and down, as torch's cross-correlation gives them, border reflected."""
    padded = np.pad(channel.astype(np.float64), 1, mode="reflect")
    part = {(i, j): padded[i : i + SIZE, j : j + SIZE] for i in range(3) for j in range(3)}
    across = sum(w * (part[i, 0] - part[i, 2]) for i, w in enumerate((1, 2, 1)))
    down = sum(w * (part[0, j] - part[2, j]) for j, w in enumerate((1, 2, 1)))
    return np.ascontiguousarray(across), np.ascontiguousarray(down)


def main():
    image, side, cells = picture(), SIZE // CELL, []
    for channel in range(3):
        across, down = sobel(image[:, :, channel])
        found = np.zeros((side, side, BINS))
        # Its arguments are the gradients along columns and rows; MaskFeat's angle takes them the other way round.
        _hoghistogram.hog_histograms(down, across, CELL, CELL, SIZE, SIZE, side, side, BINS, found)
        cells.append(found * CELL**2)  # it divides by the pixels of a cell
    transposed = hog(
        np.ascontiguousarray(image[:, :, 0].T),
        orientations=BINS,
        pixels_per_cell=(CELL, CELL),
        cells_per_block=(1, 1),
        block_norm="L2",
        feature_vector=False,
    ).reshape(side, side, BINS)
    tensors = {
        "image": image.transpose(2, 0, 1)[None],
        "cells": np.stack(cells).transpose(0, 3, 1, 2),
        "transposed_hog": transposed.transpose(1, 0, 2),
    }
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, Path(__file__).with_name("hog.safetensors"))


if __name__ == "__main__":
    main()
