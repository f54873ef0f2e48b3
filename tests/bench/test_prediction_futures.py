"""Frames that GR-1 expects: each beside the one that came, and beside what it had seen."""

import numpy as np
import pytest
import tiny_gr1
import torch
from tiny_sequences import VIEW

from embodied.bench.prediction.futures import clip_windows, patch_means, predict_futures
from embodied.bench.prediction.judge import COPY, MEANS, MODEL
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.training.batches import to_tensors

AHEAD, FRAMES = 2, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_gr1.make_store(tmp_path_factory.mktemp("futures") / "store", lengths=(8, 5, 13))


@pytest.fixture(scope="module")
def data(store):
    return tiny_gr1.windows_of(store.parent / "cache", store, ahead=AHEAD)


def predicted(data, *, frames=FRAMES, clips=9, **objective):
    made = tiny_gr1.make(objective={"next_frames": AHEAD, **objective}).eval()
    found = predict_futures(made, data, camera="front", frames=frames, clips=clips, reporter=SilentReporter())
    return made, found


def test_a_clip_lies_in_one_episode_and_every_row_has_its_place(store, data):
    made, clips = predicted(data)
    frames = EpisodeStore.open(store).read(VIEW, 0, 26)
    # The second episode is too short; the first frame of a clip is the one that the first window expects.
    for truth, start in zip(clips.truth, (2, 15, 20), strict=True):
        assert (truth == frames[start : start + FRAMES]).all()
    assert (clips.context, clips.ahead) == (AHEAD, AHEAD)
    assert (clips.rows[COPY][:, AHEAD:] == clips.truth[:, :-AHEAD]).all()
    for row in clips.rows.values():
        assert (row[:, :AHEAD] == clips.truth[:, :AHEAD]).all()
    # The last frame of the first clip is what the window ends before by two.
    index = data.sources[0].windows.index_of(0, 4)
    batch = to_tensors(data.batch(np.array([index])), slice(None), torch.device("cpu"))
    shown, true = made.pictures(batch)["front"]
    assert (clips.truth[0, -1] == true[0].numpy()).all()
    # Up to what a batch of another size rounds otherwise.
    assert np.abs(clips.rows[MODEL][0, -1].astype(int) - shown[0].numpy()).max() <= 1


def test_means_are_shown_where_they_are_borrowed(data):
    _, clips = predicted(data, clips=1)
    patch = clips.rows[MEANS][0, -1, :8, :8].astype(int)
    assert (patch == patch[0, 0]).all()
    assert np.abs(patch[0, 0] - clips.truth[0, -1, :8, :8].mean(axis=(0, 1))).max() <= 0.5
    _, plain = predicted(data, clips=1, norm_pixels=False)
    assert MEANS not in plain.rows
    assert patch_means(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), 2).tolist() == [[[[4, 6, 6]] * 2] * 2]


def test_what_makes_no_sense_is_refused(data):
    with pytest.raises(UsageError, match="frames must be above the 2"):
        predicted(data, frames=2)
    with pytest.raises(UserError, match="the longest has 13: lower frames"):
        clip_windows(data, frames=12, ahead=AHEAD, clips=1)
