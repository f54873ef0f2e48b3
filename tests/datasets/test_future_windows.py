"""Windows with the frames that come later and the words of their episodes."""

import numpy as np
import pytest
import torch
from tiny_gr1 import WORDS, frames, make_store, windows_of
from tiny_sequences import CONTEXT, VIEW, episode

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.datasets.loading.future_windows import words_of

FUTURE = "future." + VIEW
TASKS = tuple(WORDS)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_window_has_features_and_later_frames_and_says_what_is_not_there(tmp_path, cache):
    data = windows_of(cache, make_store(tmp_path / "a", lengths=(7, 9)), ahead=2)
    assert len(data) == 16 and data.sizes == {VIEW: 8, STATE: 3, ACTION: 2}
    assert data.shapes == {VIEW: (5, 8), FUTURE: (16, 16, 3)}
    chosen = ((0, 0), (0, 6), (1, 0), (1, 7))
    batch = data.batch(np.array([0, 6, 7, 14]))
    encoder, lengths = frames(), (7, 9)
    for row, (number, step) in enumerate(chosen):
        arrays = episode(number, lengths[number])
        with torch.inference_mode():
            tokens, out = encoder(encoder.preprocess(torch.from_numpy(arrays[VIEW])))
        for place, wanted in enumerate(range(step - CONTEXT + 1, step + 1)):
            assert batch[VIEW + "_is_pad"][row, place] == (wanted < 0)
            later = wanted + 2
            assert batch[FUTURE + "_is_pad"][row, place] == (not 0 <= later < lengths[number])
            if 0 <= later < lengths[number]:
                assert np.array_equal(batch[FUTURE][row, place], arrays[VIEW][later])
            if wanted >= 0:
                np.testing.assert_allclose(batch[VIEW][row, place, 0], out["cls"][wanted], atol=1e-5)
                np.testing.assert_allclose(batch[VIEW][row, place, 1:], tokens[wanted], atol=1e-5)
                np.testing.assert_allclose(batch[ACTION][row, place], arrays[ACTION][wanted], atol=1e-6)
    assert batch[FUTURE].dtype == np.uint8 and batch[VIEW].dtype == np.float32


def test_every_window_has_the_words_of_its_episode(tmp_path, cache):
    data = windows_of(cache, make_store(tmp_path / "a", lengths=(4, 5, 6), tasks=TASKS))
    batch = data.batch(np.arange(len(data)))
    expected = [*[TASKS[0]] * 4, *[TASKS[1]] * 5, *[TASKS[0]] * 6]
    assert np.array_equal(batch[INSTRUCTION], np.stack([WORDS[task] for task in expected]))
    assert not batch[INSTRUCTION + "_is_pad"].any()
    trained, held = data.hold_out(0.34, seed=0)
    assert len(trained) + len(held) == len(data)
    assert set(held.batch(np.arange(len(held)))) == set(batch)
    assert not any(
        INSTRUCTION in name for name in windows_of(cache, tmp_path / "a", instructions=None).batch(np.array([0]))
    )


def test_videos_and_robots_and_what_says_nothing_train_together(tmp_path, cache):
    robot = make_store(tmp_path / "robot", lengths=(6,))
    video = make_store(tmp_path / "video", lengths=(5,), keys=(VIEW,), tasks=("",), first_seed=5)
    data = windows_of(cache, robot, video, image_size=8, weights=[1, 3])
    batch = data.batch(np.array([5, 10]))
    missing = {key: batch[f"{key}_is_pad"].all(axis=-1).tolist() for key in (*data.sizes, FUTURE)}
    assert missing == {VIEW: [False] * 2, FUTURE: [False] * 2, STATE: [False, True], ACTION: [False, True]}
    assert batch[INSTRUCTION + "_is_pad"].tolist() == [False, True]
    assert (
        batch[FUTURE].shape == (2, CONTEXT, 8, 8, 3) and not batch[STATE][1].any() and not batch[INSTRUCTION][1].any()
    )
    assert sorted(data.statistics()) == [ACTION, STATE]
    np.testing.assert_allclose(data.statistics()[ACTION][0], episode(0, 6)[ACTION].mean(axis=0), atol=1e-6)
    low, high = data.range_of(ACTION, 1)
    column = episode(0, 6)[ACTION][:, 1]
    assert (low, high) == (pytest.approx(column.min()), pytest.approx(column.max()))
    share = (data.sampler(batch_size=2000, seed=0).batch(3) >= 6).mean()
    assert abs(share - 0.75) < 0.05


def test_instructions_that_are_missing_are_refused_or_declared(tmp_path):
    stores = [
        str(make_store(tmp_path / "a", tasks=TASKS)),
        str(make_store(tmp_path / "b", tasks=("", "go round", " "))),
    ]
    assert words_of(stores, missing="hide") == list(TASKS)
    with pytest.raises(
        UsageError, match=r"b: episode 0 \(and 1 more\) has no instruction: .*missing_instructions=hide"
    ):
        words_of(stores, missing="refuse")
    with pytest.raises(UsageError, match=r"no episode has an instruction: set sequence.text_encoder=null"):
        words_of([str(make_store(tmp_path / "c", lengths=(4,), tasks=("",)))], missing="hide")
    with pytest.raises(UsageError, match=r"unknown sequence.missing_instructions 'hid': did you mean hide"):
        words_of(stores, missing="hid")


def test_a_window_out_of_range_is_refused(tmp_path, cache):
    data = windows_of(cache, make_store(tmp_path / "a", lengths=(4,)))
    with pytest.raises(IndexError, match="indices must be in 0 to 3"):
        data.batch(np.array([4]))
