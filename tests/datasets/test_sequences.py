"""Windows of sequences from stores with different sensors; what they must agree on."""

import numpy as np
import pytest
import torch
from tiny_sequences import CONTEXT, VIEW, episode, image_encoder, make_store, windows_of

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading import feature_cache
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec


class Notes(SilentReporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_window_is_the_last_steps_up_to_its_frame_and_says_what_is_not_there(tmp_path, cache):
    data = windows_of(cache, make_store(tmp_path / "a", lengths=(7, 9)))
    assert len(data) == 16
    assert data.sizes == {VIEW: 8, STATE: 3, ACTION: 2}
    batch = data.batch(np.array([0, 6, 7, 12]))  # first and last of the first episode, first and sixth of the second
    with torch.inference_mode():
        encoder = image_encoder()
        latents = [
            encoder(encoder.preprocess(torch.from_numpy(episode(n, k)[VIEW])))[1]["pooled"] for n, k in ((0, 7), (1, 9))
        ]
    arrays = [{**episode(n, k), VIEW: latents[n].numpy()} for n, k in ((0, 7), (1, 9))]
    for row, (number, step) in enumerate(((0, 0), (0, 6), (1, 0), (1, 5))):
        for key in (VIEW, STATE, ACTION):
            for place, wanted in enumerate(range(step - CONTEXT + 1, step + 1)):
                assert batch[f"{key}_is_pad"][row, place] == (wanted < 0)
                if wanted >= 0:
                    np.testing.assert_allclose(batch[key][row, place], arrays[number][key][wanted], atol=1e-5)
    assert all(batch[key].dtype == np.float32 for key in data.sizes)


def test_stores_with_other_sensors_train_together(tmp_path, cache):
    paths = [
        make_store(tmp_path / "robot", lengths=(6,)),
        make_store(tmp_path / "video", lengths=(5,), keys=(VIEW,), first_seed=5),
        make_store(tmp_path / "blind", lengths=(4,), keys=(STATE, ACTION), first_seed=7),
    ]
    data = windows_of(cache, *paths)
    assert len(data) == 15
    assert list(data.sizes) == [VIEW, STATE, ACTION]
    batch = data.batch(np.array([5, 10, 14]))
    missing = {key: batch[f"{key}_is_pad"].all(axis=1).tolist() for key in data.sizes}
    assert missing == {VIEW: [False, False, True], STATE: [False, True, False], ACTION: [False, True, False]}
    assert not batch[STATE][1].any()
    np.testing.assert_allclose(batch[ACTION][2], episode(7, 4)[ACTION], atol=1e-6)
    assert [row["keys"] for row in data.describe()] == [sorted(data.sizes), [VIEW], sorted([STATE, ACTION])]


def test_statistics_are_those_of_all_frames_that_have_the_key(tmp_path, cache):
    paths = [make_store(tmp_path / "a", lengths=(6, 8)), make_store(tmp_path / "b", lengths=(5,), keys=(VIEW, STATE))]
    statistics = windows_of(cache, *paths).statistics()
    whole = {key: [episode(0, 6)[key], episode(1, 8)[key]] for key in (STATE, ACTION)}
    whole[STATE].append(episode(0, 5)[STATE])
    for key, parts in whole.items():
        values = np.concatenate(parts).astype(np.float64)
        np.testing.assert_allclose(statistics[key][0], values.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(statistics[key][1], values.std(axis=0), atol=1e-6)


def test_weights_are_of_sources_and_batches_depend_on_seed_and_step_only(tmp_path, cache):
    paths = [make_store(tmp_path / "a", lengths=(4,) * 4), make_store(tmp_path / "b", lengths=(4,), first_seed=9)]
    data = windows_of(cache, *paths, weights=[1, 3])
    sampler = data.sampler(batch_size=2000, seed=0)
    share = (sampler.batch(3) >= 16).mean()
    assert abs(share - 0.75) < 0.04
    again = windows_of(cache, *paths, weights=[1, 3]).sampler(batch_size=2000, seed=0)
    assert np.array_equal(sampler.batch(3), again.batch(3))
    assert sorted(windows_of(cache, *paths).sampler(batch_size=20, seed=0).batch(0)) == list(range(20))


def test_whole_episodes_are_held_out_of_every_source(tmp_path, cache):
    paths = [make_store(tmp_path / "a", lengths=(4, 5, 6, 7)), make_store(tmp_path / "b", lengths=(8,), first_seed=9)]
    data = windows_of(cache, *paths, weights=[1, 3])
    kept, held = data.hold_out(0.4, seed=0)
    assert len(held.sources[0].windows.episodes) == 2 and len(held.sources) == 1
    assert len(kept.sources[1].windows.episodes) == 1
    both = [part.sources[0].windows.episodes.tolist() for part in (kept, held)]
    assert sorted(both[0] + both[1]) == [0, 1, 2, 3]
    assert len(kept) + len(held) == len(data)
    assert [part.describe()[0]["weight"] for part in (kept, held)] == [1.0, None]
    assert both == [part.sources[0].windows.episodes.tolist() for part in data.hold_out(0.4, seed=0)]
    with pytest.raises(UsageError, match=r"holdout=0.4: every source of data is a single episode"):
        windows_of(cache, paths[1]).hold_out(0.4, seed=0)


def test_frames_are_encoded_once(tmp_path, cache, monkeypatch):
    path = make_store(tmp_path / "a", lengths=(5, 6))
    encoded = []
    encode = feature_cache.encode_frames

    def count(encoder, frames, **options):
        encoded.append(len(frames))
        return encode(encoder, frames, **options)

    monkeypatch.setattr(feature_cache, "encode_frames", count)
    windows_of(cache, path)
    assert sum(encoded) == 1 + 11  # one for the shape
    encoded.clear()
    windows_of(cache, path, context=2)
    assert sum(encoded) == 1


def test_short_episodes_are_noted_and_too_short_ones_refused(tmp_path, cache):
    reporter = Notes()
    path = make_store(tmp_path / "a", lengths=(3, 4, 9))
    windows_of(cache, path, reporter=reporter, context=4)
    assert reporter.notes == [f"{path}: 1 of 3 episodes are shorter than a window; what they lack is masked"]
    windows_of(cache, path, make_store(tmp_path / "fast", fps=30.0), reporter=reporter)
    assert any("different rates (10/s in" in note for note in reporter.notes)
    message = f"a window of 10 steps is longer than every episode of {path}, the longest has 9: set sequence.context"
    with pytest.raises(UsageError, match=message):
        windows_of(cache, path, context=10)


def test_what_does_not_go_together_is_refused(tmp_path, cache):
    one = make_store(tmp_path / "one")
    other = make_store(tmp_path / "other", robot="square")
    with pytest.raises(UsageError, match=r"observation.state is of different robots \(dot in .*, square in .*\): if"):
        windows_of(cache, one, other)
    assert len(windows_of(cache, one, other, mixed_robots=True)) == 44
    assert list(windows_of(cache, one, other, leave_out=[STATE, ACTION]).sizes) == [VIEW]
    named = [make_store(tmp_path / f"named{key}", keys=(VIEW, ACTION), names=("x", key)) for key in ("y", "z")]
    with pytest.raises(UsageError, match=r"action is of different robots \(dot: x, y in .*, dot: x, z in"):
        windows_of(cache, *named)
    with EpisodeStore.create(tmp_path / "wide", keys={ACTION: KeySpec("float32", (7,))}, fps=10.0, robot="dot") as wide:
        wide.append({ACTION: np.zeros((5, 7), np.float32)}, task="")
    with pytest.raises(UsageError, match=r"action has different numbers of values \(2 in .*one, 7 in .*wide\)"):
        windows_of(cache, one, tmp_path / "wide", leave_out=[STATE])


def test_bad_input_says_what_is_wrong(tmp_path, cache):
    one = make_store(tmp_path / "one")
    with pytest.raises(UsageError, match="unknown camera 'fron': did you mean front"):
        windows_of(cache, one, cameras=["fron"])
    with pytest.raises(UsageError, match="unknown modality to leave out 'actions': did you mean action"):
        windows_of(cache, one, leave_out=["actions"])
    with pytest.raises(UsageError, match="a store is named twice"):
        windows_of(cache, one, one)
    with pytest.raises(UsageError, match=r"weights: expected 1, none negative, not all zero; got \[0.0\]"):
        windows_of(cache, one, weights=[0.0])
    blind = make_store(tmp_path / "blind", keys=(STATE, ACTION))
    with pytest.raises(UsageError, match="no store has frames"):
        windows_of(cache, blind)
    with pytest.raises(UsageError, match="blind has nothing to learn from: it holds"):
        windows_of(cache, one, blind, leave_out=[STATE, ACTION])
    with EpisodeStore.create(tmp_path / "empty", keys={ACTION: KeySpec("float32", (2,))}, fps=10.0):
        pass
    with pytest.raises(UserError, match="empty holds no episodes"):
        windows_of(cache, tmp_path / "empty")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "one.mp4").touch()
    with pytest.raises(UserError, match="films holds videos: make an episode store of them, embodied data import"):
        windows_of(cache, tmp_path / "films")
    (tmp_path / "mix.yaml").touch()
    with pytest.raises(UserError, match="only objective=hpt reads manifests"):
        windows_of(cache, tmp_path / "mix.yaml")


def test_indices_that_are_not_there(tmp_path, cache):
    data = windows_of(cache, make_store(tmp_path / "a", lengths=(5,)))
    with pytest.raises(IndexError, match="indices must be in 0 to 4, got 5 to 5"):
        data.batch(np.array([5]))
