"""Every video of a folder becomes an episode, at one rate and one size, whatever container it comes in."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.datasets.importers.resampling import evenly_timed
from embodied.datasets.importers.videos import FORMAT, open_source
from embodied.datasets.store.episode_index import KeySpec

KEY = "observation.images.camera"
SUFFIXES = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4", ".mov": "mpeg4"}


def film(path, grays, *, fps=10, size=(64, 48), codec="mpeg4", times=None):
    """A video with one frame per gray value; `times` in frames (even by default)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index, gray in enumerate(grays):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), gray, np.uint8), format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grays(episode, key=KEY):
    """The gray value of every frame, and the frames."""
    frames = np.concatenate([block[key] for block in episode.blocks()])
    return frames[:, 4, 4, 0].astype(int), frames


def close(found, expected):
    return len(found) == len(expected) and np.abs(np.asarray(found) - expected).max() <= 6


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "films"
    film(root / "take10.mp4", [200, 210, 220])
    film(root / "take9.mp4", [10, 60, 110, 160])
    film(root / "more" / "pour_water.mp4", [50])
    return root


def test_every_file_is_an_episode_in_natural_order(folder):
    source = open_source(folder)
    assert (len(source), source.fps) == (3, 10.0)
    assert source.keys == {KEY: KeySpec("uint8", (48, 64, 3), codec="jpeg")}
    episodes = list(source.episodes())
    assert [e.origin for e in episodes] == ["take9.mp4", "take10.mp4", "more/pour_water.mp4"]
    assert close(grays(episodes[0])[0], [10, 60, 110, 160])
    assert close(grays(episodes[1])[0], [200, 210, 220])
    assert close(grays(episodes[2])[0], [50])
    source.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_containers_are_read(tmp_path, suffix):
    film(tmp_path / f"a{suffix}", [30, 90, 150, 210], codec=SUFFIXES[suffix])
    source = open_source(tmp_path)
    (episode,) = source.episodes()
    found, frames = grays(episode)
    assert source.fps == 10 and frames.shape == (4, 48, 64, 3) and close(found, [30, 90, 150, 210])


def test_one_file_can_be_the_source_and_tasks_come_from_names(folder):
    (episode,) = open_source(folder / "more" / "pour_water.mp4", task="file", camera="top").episodes()
    assert (episode.origin, episode.task) == ("pour_water.mp4", "pour water")
    assert close(grays(episode, "observation.images.top")[0], [50])
    assert [e.task for e in open_source(folder, task="folder").episodes()] == ["films", "films", "more"]


def test_blocks_are_small(folder, monkeypatch):
    monkeypatch.setattr("embodied.datasets.importers.videos.BLOCK_BYTES", 2 * 48 * 64 * 3)
    first = next(open_source(folder).episodes())
    assert [len(block[KEY]) for block in first.blocks()] == [2, 2]


def test_rates_must_agree_or_are_resampled(folder):
    film(folder / "take1.mp4", [0, 40, 80, 120, 160, 200], fps=20)
    with pytest.raises(UsageError, match=r"take1\.mp4 has 20 frames per second, take9\.mp4 10; give fps="):
        open_source(folder)
    source = open_source(folder, fps=10)
    fast, even, *_ = source.episodes()
    assert source.fps == 10
    assert close(grays(fast)[0], [0, 80, 160])
    assert close(grays(even)[0], [10, 60, 110, 160])
    slow = next(open_source(folder / "take9.mp4", fps=20).episodes())
    assert close(grays(slow)[0], [10, 10, 60, 60, 110, 110, 160])


def test_sizes_must_agree_or_are_brought_to_one(folder):
    film(folder / "wide.mp4", [90, 90], size=(96, 48))
    with pytest.raises(
        UsageError, match=r"take9\.mp4 has 64 x 48 pixels and .*wide\.mp4 has 96 x 48.*give options\.size="
    ):
        open_source(folder)
    source = open_source(folder, size=24)
    wide = next(episode for episode in source.episodes() if episode.origin == "wide.mp4")
    found, frames = grays(wide)
    assert source.keys[KEY].shape == (24, 24, 3) and frames.shape == (2, 24, 24, 3) and close(found, [90, 90])


def test_an_uneven_clock_is_said_and_can_be_resampled(tmp_path, caplog):
    film(tmp_path / "a.mkv", [0, 50, 100, 150, 200], times=[0, 1, 2, 8, 9])
    source = open_source(tmp_path, fps=10)
    with caplog.at_level(logging.WARNING):
        found, _ = grays(next(source.episodes()))
    if len(found) == 5:  # the container still claims 10 frames per second: frames are taken as they are
        assert "has no even rate" in caplog.text
    found, _ = grays(next(open_source(tmp_path, fps=5).episodes()))
    assert close(found, [0, 100, 100, 150, 150])


def test_ticks_take_the_nearest_frame_across_blocks():
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.uniform(0.01, 0.3, 200)) + 5
    frames = np.arange(200)
    for fps in (3, 10, 37.5):
        cuts = np.sort(generator.choice(np.arange(1, 200), 7, replace=False))
        blocks = zip(np.split(times, cuts), np.split(frames, cuts), strict=True)
        found = np.concatenate(list(evenly_timed(blocks, fps, block_bytes=64, where="x")))
        ticks = times[0] + np.arange(int((times[-1] - times[0]) * fps) + 1) / fps
        assert np.array_equal(found, np.abs(times - ticks[:, None]).argmin(axis=1))


def test_a_time_far_off_does_not_repeat_a_frame_for_ever():
    blocks = [(np.array([0.0, 0.1, 1e9]), np.zeros((3, 2)))]
    with pytest.raises(UserError, match=r"film\.mp4 has no frame for 1000000000 s after 0\.1 s"):
        list(evenly_timed(blocks, 30, block_bytes=100, where="film.mp4"))


def test_broken_and_empty_videos_are_said_or_left_out(folder, caplog):
    (folder / "broken.mp4").write_bytes((folder / "take9.mp4").read_bytes()[:200])
    (folder / "empty.avi").touch()
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be read as a video"):
        open_source(folder)
    with caplog.at_level(logging.WARNING):
        source = open_source(folder, on_error="skip")
    assert len(source) == 3 and "left out 2 of 5 videos, the first:" in caplog.text
    for path in folder.rglob("*.mp4"):
        path.write_bytes(b"noise")
    with pytest.raises(UserError, match="none of 5 videos can be opened"):
        open_source(folder, on_error="skip")


def test_noise_in_a_video_never_crashes(tmp_path):
    path = film(tmp_path / "a.mp4", [30, 90, 150])
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for attempt in range(40):
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 8):
            data[position] = generator.integers(256)
        path.write_bytes(data[: generator.integers(1, len(data))] if attempt % 2 else data)
        try:
            for episode in open_source(tmp_path, fps=10).episodes():
                grays(episode)
        except UserError:
            refused += 1
    assert refused > 15


def test_folders_are_recognised_by_what_they_hold(folder, tmp_path):
    assert FORMAT.recognizes(folder) and FORMAT.recognizes(folder / "take9.mp4")
    assert not FORMAT.recognizes(tmp_path / "absent")
    (folder / "info.json").write_text("{}")
    assert not FORMAT.recognizes(folder)


def test_options_and_paths_are_checked(folder, tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        open_source(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"options\.size must be at least 1 pixel, got -3"):
        open_source(folder, size=-3)
    with pytest.raises(UsageError, match="fps must be positive, got 0"):
        open_source(folder, fps=0)
    with pytest.raises(UsageError, match="unknown on_error 'ignore'"):
        open_source(folder, on_error="ignore")
    with pytest.raises(UsageError, match="unknown task 'fil': did you mean file"):
        open_source(folder, task="fil")
