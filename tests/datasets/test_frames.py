"""Photographs and simulator frames become one array of squares, decoded once and drawn reproducibly."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.image_files import square
from embodied.datasets.loading import frame_sources
from embodied.datasets.loading.frames import open_frames
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

PHOTOS = Path(__file__).parents[2] / "../shared/data/natural_images"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (20, 10), RED).save(folder / "a.png")
    Image.new("RGB", (10, 30), GREEN).save(folder / "b.BMP")
    Image.new("L", (9, 9), 77).save(folder / "more" / "c.webp", lossless=True)
    (folder / "README.txt").write_text("not an image")
    return folder


@pytest.fixture
def demos(tmp_path):
    keys = {f"observation.images.{name}": KeySpec("uint8", (8, 8, 3)) for name in ("front", "top")}
    with EpisodeStore.create(tmp_path / "demos", keys={**keys, "action": KeySpec("float32", (2,))}, fps=10) as store:
        for seed in range(2):
            images = np.full((3, 8, 8, 3), 10 * seed + np.arange(3).reshape(3, 1, 1, 1), np.uint8)
            arrays = {"observation.images.front": images, "observation.images.top": images + 100}
            store.append({**arrays, "action": np.zeros((3, 2), np.float32)}, task="", seed=seed, success=True)
    return store.path


def test_the_short_side_is_resized_and_the_centre_kept():
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = GREEN
    assert (square(Image.fromarray(stripes), 10) == GREEN).all()
    small = square(Image.fromarray(stripes), 5)
    assert small.shape == (5, 5, 3) and (small[:, 2] == GREEN).all()
    assert square(Image.fromarray(stripes), 40).shape == (40, 40, 3)
    same = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    assert np.array_equal(square(Image.fromarray(same), 6), same)


def test_a_folder_is_read_in_order_with_those_below_it(photos, tmp_path):
    frames = open_frames(str(photos), image_size=8, cache_root=tmp_path / "c")
    assert len(frames) == 3 and frames[0].shape == (8, 8, 3) and frames[0].dtype == np.uint8
    for index, colour in enumerate((RED, GREEN, (77, 77, 77))):
        assert (frames[index] == colour).all()
    (described,) = frames.describe()
    assert (described["kind"], described["name"], described["frames"]) == ("images", "photos", 3)


def test_a_store_gives_the_frames_of_all_its_cameras(demos, tmp_path):
    frames = open_frames(demos.as_posix(), image_size=8, cache_root=tmp_path / "c")
    assert [int(frames[i][0, 0, 0]) for i in range(12)] == [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]
    assert [part["name"] for part in frames.describe()] == [
        "demos/observation.images.front",
        "demos/observation.images.top",
    ]
    assert open_frames(demos.as_posix(), image_size=4, cache_root=tmp_path / "c")[3].shape == (4, 4, 3)


def test_sources_are_mixed_and_weighted(photos, demos, tmp_path):
    frames = open_frames(f"{photos}, {demos}", image_size=8, cache_root=tmp_path / "c", weights=[3, 1])
    assert len(frames) == 15
    batch = frames.read(np.array([14, 0, 3, 0]))
    assert batch[:, 0, 0, 0].tolist() == [112, 255, 0, 255]
    weights = frames.item_weights()
    np.testing.assert_allclose(weights[:3].sum(), 3 * weights[3:].sum())
    drawn = np.concatenate([frames.sampler(batch_size=100, seed=0).batch(step) for step in range(20)])
    assert 0.7 < (drawn < 3).mean() < 0.8
    assert open_frames([photos, demos], image_size=8, cache_root=tmp_path / "c").item_weights() is None


def test_images_are_decoded_once(photos, tmp_path, monkeypatch):
    first = open_frames([photos], image_size=8, cache_root=tmp_path / "c")

    def refuse(path, size):
        raise AssertionError(f"{path} decoded again")

    monkeypatch.setattr(frame_sources, "read_square", refuse)
    again = open_frames([photos], image_size=8, cache_root=tmp_path / "c")
    assert again.fingerprint() == first.fingerprint() and np.array_equal(again[2], first[2])


def test_decoding_goes_on_where_it_was_stopped(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_sources, "BLOCK", 1)
    decode, calls = frame_sources.read_square, []

    def stop_at_the_third(path, size):
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(path, size)

    monkeypatch.setattr(frame_sources, "read_square", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        open_frames([photos], image_size=8, cache_root=tmp_path / "c")
    stopped = open_frames([photos], image_size=8, cache_root=tmp_path / "c")
    assert calls == ["a.png", "b.BMP", "c.webp", "c.webp"]
    whole = open_frames([photos], image_size=8, cache_root=tmp_path / "d")
    assert stopped.fingerprint() == whole.fingerprint()


def test_the_fingerprint_follows_the_pixels(photos, tmp_path):
    def fingerprint(size=8):
        return open_frames([photos], image_size=size, cache_root=tmp_path / "c").fingerprint()

    before = fingerprint()
    assert fingerprint(size=4) != before
    Image.new("RGB", (20, 10), BLUE).save(photos / "a.png")
    assert fingerprint() != before


@pytest.mark.parametrize("content", [b"no image at all", None], ids=["foreign", "truncated"])
def test_bad_images_are_named_or_skipped_with_one_warning(photos, tmp_path, caplog, content):
    whole = photos / "more" / "z.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (photos / "aa.jpg").write_bytes(content or whole.read_bytes()[:900])
    options = {"image_size": 8, "cache_root": tmp_path / "c"}
    with pytest.raises(UserError, match=r"aa\.jpg cannot be read as an image"):
        open_frames([photos], **options)
    with caplog.at_level(logging.WARNING):
        frames = open_frames([photos], on_error="skip", **options)
    assert len(frames) == 4 and (frames[1] == GREEN).all()
    assert frames.describe()[0]["skipped"] == 1
    assert "skipped 1 of 5 images" in caplog.text and "aa.jpg" in caplog.text
    with pytest.raises(UserError, match=r"aa\.jpg cannot be read as an image"):
        open_frames([photos], **options)


def test_sources_without_frames_say_what_is_wrong(tmp_path):
    options = {"image_size": 8, "cache_root": tmp_path / "c"}
    with pytest.raises(UserError, match="no episode store and no folder of images, videos or shards at"):
        open_frames(str(tmp_path / "nothing"), **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_frames(str(tmp_path / "empty"), **options)
    EpisodeStore.create(tmp_path / "s", keys={"action": KeySpec("float32", (2,))}, fps=10).close()
    with pytest.raises(UserError, match="holds no images"):
        open_frames(str(tmp_path / "s"), **options)
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 images"):
        open_frames(str(tmp_path / "empty"), on_error="skip", **options)


def test_wrong_arguments_are_refused(photos, tmp_path):
    for changes in ({"weights": [1, 2]}, {"weights": [-1]}, {"on_error": "ignore"}, {"image_size": 0}):
        with pytest.raises(UsageError, match=next(iter(changes))):
            open_frames([photos], **{"image_size": 8, "cache_root": tmp_path, **changes})
    with pytest.raises(UsageError, match="sources"):
        open_frames(f"{photos},,", image_size=8, cache_root=tmp_path)
    with pytest.raises(IndexError, match="0 to 2"):
        open_frames([photos], image_size=8, cache_root=tmp_path / "c").read(np.array([3]))


def test_workers_share_the_file_and_not_a_copy(demos, tmp_path):
    frames = open_frames([demos], image_size=64, cache_root=tmp_path / "c")
    assert len(pickle.dumps(frames)) < 3000 < frames[0].nbytes
    assert np.array_equal(pickle.loads(pickle.dumps(frames))[4], frames[4])
    batches = list(DataLoader(frames, batch_size=6))
    assert [batch.shape for batch in batches] == [(6, 64, 64, 3), (6, 64, 64, 3)]


def test_every_epoch_is_a_permutation_and_steps_are_pure():
    sampler = EpochSampler(10, batch_size=4, seed=3)
    stream = np.concatenate([sampler.batch(step) for step in range(10)])
    assert stream.dtype == np.int64
    for epoch in range(4):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert len({tuple(stream[start : start + 10]) for start in (0, 10, 20, 30)}) == 4
    fresh = EpochSampler(10, batch_size=4, seed=3)
    assert [fresh.batch(step).tolist() for step in (7, 2)] == [stream[28:32].tolist(), stream[8:12].tolist()]
    assert EpochSampler(10, batch_size=4, seed=4).batch(0).tolist() != stream[:4].tolist()
    assert np.array_equal(pickle.loads(pickle.dumps(sampler)).batch(5), stream[20:24])


def test_a_batch_larger_than_the_data_goes_over_several_epochs():
    batch = EpochSampler(3, batch_size=7, seed=0).batch(1)
    assert len(batch) == 7 and sorted(batch[2:5]) == [0, 1, 2]


def test_weights_decide_how_often_an_item_is_drawn():
    sampler = EpochSampler(3, batch_size=1000, seed=0, weights=[1, 0, 3])
    counts = np.bincount(sampler.batch(4), minlength=3)
    assert counts[1] == 0 and 680 < counts[2] < 820
    assert np.array_equal(EpochSampler(3, batch_size=1000, seed=0, weights=[1, 0, 3]).batch(4), sampler.batch(4))
    for weights in ([1, 2], [1, -1, 1], [0, 0, 0], [1, np.nan, 1]):
        with pytest.raises(UsageError, match="weights"):
            EpochSampler(3, batch_size=1, seed=0, weights=weights)
    with pytest.raises(UsageError, match="at least 1"):
        EpochSampler(0, batch_size=1, seed=0)


def test_the_shared_photographs_open(tmp_path):
    if not PHOTOS.is_dir():
        pytest.skip("the photographs of ../shared/data are not here")
    frames = open_frames(str(PHOTOS), image_size=16, cache_root=tmp_path)
    assert len(frames) >= 100 and frames.read(np.arange(64)).std() > 20
