"""Windows and chunks never reach out of an episode, and samples hold what they should."""

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError, UserError
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.window_index import history_indices


def test_history_repeats_the_first_frame_of_each_episode():
    assert history_indices([3, 2], 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]]


def test_history_of_one_is_the_frame_itself():
    assert history_indices([2, 1], 1).tolist() == [[0], [1], [2]]


def make(inputs, history=2, **options):
    arrays = {
        "state": np.arange(10, dtype=np.float32).reshape(5, 2),
        "action": np.array([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=np.float32),
        "lengths": [3, 2],
    }
    return Demonstrations(inputs, history=history, **{**arrays, **options})


FEATURES = np.arange(5, dtype=np.float16)[:, None]


def test_features_come_as_float32_windows():
    batch = make(FEATURES).batch(np.array([3, 1]))
    assert batch["features"].dtype == torch.float32
    assert batch["features"].tolist() == [[[3.0], [3.0]], [[0.0], [1.0]]]
    assert batch["action"].tolist() == [[[3.0]], [[1.0]]]
    assert batch["observation.state"].tolist() == [[[6.0, 7.0], [6.0, 7.0]], [[0.0, 1.0], [2.0, 3.0]]]
    assert batch["pad_mask"].tolist() == [[True], [True]]


def test_every_sample_has_the_instruction_of_its_episode():
    told = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    batch = make(FEATURES, instructions=told).batch(np.array([4, 0, 2, 3]))
    assert batch["instruction"].tolist() == [[3, 4], [1, 2], [1, 2], [3, 4]]
    assert "instruction" not in make(FEATURES).batch(np.array([0]))
    with pytest.raises(UsageError, match="one for each of 2 episodes, got 3"):
        make(FEATURES, instructions=torch.zeros(3, 2))


def test_chunks_end_with_the_episode():
    batch = make(FEATURES, chunk=3).batch(np.array([0, 1, 2, 3]))
    assert batch["action"][..., 0].tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 4, 4]]
    assert batch["pad_mask"].tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
        [True, True, False],
    ]


def test_forward_windows_begin_with_their_frame():
    batch = make(FEATURES, history=3, chunk=3, forward=True).batch(np.array([1]))
    assert batch["features"][0, :, 0].tolist() == [1, 2, 2]
    assert batch["observation.state"][0, :, 0].tolist() == [2, 4, 4]
    assert batch["action"][0, :, 0].tolist() == [1, 2, 2]
    assert batch["pad_mask"].tolist() == [[True, True, False]]


def test_features_of_several_cameras_are_put_side_by_side():
    tokens = np.arange(20, dtype=np.float32).reshape(5, 2, 2)
    batch = make([tokens, -tokens]).batch(np.array([4]))
    assert batch["features"].shape == (1, 2, 2, 4)
    assert batch["features"][0, 1].tolist() == [[16.0, 17.0, -16.0, -17.0], [18.0, 19.0, -18.0, -19.0]]


def test_raw_frames_stay_uint8():
    batch = make(np.zeros((5, 4, 4, 3), dtype=np.uint8)).batch(np.array([0]))
    assert batch["inputs"].shape == (1, 2, 4, 4, 3)
    assert batch["inputs"].dtype == torch.uint8


def test_one_episode_is_enough():
    data = make(FEATURES, lengths=[5], chunk=2)
    assert len(data) == 5 and data.actions.flatten().tolist() == [0, 1, 2, 3, 4]
    assert data.batch(np.array([4]))["pad_mask"].tolist() == [[True, False]]


def test_lengths_must_add_up():
    with pytest.raises(UsageError, match="inputs: expected 5 frames as in lengths, got 4"):
        make(np.zeros((4, 1), dtype=np.float32))


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(UsageError, match="there are no episodes to learn from"):
        make(FEATURES[:0], state=np.zeros((0, 2)), action=np.zeros((0, 1)), lengths=[])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_named_by_episode_and_step(bad):
    action = np.zeros((5, 1), np.float32)
    action[4] = bad
    with pytest.raises(UserError, match=r"action is not a finite number in episode 1, step 1: leave"):
        make(FEATURES, action=action)
    state = np.zeros((5, 2), np.float32)
    state[[2, 3], 1] = bad
    with pytest.raises(UserError, match=r"state is not a finite number in episode 0, step 2 \(and in 1 more"):
        make(FEATURES, state=state)


def test_windows_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match=r"\(and equal, forward\), got 2 and 3"):
        make(FEATURES, chunk=3, forward=True)
