"""Folders of pictures become episodes: in natural order, upright, of one size, with every bit of depth."""

import io
import logging
import os
import sys

import numpy as np
import pytest
from PIL import Image

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.encoded_images import decode_npy
from embodied.datasets.importers.images import FORMAT, open_source
from embodied.datasets.importers.media_folders import natural_order
from embodied.datasets.store.episode_index import KeySpec

KEY = "observation.images.camera"


def save(path, value, size=(6, 4), **options):
    """A picture of one gray value; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path, **options)


def read(episode):
    blocks = list(episode.blocks())
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


@pytest.fixture
def folder(tmp_path):
    """Two sequences of PNGs, of 3 and 2 frames."""
    root = tmp_path / "photos"
    for name, values in (("walk_2", {1: 10, 2: 20, 10: 100}), ("walk_10", {8: 80, 9: 90})):
        for number, value in values.items():
            save(root / name / f"frame{number}.png", value)
    (root / "README.txt").write_text("not a picture")
    (root / ".hidden").mkdir()
    save(root / ".hidden" / "x.png", 1)
    return root


def test_every_folder_is_an_episode_in_natural_order(folder):
    source = open_source(folder)
    assert (len(source), source.fps) == (2, 1.0)
    assert source.keys == {KEY: KeySpec("uint8", (4, 6, 3))}
    first, second = source.episodes()
    assert (first.origin, first.length, first.task) == ("walk_2", 3, "")
    assert (second.origin, second.length) == ("walk_10", 2)
    assert read(first)[KEY].shape == (3, 4, 6, 3)
    assert read(first)[KEY][:, 0, 0, 0].tolist() == [10, 20, 100]
    assert read(second)[KEY][:, 0, 0, 0].tolist() == [80, 90]
    source.close()


def test_every_picture_can_be_an_episode(folder):
    episodes = list(open_source(folder, sequences=False, task="folder", camera="front", fps=5).episodes())
    assert [e.origin for e in episodes][:3] == ["walk_2/frame1.png", "walk_2/frame2.png", "walk_2/frame10.png"]
    assert {e.length for e in episodes} == {1} and [e.task for e in episodes][2:4] == ["walk 2", "walk 10"]
    assert read(episodes[4])["observation.images.front"][:, 0, 0, 0].tolist() == [90]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")
def test_names_that_are_no_utf8_can_be_written_down(tmp_path):
    save(tmp_path / os.fsdecode(b"caf\xe9_1") / "0.png", 3)
    (episode,) = open_source(tmp_path, task="folder").episodes()
    assert (episode.origin, episode.task) == ("caf?_1", "caf? 1")


def test_names_sort_as_people_count():
    names = ["b1", "a10", "a9", "A2", "a"]
    assert sorted(names, key=natural_order) == ["a", "A2", "a9", "a10", "b1"]


def test_blocks_are_small(folder, monkeypatch):
    monkeypatch.setattr("embodied.datasets.importers.images.BLOCK_BYTES", 2 * 4 * 6 * 3)
    first, _ = open_source(folder).episodes()
    assert [len(block[KEY]) for block in first.blocks()] == [2, 1]


def test_jpegs_stay_jpegs_and_a_mixture_is_lossless(tmp_path):
    save(tmp_path / "a.jpg", 30)
    assert open_source(tmp_path).keys[KEY].codec == "jpeg"
    save(tmp_path / "b.webp", 30)
    assert open_source(tmp_path).keys[KEY].codec == "zstd"


def test_gray_palette_and_transparent_pictures_become_colour(tmp_path):
    Image.new("L", (2, 2), 7).save(tmp_path / "a.png")
    Image.new("RGBA", (2, 2), (1, 2, 3, 0)).save(tmp_path / "b.png")
    Image.new("P", (2, 2), 0).save(tmp_path / "c.png")
    (episode,) = open_source(tmp_path).episodes()
    assert read(episode)[KEY][:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3], [0, 0, 0]]


def test_pictures_are_turned_upright(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = {1: pixels, 3: pixels[::-1, ::-1], 6: np.rot90(pixels, 1), 8: np.rot90(pixels, -1)}.get(orientation)
        if turned is not None:
            Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"{orientation}.png", exif=exif)
    (episode,) = open_source(tmp_path).episodes()
    frames = read(episode)[KEY]
    assert len(frames) == 4 and (frames == pixels).all()


def test_sizes_must_agree_or_are_brought_to_one(folder):
    save(folder / "walk_2" / "frame3.png", 30, size=(8, 8))
    first, second = open_source(folder).episodes()
    with pytest.raises(
        UserError,
        match=r"frame3\.png is uint8 \[1, 8, 8, 3\], and .*frame1\.png is .*\[1, 4, 6, 3\]; options\.size=<pixels>",
    ):
        list(first.blocks())
    assert len(read(second)[KEY]) == 2
    source = open_source(folder, size=3)
    first, _ = source.episodes()
    assert source.keys[KEY].shape == (3, 3, 3)
    assert read(first)[KEY][:, 1, 1, 0].tolist() == [10, 20, 30, 100]


def test_depth_keeps_every_bit(tmp_path):
    depth = np.random.default_rng(0).integers(0, 2**16, (4, 3, 5), dtype=np.uint16)
    Image.fromarray(depth[0]).save(tmp_path / "0.png")
    Image.fromarray(depth[1]).save(tmp_path / "1.tiff")
    np.save(tmp_path / "2.npy", depth[2])
    np.save(tmp_path / "3.npy", np.asfortranarray(depth[3].astype(">u2")))
    source = open_source(tmp_path, camera="wrist")
    assert source.keys == {"observation.depth.wrist": KeySpec("uint16", (3, 5))}
    (episode,) = source.episodes()
    assert np.array_equal(read(episode)["observation.depth.wrist"], depth)
    with pytest.raises(UsageError, match=r"options\.size would change the bits"):
        open_source(tmp_path, size=2)


def test_floats_and_deep_colours_keep_every_bit(tmp_path):
    metres = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    Image.fromarray(metres).save(tmp_path / "0.tif")
    (episode,) = open_source(tmp_path).episodes()
    assert np.array_equal(read(episode)["observation.depth.camera"][0], metres)
    mosaic = np.random.default_rng(1).integers(0, 2**14, (3, 5, 4), dtype=np.uint16)
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "0.npy", mosaic)
    (episode,) = open_source(raw).episodes()
    assert np.array_equal(read(episode)["observation.raw.camera"][0], mosaic)


@pytest.mark.parametrize("codec", ["png", "tiff"])
def test_sixteen_bit_colours_are_not_cut_to_eight(tmp_path, codec):
    import av

    colours = np.random.default_rng(0).integers(0, 2**16, (4, 6, 3), dtype=np.uint16)
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 6, 4, "rgb48be" if codec == "png" else "rgb48le"
    frame = av.VideoFrame.from_ndarray(colours, format="rgb48le").reformat(format=encoder.pix_fmt)
    encoder.framerate = 1
    (tmp_path / f"a.{codec}").write_bytes(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))
    (episode,) = open_source(tmp_path).episodes()
    found = read(episode)["observation.raw.camera"]
    assert found.dtype == np.uint16 and np.array_equal(found[0], colours)


def test_depth_and_colour_do_not_mix(folder):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(folder / "walk_2" / "frame4.png")
    first, _ = open_source(folder).episodes()
    with pytest.raises(UserError, match=r"frame4\.png belongs to observation\.depth\.\*.*put them into two folders"):
        list(first.blocks())


def test_damaged_pictures_are_said_or_left_out(folder, caplog):
    (folder / "walk_2" / "frame2.png").write_bytes((folder / "walk_2" / "frame1.png").read_bytes()[:-30])
    first, _ = open_source(folder).episodes()
    with pytest.raises(UserError, match=r"frame2\.png cannot be read as an image"):
        list(first.blocks())
    first, _ = open_source(folder, on_error="skip").episodes()
    with caplog.at_level(logging.WARNING):
        assert read(first)[KEY][:, 0, 0, 0].tolist() == [10, 100]
    assert first.length is None and "left out 1 of 3 pictures" in caplog.text


def test_a_damaged_first_picture_does_not_hide_the_others(folder):
    (folder / "walk_2" / "frame1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"frame1\.png cannot be read"):
        open_source(folder)
    first, _ = open_source(folder, on_error="skip").episodes()
    assert read(first)[KEY][:, 0, 0, 0].tolist() == [20, 100]
    for path in folder.rglob("*.png"):
        path.write_bytes(b"\x89PNG\r\n\x1a\nnoise")
    with pytest.raises(UserError, match="none of the 5 pictures"):
        open_source(folder, on_error="skip")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{"a": 1}], dtype=object), "pickled objects, not numbers"),
        (np.array(["text"]), "not numbers"),
        (np.zeros(2, [("a", "f4")]), "not numbers"),
    ],
)
def test_npy_files_with_more_than_numbers_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


def test_npy_headers_that_lie_or_are_noise_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 5), np.uint16))
    whole = (tmp_path / "a.npy").read_bytes()
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<u2", "fortran_order": False, "shape": (3 * 10**10, 5)})
    with pytest.raises(UserError, match=r"its size is not that of uint16 \[30000000000, 5\]"):
        decode_npy(claim.getvalue() + bytes(30), where="a.npy")
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: generator.integers(1, len(whole))])
        data[generator.integers(len(data))] = generator.integers(256)
        try:
            decode_npy(bytes(data), where="a.npy")
        except UserError:
            refused += 1
    assert refused > 290


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff", "ppm"])
def test_noise_in_pictures_never_crashes(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    outcomes = set()
    for attempt in range(150):
        data = bytearray(whole)
        for position in generator.integers(0, min(len(data), 200), 3):
            data[position] = generator.integers(256)
        path.write_bytes(data[: generator.integers(1, len(data))] if attempt % 3 == 0 else data)
        try:
            (episode,) = open_source(tmp_path).episodes()
            outcomes.add(len(read(episode)))
        except UserError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_folders_are_recognised_by_what_they_hold(folder, tmp_path):
    assert FORMAT.recognizes(folder)
    assert not FORMAT.recognizes(tmp_path / "absent")
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text("{}")
    assert not FORMAT.recognizes(folder)
    (folder / "meta" / "info.json").unlink()
    (folder / "film.mp4").touch()
    assert not FORMAT.recognizes(folder)


def test_options_and_paths_are_checked(folder, tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        open_source(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no .*png"):
        open_source(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"options\.size must be at least 1 pixel, got 0"):
        open_source(folder, size=0)
    with pytest.raises(UsageError, match="fps must be positive"):
        open_source(folder, fps=float("nan"))
    with pytest.raises(UsageError, match="unknown on_error 'skipp': did you mean skip"):
        open_source(folder, on_error="skipp")
    with pytest.raises(UsageError, match="unknown task 'folders': did you mean folder"):
        open_source(folder, task="folders")
