"""Clips of codes: windows inside episodes, actions between frames, codes that are made once, and bad input."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clips import Notes, clips_of, tokenizer, write_film
from tiny_sequences import VIEW, episode, make_store

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.cache_space import list_caches
from embodied.datasets.loading.code_cache import code_dtype, decode_codes
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import fingerprint
from embodied.encoders.tokenizer import FrameTokenizer


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch):
    """How many frames went through a tokenizer, call by call."""
    counts = []
    codes = FrameTokenizer.codes

    def count(self, frames):
        counts.append(len(frames))
        return codes(self, frames)

    monkeypatch.setattr(FrameTokenizer, "codes", count)
    return counts


def test_a_clip_is_frames_of_one_episode_and_what_was_done_between_them(tmp_path, cache):
    data = clips_of(cache, make_store(tmp_path / "a", lengths=(4, 6)), frames=3)
    assert len(data) == 2 + 4  # one from every frame with two more after it
    assert data.sizes == {ACTION: 2, STATE: 3}
    batch = data.batch(np.arange(6))
    made, arrays = tokenizer(), [episode(0, 4), episode(1, 6)]
    codes = [made.codes(torch.from_numpy(each[VIEW])).numpy() for each in arrays]
    for row, (number, first) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]):
        steps = slice(first, first + 3)
        assert np.array_equal(batch["codes"][row], codes[number][steps])
        np.testing.assert_array_equal(batch[ACTION][row], arrays[number][ACTION][steps])
        np.testing.assert_array_equal(batch[STATE][row], arrays[number][STATE][steps])
    assert batch["codes"].dtype == np.int64 and batch["codes"].shape == (6, 3, 4)
    assert not batch[f"{ACTION}_is_pad"].any() and not batch[f"{STATE}_is_pad"].any()
    with pytest.raises(IndexError, match="indices must be in 0 to 5, got 6 to 6"):
        data.batch(np.array([6]))


def test_with_a_stride_the_actions_until_the_next_frame_go_together(tmp_path, cache):
    data = clips_of(cache, make_store(tmp_path / "a", lengths=(7,)), frames=3, stride=3)
    assert (len(data), data.span, data.sizes[ACTION]) == (1, 7, 6)
    batch, whole = data.batch(np.array([0])), episode(0, 7)
    np.testing.assert_array_equal(batch[ACTION][0, :2], whole[ACTION][:6].reshape(2, 6))
    assert batch[f"{ACTION}_is_pad"].tolist() == [[False, False, True]]  # two of three are beyond the end
    assert not batch[ACTION][0, 2].any()
    np.testing.assert_array_equal(batch[STATE][0], whole[STATE][::3])
    mean, std = data.statistics()[ACTION]
    np.testing.assert_allclose(mean, np.tile(whole[ACTION].mean(axis=0), 3), atol=1e-6)
    np.testing.assert_allclose(std, np.tile(whole[ACTION].std(axis=0), 3), atol=1e-6)


def test_stores_and_films_train_together_and_what_is_not_there_is_padded(tmp_path, cache):
    store = make_store(tmp_path / "robot", lengths=(5,), keys=(VIEW, ACTION))
    film = write_film(tmp_path / "films" / "a.avi", frames=4)
    data = clips_of(cache, store, film.parent, weights=[1, 3])
    assert (len(data), data.sizes) == (3 + 2, {ACTION: 2, STATE: 0})
    batch = data.batch(np.array([0, 4]))
    assert batch[f"{ACTION}_is_pad"].tolist() == [[False] * 3, [True] * 3]
    assert STATE not in batch and not batch[ACTION][1].any()
    assert abs((data.sampler(batch_size=2000, seed=0).batch(1) >= 3).mean() - 0.75) < 0.04
    assert [row["kind"] for row in data.describe()] == ["clips of a store", "videos"]
    only = clips_of(cache, film)
    assert list(only.batch(np.array([1]))) == ["codes"]
    assert only.pictures(np.array([1]))[0].shape == (3, 16, 16, 3)


def test_leaving_out_and_choosing_cameras(tmp_path, cache):
    store = make_store(tmp_path / "robot", lengths=(5,))
    assert clips_of(cache, store, leave_out=[STATE], cameras=["front"]).sizes == {ACTION: 2, STATE: 0}
    with pytest.raises(UsageError, match="unknown camera 'fron': did you mean front"):
        clips_of(cache, store, cameras=["fron"])
    with pytest.raises(UsageError, match="unknown modality to leave out 'actions': did you mean action"):
        clips_of(cache, store, leave_out=["actions"])
    blind = make_store(tmp_path / "blind", keys=(STATE, ACTION))
    with pytest.raises(UsageError, match="blind has none of the cameras that are asked for: it holds no images, but"):
        clips_of(cache, blind)


def test_codes_are_made_once_of_each_tokenizer_and_lie_small_on_the_disk(tmp_path, cache, encoded):
    path = make_store(tmp_path / "a", lengths=(5, 6))
    data = clips_of(cache, path)
    assert sum(encoded) == 11
    clips_of(cache, path, frames=2, stride=2)
    assert sum(encoded) == 11
    other = clips_of(cache, path, made=tokenizer(seed=1))
    assert sum(encoded) == 22
    assert other.fingerprint() != data.fingerprint() and other.tokenizer != data.tokenizer
    (files,) = {tuple(sorted(file.name for file in each.path.iterdir())) for each in list_caches(cache / "codes")}
    assert files == ("codes.npy", "progress.json")
    assert np.load(next(iter(list_caches(cache / "codes"))).path / "codes.npy", mmap_mode="r").dtype == np.uint16
    assert [code_dtype(count) for count in (2, 1 << 16, (1 << 16) + 1)] == ["uint16", "uint16", "uint32"]


def test_encoding_that_was_broken_off_goes_on(tmp_path, cache, encoded, monkeypatch):
    path = make_store(tmp_path / "a", lengths=(70, 60))
    codes = FrameTokenizer.codes

    def fail_second(self, frames):
        if len(encoded) == 1:
            raise KeyboardInterrupt
        return codes(self, frames)

    with monkeypatch.context() as patched:
        patched.setattr(FrameTokenizer, "codes", fail_second)
        with pytest.raises(KeyboardInterrupt):
            clips_of(cache, path)
    assert encoded == [64]
    resumed = clips_of(cache, path)
    assert encoded == [64, 64, 2]
    whole = clips_of(tmp_path / "other", path)
    places = np.arange(len(whole))
    assert np.array_equal(resumed.batch(places)["codes"], whole.batch(places)["codes"])


def test_codes_are_decoded_into_a_cache(tmp_path, cache):
    made = tokenizer()
    data = clips_of(cache, make_store(tmp_path / "a", lengths=(5,)), made=made)
    source = data.sources[0]
    drawn = decode_codes(
        made,
        source.codes,
        fingerprint=data.tokenizer,
        identity={"clips": source.fingerprint},
        root=cache / "decoded",
        device="cpu",
        reporter=SilentReporter(),
    )
    expected = made.decode(torch.from_numpy(source.codes[:].astype(np.int64)))
    assert np.array_equal(drawn.array("frames"), expected)


def test_whole_episodes_are_held_out_and_cameras_of_one_go_together(tmp_path, cache):
    both = {VIEW: KeySpec("uint8", (16, 16, 3)), "observation.images.side": KeySpec("uint8", (16, 16, 3))}
    with EpisodeStore.create(tmp_path / "two", keys=both, fps=10.0, robot="dot") as store:
        for number, length in enumerate((4, 5, 6, 2, 7)):  # one is shorter than a clip
            frames = episode(number, length)[VIEW]
            store.append({key: frames for key in both}, task="", seed=number)
    data = clips_of(cache, tmp_path / "two")
    kept, held = data.hold_out(0.4, seed=0)
    assert len(kept) + len(held) == len(data) == 2 * (2 + 3 + 4 + 5)
    assert [source.lengths.tolist() for source in held.sources] == [held.sources[0].lengths.tolist()] * 2
    assert not set(kept.sources[0].lengths) & set(held.sources[0].lengths)
    assert len(held.sources[0].lengths) == 2
    again = data.hold_out(0.4, seed=0)[1]
    assert [source.lengths.tolist() for source in again.sources] == [source.lengths.tolist() for source in held.sources]
    with pytest.raises(UsageError, match=r"holdout=0.4: every source of data is a single episode"):
        clips_of(cache, make_store(tmp_path / "one", lengths=(6,))).hold_out(0.4, seed=0)


def test_short_episodes_are_counted_and_refused_where_nothing_is_left(tmp_path, cache):
    path, notes = make_store(tmp_path / "a", lengths=(2, 4, 9)), Notes()
    clips_of(cache, path, frames=2, stride=4, reporter=notes)
    assert notes.notes == [f"a/{VIEW}: 2 of 3 episodes are shorter than the 5 frames of a clip, and left out"]
    with pytest.raises(UsageError, match="a clip of 4 frames, 4 apart, spans 13, and the longest episode"):
        clips_of(cache, path, frames=4, stride=4)


def test_films_of_several_sizes_and_rates_and_damaged_ones(tmp_path, cache, caplog):
    folder, notes = tmp_path / "films", Notes()
    write_film(folder / "a.avi", frames=5, height=16, width=32)
    write_film(folder / "b.avi", frames=6, height=48, width=16, fps=25, seed=1)
    (folder / "c.avi").write_bytes(b"no video")
    whole = write_film(folder / "d.avi", frames=8, seed=2).read_bytes()
    (folder / "d.avi").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        data = clips_of(cache, folder, reporter=notes)
    assert "left out" in caplog.text and "c.avi" in caplog.text
    assert any("have 10 to 25 frames per second: a clip lasts longer in some" in note for note in notes.notes)
    lengths = data.sources[0].lengths.tolist()
    assert lengths[:2] == [5, 6] and all(length < 8 for length in lengths[2:])  # what comes before the damage
    assert data.batch(np.arange(len(data)))["codes"].shape == (len(data), 3, 4)
    write_film(tmp_path / "fast" / "a.avi", fps=30)
    clips_of(cache, make_store(tmp_path / "slow", lengths=(5,)), tmp_path / "fast", reporter=notes)
    assert any("frames come at different rates (10/s in slow" in note for note in notes.notes)


def test_pictures_are_clips_of_one_frame(tmp_path, cache):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(np.full((20, 16, 3), 80 * number, np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    data = clips_of(cache, tmp_path / "photos", frames=1)
    assert data.batch(np.arange(3))["codes"].shape == (3, 1, 4)
    with pytest.raises(UsageError, match="photos holds images, of which none follows another"):
        clips_of(cache, tmp_path / "photos", frames=2)


def test_data_that_cannot_be(tmp_path, cache):
    one = make_store(tmp_path / "one")
    with pytest.raises(UserError, match=r"no data at .*nowhere: expected an episode store, a video or a folder"):
        clips_of(cache, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="a source is named twice"):
        clips_of(cache, one, one)
    with pytest.raises(UsageError, match=r"weights: expected 1, none negative, not all zero; got \[0.0\]"):
        clips_of(cache, one, weights=[0.0])
    other = make_store(tmp_path / "other", robot="square")
    with pytest.raises(UsageError, match=r"with video.mixed_robots=true, else leave it out with video.leave_out"):
        clips_of(cache, one, other)
    assert len(clips_of(cache, one, other, mixed_robots=True)) == 2 * (5 + 7 + 4)
    with pytest.raises(UsageError, match="frames and stride of a clip must be at least 1, got 3 and 0"):
        clips_of(cache, one, stride=0)


def test_a_tokenizers_fingerprint_sees_every_part():
    made = tokenizer()
    before = fingerprint(made)
    with torch.no_grad():
        made.decoder.head.bias[0] += 1
    assert fingerprint(made) != before
