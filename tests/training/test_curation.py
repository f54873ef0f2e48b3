"""Which frames are drawn how often: by what they show, and by the loss of an earlier pre-training."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.frames import open_frames
from embodied.training.curation import ScoreCache, colour_entropy, draw_shares, frame_entropies, frame_losses


class Brightness(nn.Module):
    """A loss that says which frame it is of; counts the batches it sees."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.drop = nn.Dropout(0.5)
        self.seen = []

    def forward(self, batch, generator):
        noise = torch.rand(1, generator=generator)
        self.seen.append((len(batch["images"]), float(noise)))
        return self.drop(batch["images"].float().mean() / 255) * self.scale, {}

    def reconstruct(self, frames, generator):
        raise NotImplementedError


def cache(tmp_path):
    return ScoreCache(tmp_path / "scores", None, SilentReporter())


@pytest.fixture
def frames(tmp_path):
    """Five grey pictures, each brighter than the one before."""
    (tmp_path / "greys").mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8), (51 * number,) * 3).save(tmp_path / "greys" / f"{number}.png")
    return open_frames([tmp_path / "greys"], image_size=8, cache_root=tmp_path / "cache")


def test_entropy_counts_levels_of_each_channel():
    flat = np.full((16, 16, 3), 7, np.uint8)
    every = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), (16, 16, 3))
    two = flat.copy()
    two[:8] = 200
    red = flat.copy()
    red[..., 0] = every[..., 0]
    assert colour_entropy(np.stack([flat, every, two, red])).tolist() == pytest.approx([0, 8, 1, 8 / 3])


def test_entropies_are_kept(tmp_path, frames, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    read = []
    monkeypatch.setattr(frames, "read", lambda indices: read.append(list(indices)) or pixels[indices])
    first = frame_entropies(frames, cache(tmp_path))
    np.testing.assert_allclose(first, colour_entropy(pixels))
    np.testing.assert_array_equal(frame_entropies(frames, cache(tmp_path)), first)
    assert read == [[0, 1, 2, 3, 4]]


def test_losses_are_those_of_single_frames_in_eval_mode_and_kept(tmp_path, frames):
    objective = Brightness()
    losses = frame_losses(frames, objective, cache(tmp_path), fingerprint="a")
    np.testing.assert_allclose(losses, [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
    assert objective.training
    assert [size for size, _ in objective.seen] == [1] * 5
    assert len({noise for _, noise in objective.seen}) == 1  # the same crop and mask for all
    np.testing.assert_array_equal(frame_losses(frames, objective, cache(tmp_path), fingerprint="a"), losses)
    assert len(objective.seen) == 5
    twice = frame_losses(frames, Brightness(2.0), cache(tmp_path), fingerprint="b")
    np.testing.assert_allclose(twice, 2 * losses, atol=1e-6)


def test_shares():
    bits, losses = np.array([4.5, 4.6, 7.0]), np.array([0.9, 0.3, 1.7])
    assert draw_shares(entropies=bits, least=4.5).tolist() == [0, 1, 1]
    assert draw_shares(losses=losses).tolist() == [0.9, 0.3, 1.0]
    assert draw_shares(entropies=bits, least=4.5, losses=losses).tolist() == [0, 0.3, 1.0]


def test_losses_that_say_nothing_are_refused(tmp_path, frames):
    with pytest.raises(UserError, match="under the earlier pre-training is nan"):
        frame_losses(frames, Brightness(float("nan")), cache(tmp_path), fingerprint="nan")
    pairs = Brightness()
    pairs.pairing = object()
    with pytest.raises(UsageError, match="Brightness does not rebuild single frames"):
        frame_losses(frames, pairs, cache(tmp_path), fingerprint="pairs")
