"""Videos, WebDataset shards and drawn pictures as pre-training frames, decoded once or not at all."""

import io
import logging
import pickle
from fractions import Fraction

import av
import numpy as np
import pytest
import webdataset
from PIL import Image

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.video_times import packet_times
from embodied.datasets.loading import atoms_part, shard_part, video_part
from embodied.datasets.loading.frames import Atoms, open_frames
from embodied.datasets.loading.visual_atoms import render_atoms


@pytest.fixture
def opened(tmp_path):
    def open_them(*sources, **options):
        return open_frames([*sources], image_size=16, cache_root=tmp_path / "cache", **options)

    return open_them


def film(path, grays, *, fps=10, size=(64, 48), codec="mpeg4"):
    """A video with one frame per gray value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 8_000_000
        for gray in grays:
            pixels = np.full((size[1], size[0], 3), gray, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def grays(frames, indices=None):
    """The brightness of frames."""
    return frames.read(np.arange(len(frames)) if indices is None else indices)[:, 4, 4, 0].astype(int)


def close(found, expected):
    return len(found) == len(expected) and np.abs(np.asarray(found) - expected).max() <= 6


TAKES = {"a/take2.mp4": [10, 60, 110, 160], "a/take10.mkv": [200, 220], "b/take1.mp4": [30, 90, 150]}


@pytest.fixture
def films(tmp_path):
    for name, values in TAKES.items():
        film(tmp_path / "films" / name, values, size=(48, 64) if name.endswith("mkv") else (64, 48))
    return tmp_path / "films"


ALL_TAKES = [gray for values in TAKES.values() for gray in values]


def test_every_frame_of_every_video_in_natural_order(films, opened):
    frames = opened(films)
    assert close(grays(frames), ALL_TAKES)
    assert frames.read(np.arange(9)).shape == (9, 16, 16, 3)
    relations = frames.relations()
    assert relations.episodes.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert relations.steps.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert frames.class_names == ("a", "b")
    assert frames.labels().tolist() == [0] * 6 + [1] * 3
    (described,) = frames.describe()
    assert (described["kind"], described["name"], described["frames"]) == ("videos", "films", 9)


def test_one_video_is_a_source(films, opened):
    frames = opened(films / "b" / "take1.mp4")
    assert close(grays(frames), TAKES["b/take1.mp4"])


def test_frames_per_second(tmp_path, opened):
    film(tmp_path / "films" / "slow.mp4", [10, 40, 70, 100, 130], fps=10)
    film(tmp_path / "films" / "tenth.mp4", [200], fps=10)
    frames = opened(tmp_path / "films", video_fps=5)
    assert close(grays(frames), [10, 70, 130, 200])
    assert frames.relations().steps.tolist() == [0, 1, 2, 0]
    with pytest.raises(UsageError, match="video_fps must be a positive number, got 0"):
        opened(tmp_path / "films", video_fps=0.0)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])  # the first reorders its packets
def test_times_of_packets_are_those_of_frames(tmp_path, codec):
    path = film(tmp_path / "film.mp4", range(0, 200, 10), fps=10, codec=codec)
    np.testing.assert_allclose(packet_times(path), np.arange(20) / 10, atol=1e-3)
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no\.mp4 cannot be read as a video"):
        packet_times(tmp_path / "no.mp4")


def test_videos_are_decoded_once_and_go_on_where_it_was_stopped(films, opened, monkeypatch):
    monkeypatch.setattr(video_part, "BLOCK", 2)
    read, calls = video_part._FilmReader.read, []

    def stop_at_the_third(self, first, last):
        calls.append((first, last))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, first, last)

    monkeypatch.setattr(video_part._FilmReader, "read", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        opened(films)
    assert close(grays(opened(films)), ALL_TAKES)
    assert calls == [(0, 2), (2, 4), (4, 6), (4, 6), (6, 8), (8, 9)]
    fingerprint = opened(films).fingerprint()
    assert len(calls) == 6
    film(films / "b" / "take1.mp4", [31, 90, 150])
    assert opened(films).fingerprint() != fingerprint


def test_going_on_in_the_middle_of_a_video(films, opened, monkeypatch):
    monkeypatch.setattr(video_part, "BLOCK", 3)  # ends within the first
    first = opened(films).fingerprint()
    reader = video_part._FilmReader([video_part.Film(films / "a" / "take2.mp4", 4)], 16, None, skip=False)
    late = reader.read(3, 4)
    reader.close()
    assert abs(int(late["frames"][0, 0, 0, 0]) - 160) <= 6
    assert late["valid"].tolist() == [1]
    assert opened(films).fingerprint() == first


def test_damaged_videos_are_named_or_left_out(films, opened, caplog):
    whole = film(films / "b" / "take3.mp4", [int(value) for value in range(0, 250)], codec="libx264")
    data = bytearray(whole.read_bytes())
    (films / "b" / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be read as a video"):
        opened(films)
    with caplog.at_level(logging.WARNING):
        frames = opened(films, on_error="skip")
    assert "left out 1 of 5 videos" in caplog.text and "broken.mp4" in caplog.text
    assert len(frames) == 9 + 250
    (films / "b" / "broken.mp4").unlink()
    middle = data.index(b"mdat") + 2000
    data[middle : middle + 400] = bytes(400)
    whole.write_bytes(data)
    with pytest.raises(UserError, match=r"take3\.mp4"):
        opened(films)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        frames = opened(films, on_error="skip")
    assert "after damage in 1 of 4 videos" in caplog.text
    assert 9 <= len(frames) < 9 + 250
    assert frames.describe()[0]["skipped"] == 259 - len(frames)
    relations = frames.relations()  # frames that are left are counted without a gap
    assert (np.bincount(relations.episodes) == [4, 2, 3, len(frames) - 9][: relations.episodes.max() + 1]).all()
    assert close(grays(frames, np.arange(9)), ALL_TAKES)
    with pytest.raises(UserError, match=r"take3\.mp4"):
        opened(films)


def test_a_folder_of_images_stays_one_and_says_what_it_leaves_out(films, opened, caplog):
    Image.new("RGB", (20, 20), (7, 7, 7)).save(films / "a" / "poster.png")
    with caplog.at_level(logging.WARNING):
        frames = opened(films)
    assert len(frames) == 1
    assert "left out 3 videos" in caplog.text
    with webdataset.TarWriter(str(films / "archive.tar")) as writer:  # it often lies beside what was in it
        writer.write({"__key__": "1", "png": encode(9)})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert grays(opened(films)).tolist() == [7]
    assert "left out 1 shards" in caplog.text and "left out 3 videos" in caplog.text
    (films / "a" / "poster.png").unlink()
    assert close(grays(opened(films)), [9])


def encode(gray, *, format="PNG", size=(24, 20), mode="RGB"):
    handle = io.BytesIO()
    Image.new(mode, size, gray if mode != "RGB" else (gray,) * 3).save(handle, format)
    return handle.getvalue()


def write_shards(folder, samples, *, per_shard=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(samples), per_shard)):
        with webdataset.TarWriter(str(folder / f"train-{number:06d}.tar")) as writer:
            for sample in samples[start : start + per_shard]:
                writer.write(sample)
    return folder


def test_shards_give_images_of_any_format_and_the_classes_of_their_numbers(tmp_path, opened):
    formats = ("PNG", "JPEG", "WEBP")
    samples = [
        {"__key__": f"{index:04d}", formats[index % 3].lower(): encode(20 * index, format=formats[index % 3])}
        | {"cls": str(9 + index % 3)}
        for index in range(10)
    ]
    folder = write_shards(tmp_path / "shards", samples)
    frames = opened(folder)
    assert close(grays(frames), [20 * index for index in range(10)])
    assert frames.class_names == ("09", "10", "11")
    assert frames.labels().tolist() == [index % 3 for index in range(10)]
    pattern = opened(str(folder / "train-{000000..000001}.tar"))
    assert len(pattern) == 8
    assert frames.relations().steps.max() == 0  # every image by itself
    assert [row["kind"] for row in frames.describe()] == ["shards"]
    assert len(pickle.dumps(frames)) < 3000


def test_folders_in_keys_are_classes_where_there_are_no_numbers(tmp_path, opened):
    samples = [{"__key__": f"{name}/{name}_1", "png": encode(50)} for name in ("crab", "ant", "bee")]
    frames = opened(write_shards(tmp_path / "shards", samples))
    assert frames.class_names == ("ant", "bee", "crab")
    assert frames.labels().tolist() == [2, 0, 1]


def test_several_cameras_of_a_sample_see_the_same_moment(tmp_path, opened, caplog):
    samples = [
        {"__key__": f"{index}", "wrist.png": encode(10 * index), "front.jpg": encode(10 * index + 100, format="JPEG")}
        for index in range(4)
    ]
    samples.append({"__key__": "9", "front.jpg": encode(7, format="JPEG")})
    with caplog.at_level(logging.WARNING):
        frames = opened(write_shards(tmp_path / "shards", samples))
    assert "left out 1 of 5 samples without images (front.jpg, wrist.jpg)" in caplog.text
    assert [row["name"] for row in frames.describe()] == ["shards/front", "shards/wrist"]
    assert close(grays(frames), [100, 110, 120, 130, 0, 10, 20, 30])
    relations = frames.relations()
    assert relations.episodes.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert relations.cameras.tolist() == [0] * 4 + [1] * 4


def test_bad_images_in_shards_are_named_or_skipped(tmp_path, opened, caplog):
    samples = [
        {"__key__": f"{index}", "a.png": encode(10 * index), "b.png": encode(200), "cls": str(index)}
        for index in range(6)
    ]
    samples[2]["b.png"] = b"no picture"
    samples[4]["a.png"] = encode(1000, mode="I;16")
    folder = write_shards(tmp_path / "shards", samples)
    with pytest.raises(UserError, match=r"2 of .*train-000000\.tar cannot be read as an image"):
        opened(folder)
    with caplog.at_level(logging.WARNING):
        frames = opened(folder, on_error="skip")
    assert "skipped 2 of 6 samples" in caplog.text
    assert close(grays(frames), [0, 10, 30, 50, 200, 200, 200, 200])  # of the second camera too
    assert frames.labels().tolist() == [0, 1, 3, 5] * 2
    with pytest.raises(UserError, match="cannot be read as an image"):
        opened(folder)


def test_shards_without_images_and_wrong_classes_say_so(tmp_path, opened):
    empty = write_shards(tmp_path / "empty", [{"__key__": "1", "txt": "no image"}])
    with pytest.raises(UserError, match=r"hold no images such as 0001\.jpg"):
        opened(empty)
    wrong = write_shards(tmp_path / "wrong", [{"__key__": "1", "png": encode(3), "cls": "cat"}])
    with pytest.raises(UserError, match=r"1\.cls of .* holds b'cat', which is no whole number"):
        opened(wrong)


def test_shards_are_decoded_once(tmp_path, opened, monkeypatch):
    folder = write_shards(tmp_path / "shards", [{"__key__": f"{index}", "png": encode(index)} for index in range(3)])
    first = opened(folder)

    def refuse(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(shard_part, "decode_image", refuse)
    again = opened(folder)
    assert again.fingerprint() == first.fingerprint()
    assert np.array_equal(again.read(np.arange(3)), first.read(np.arange(3)))


def test_drawn_pictures_are_labelled_mixed_and_not_kept(tmp_path, films, opened):
    atoms = Atoms(classes=3, frames=30, seed=5)
    frames = opened("visual_atoms", films, atoms=atoms, weights=[2, 1])
    assert len(frames) == 39
    drawn = np.array([4, 29, 0])
    assert np.array_equal(frames.read(drawn), render_atoms(drawn, size=16, classes=3, seed=5))
    assert frames.class_names == ("a", "atom_0", "atom_1", "atom_2", "b")
    assert frames.labels(np.array([0, 1, 4, 30, 38])).tolist() == [1, 2, 2, 0, 4]
    chosen = frames.sampler(batch_size=300, seed=0).batch(0)
    assert 0.55 < (chosen < 30).mean() < 0.78
    assert opened("visual_atoms", atoms=Atoms(frames=2000)).class_names[::999] == ("atom_000", "atom_999")
    assert not any("atoms" in path.name for path in (tmp_path / "cache").rglob("*"))
    other = opened("visual_atoms", atoms=Atoms(classes=3, frames=30, seed=6)).fingerprint()
    assert opened("visual_atoms", atoms=atoms).fingerprint() != other
    for wrong in ({"classes": 0}, {"classes": 5, "frames": 4}, {"workers": -1}):
        with pytest.raises(UsageError, match=r"visual_atoms needs at least one class|workers must not be negative"):
            Atoms(**wrong)


def test_several_processes_draw_the_same_pictures(opened):
    alone, together = (opened("visual_atoms", atoms=Atoms(classes=3, frames=30, workers=count)) for count in (0, 2))
    assert together.fingerprint() == alone.fingerprint()
    drawn = np.array([4, 29, 0, 3, 8])
    try:
        for indices in (drawn, drawn[:1]):
            assert np.array_equal(together.read(indices), alone.read(indices))
    finally:
        atoms_part._drawers(2).shutdown()
        atoms_part._drawers.cache_clear()
