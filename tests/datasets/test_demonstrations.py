"""Windows never reach over an episode's start, and samples hold what they should."""

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.window_index import history_indices


def test_history_repeats_the_first_frame_of_each_episode():
    assert history_indices([3, 2], 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]]


def test_history_of_one_is_the_frame_itself():
    assert history_indices([2, 1], 1).tolist() == [[0], [1], [2]]


def make(inputs):
    return Demonstrations(
        inputs,
        state=np.arange(10, dtype=np.float32).reshape(5, 2),
        action=np.array([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=np.float32),
        lengths=[3, 2],
        history=2,
    )


def test_features_come_as_float32_windows():
    batch = make(np.arange(5, dtype=np.float16)[:, None]).batch(np.array([3, 1]))
    assert batch["features"].dtype == torch.float32
    assert batch["features"].tolist() == [[[3.0], [3.0]], [[0.0], [1.0]]]
    assert batch["action"].tolist() == [[3.0], [1.0]]
    assert batch["observation.state"].tolist() == [[6.0, 7.0], [2.0, 3.0]]


def test_raw_frames_stay_uint8():
    batch = make(np.zeros((5, 4, 4, 3), dtype=np.uint8)).batch(np.array([0]))
    assert batch["inputs"].shape == (1, 2, 4, 4, 3)
    assert batch["inputs"].dtype == torch.uint8


def test_action_statistics_are_over_all_frames():
    mean, std = make(np.zeros((5, 1), dtype=np.float32)).action_statistics()
    assert mean.tolist() == [2.0]
    assert std.item() == pytest.approx(2**0.5)


def test_lengths_must_add_up():
    with pytest.raises(UsageError, match="inputs: expected 5 frames as in lengths, got 4"):
        make(np.zeros((4, 1), dtype=np.float32))
