"""Frames come out with the right content and time, wherever reading begins; broken files say so."""

import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.video_files import VideoFile
from embodied.datasets.files.video_writer import VideoWriter

HEIGHT, WIDTH, FRAMES = 32, 48, 40


def picture(index):
    """A gray slope and, in the left half, a brightness that tells the frame's number."""
    image = np.repeat(np.linspace(60, 200, WIDTH)[None, :, None], HEIGHT, axis=0)
    image = np.repeat(image, 3, axis=2).astype(np.uint8)
    image[:, : WIDTH // 2] = 20 + 5 * index
    return image


def numbers(frames):
    """What `picture` was given."""
    return np.rint((frames[:, :, : WIDTH // 4].mean(axis=(1, 2, 3)) - 20) / 5).astype(int).tolist()


PICTURES = np.stack([picture(index) for index in range(FRAMES)])


def write(path, *, fps=10, codec="libx264", options=None, pictures=PICTURES):
    """A video by FFmpeg's own encoder with any options, such as reordered frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 8_000_000  # its default blurs what tells frames apart
        for pixels in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


REORDERED = {"bf": "3", "g": "12", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}


@pytest.fixture(params=["mpeg4", "reordered", "one key frame", "mkv"])
def video(request, tmp_path):
    codec = "mpeg4" if request.param == "mpeg4" else "libx264"
    options = {"one key frame": {"g": "1000", "bf": "0"}, "mpeg4": {"g": "12"}}.get(request.param, REORDERED)
    suffix = ".mkv" if request.param == "mkv" else ".mp4"
    with VideoFile(write(tmp_path / f"video{suffix}", codec=codec, options=options)) as opened:
        yield opened


def test_blocks_give_every_frame_and_its_time_once(video):
    blocks = list(video.blocks(block_bytes=7 * HEIGHT * WIDTH * 3))
    assert [len(frames) for _, frames in blocks] == [7, 7, 7, 7, 7, 5]
    assert numbers(np.concatenate([frames for _, frames in blocks])) == list(range(FRAMES))
    assert np.allclose(np.concatenate([times for times, _ in blocks]), np.arange(FRAMES) / 10, atol=1e-3)
    frames = blocks[0][1]
    assert frames.dtype == np.uint8 and frames.shape == (7, HEIGHT, WIDTH, 3)
    assert np.abs(frames.astype(int) - PICTURES[:7]).mean() < 4
    assert (video.height, video.width, video.fps) == (HEIGHT, WIDTH, 10.0)


def test_a_range_of_time(video):
    assert [numbers(frames) for _, frames in video.blocks(start_s=1.15, stop_s=1.55)] == [[12, 13, 14, 15]]
    assert [numbers(frames) for _, frames in video.blocks(start_s=0.0, stop_s=0.15)] == [[0, 1]]
    assert list(video.blocks(start_s=0.11, stop_s=0.12)) == []


def test_any_order_of_places_gives_the_same_frames(video):
    straight = np.concatenate([frames for _, frames in video.blocks()])
    rng = np.random.default_rng(0)
    for first in rng.permutation(FRAMES - 3)[:15]:
        times = np.arange(first, first + 3) / 10
        assert np.array_equal(video.at(times, tolerance_s=1e-3), straight[first : first + 3])
    again = video.at(np.array([0.3, 0.3, 0.4]), tolerance_s=1e-3)
    assert np.array_equal(again, straight[[3, 3, 4]])


def test_a_long_video_is_entered_far_ahead(tmp_path):
    write(tmp_path / "slow.mp4", fps=1, options=REORDERED)
    with VideoFile(tmp_path / "slow.mp4") as video:
        assert numbers(video.at(np.array([35.0, 36.0]))) == [35, 36]
        assert numbers(video.at(np.array([11.0]))) == [11]


def test_times_without_a_frame_are_refused(video):
    with pytest.raises(UserError, match=r"no frame within 0.0002 s of 0.2500 s, the nearest is at 0.2000 s"):
        video.at(np.array([0.25]), tolerance_s=2e-4)
    assert numbers(video.at(np.array([0.26]), tolerance_s=0.05)) == [3]  # the nearest, not the first in reach
    with pytest.raises(UserError, match=r"no frame at 4.0000 s: the file ends with the frame at 3.9000 s"):
        video.at(np.array([3.9, 4.0]), tolerance_s=1e-3)


def cut_between_frames(path):
    """The whole index, and the frames up to a boundary between two of them."""
    moved = path.with_name("moved.mp4")
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(moved)) as opened:
        end = opened.streams.video[0].index_entries[FRAMES // 2].pos
    return moved.read_bytes()[:end]


def test_damage_is_found(tmp_path):
    path = write(tmp_path / "video.mp4", options={"g": "1000", "bf": "0"})
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[1500:1520] = bytes(20)
    for name, content in {
        "empty": b"",
        "text": b"no video at all",
        "cut": data[: len(data) // 2],
        "boundary": cut_between_frames(path),
        "flipped": bytes(flipped),
    }.items():
        broken = tmp_path / f"{name}.mp4"
        broken.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.mp4") as error, VideoFile(broken) as video:
            list(video.blocks())
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no video at .*absent.mp4: check the path"):
        VideoFile(tmp_path / "absent.mp4")


def test_only_the_file_itself_is_opened(tmp_path):
    """A playlist in disguise would make FFmpeg open what it names."""
    write(tmp_path / "secret.mp4")
    playlist = tmp_path / "list.mp4"
    for text in (f"ffconcat version 1.0\nfile {tmp_path / 'secret.mp4'}\n", "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n"):
        playlist.write_text(text)
        with pytest.raises(UserError, match=r"list.mp4 cannot be read as a video"):
            VideoFile(playlist)
    odd = Path(shutil.copy(tmp_path / "secret.mp4", tmp_path / "concat:a|b.mp4"))
    with VideoFile(odd) as video:
        assert video.frames == FRAMES


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(UserError, match=r"sound.mp4 holds no video"):
        VideoFile(path)


def test_a_frame_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.files.video_files.MOST_PIXELS", 1000)
    with pytest.raises(UserError, match="a frame size of 48 x 32 cannot be right"):
        VideoFile(write(tmp_path / "video.mp4"))


def test_depth_keeps_its_codes(tmp_path):
    codes = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 2
    path = tmp_path / "depth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray12le"
        for shift in range(3):
            frame = av.VideoFrame.from_ndarray(codes + shift, format="gray12le")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    with VideoFile(path, depth=True) as video:
        frames = video.at(np.arange(3) / 10, tolerance_s=1e-3)
    assert frames.dtype == np.uint16
    assert np.array_equal(frames, codes + np.arange(3, dtype=np.uint16)[:, None, None])
    with (
        VideoFile(write(tmp_path / "colour.mp4"), depth=True) as video,
        pytest.raises(UserError, match="no 16-bit depth"),
    ):
        video.at(np.zeros(1))


def turn_right(path):
    """Say in the file's track header that frames are to be shown a quarter turn to the right."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    values = (0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)


def test_a_telephones_frames_are_turned_upright_if_asked(tmp_path):
    path = write(tmp_path / "v.mp4", pictures=PICTURES[:2])
    turn_right(path)
    with VideoFile(path) as lying, VideoFile(path, upright=True) as upright:
        assert (lying.height, lying.width) == (HEIGHT, WIDTH) == (upright.width, upright.height)
        frames = upright.at(np.zeros(1))
        assert frames.shape == (1, WIDTH, HEIGHT, 3)
        assert np.array_equal(frames[0], np.rot90(lying.at(np.zeros(1))[0], -1))
        assert sum(len(block) for _, block in upright.blocks()) == 2


@pytest.mark.parametrize("fps", [10, 12.5, 29.97])
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_what_is_written_comes_back_at_its_time(tmp_path, codec, fps):
    writer = VideoWriter(tmp_path / "v.mp4", height=HEIGHT, width=WIDTH, fps=fps, codec=codec)
    for start in range(0, FRAMES, 9):
        writer.write(PICTURES[start : start + 9])
    writer.close()
    with VideoFile(tmp_path / "v.mp4") as video:
        frames = video.at(np.arange(FRAMES) / fps)
        assert video.frames == FRAMES
    assert numbers(frames) == list(range(FRAMES))
    assert np.abs(frames.astype(int) - PICTURES).mean() < 3


def test_odd_sizes_are_written(tmp_path):
    pictures = PICTURES[:3, :31, :47]
    writer = VideoWriter(tmp_path / "v.mp4", height=31, width=47, fps=10)
    writer.write(pictures)
    writer.close()
    with VideoFile(tmp_path / "v.mp4") as video:
        frames = video.at(np.arange(3) / 10)
    assert frames.shape == pictures.shape and np.abs(frames.astype(int) - pictures).mean() < 4


def test_wrong_options_of_the_writer(tmp_path):
    for options, message in {
        ("codec", "h264"): "unknown vcodec 'h264'",
        ("crf", 52): r"crf must be in \[0, 51\] for libx264, got 52",
        ("gop", 0): "gop must be at least 1, got 0",
    }.items():
        with pytest.raises(UsageError, match=message):
            VideoWriter(tmp_path / "v.mp4", height=HEIGHT, width=WIDTH, fps=10, **dict([options]))
