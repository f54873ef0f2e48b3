"""Frames of 4:2:0 video become JPEGs without a detour over RGB, with the colours that the video has."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.datasets.files.video_files import VideoFile
from embodied.datasets.files.video_frames import FULL_CHROMA, FULL_LUMA, VideoFrames
from embodied.datasets.formats import open_source
from embodied.datasets.importing import plan_import, run_import
from embodied.datasets.key_casting import ImageOptions
from embodied.datasets.key_proposal import propose
from embodied.datasets.store.chunk_codecs import decode_jpeg, encode_jpeg, in_threads
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.store.running_statistics import statistics_of

KEY = "observation.images.camera"
UNSAID, BT709, BT601 = 2, 1, 5
LIMITED, FULL = 1, 2
WEIGHTS = {UNSAID: (0.299, 0.114), BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}  # of red and blue in Y
# PyAV's own conversion is by default a quick one: a level too dark, colours repeated. With these flags it is exact.
ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
LENGTH = 40


def planes_of(rgb, *, matrix, full):
    """Y [H, W], Cb and Cr [ceil(H / 2), ceil(W / 2)] of RGB [H, W, 3], by the definition."""
    height, width = rgb.shape[:2]
    red_part, blue_part = WEIGHTS[matrix]
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = red_part * red + (1 - red_part - blue_part) * green + blue_part * blue
    colours = [(blue - luma) / (2 * (1 - blue_part)), (red - luma) / (2 * (1 - red_part))]
    even = [np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge") for plane in colours]
    halves = [(p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4 for p in even]
    scaled = [luma, *halves] if full else [luma * 219 / 255 + 16, *(half * 224 / 255 for half in halves)]
    scaled = [scaled[0], scaled[1] + 128, scaled[2] + 128]
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in scaled]


def film(path, pictures, *, matrix=UNSAID, full=False, pixels="yuv420p"):
    """A video without loss of these RGB pictures."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.color_range, stream.codec_context.colorspace = FULL if full else LIMITED, matrix
        for number, picture in enumerate(pictures):
            if pixels == "yuv420p":
                frame = av.VideoFrame(width, height, pixels)
                for plane, values in zip(frame.planes, planes_of(picture, matrix=matrix, full=full), strict=True):
                    padded = np.zeros((plane.height, plane.line_size), np.uint8)
                    padded[:, : values.shape[1]] = values
                    plane.update(padded.tobytes())
                frame.color_range, frame.colorspace = FULL if full else LIMITED, matrix
            else:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def flats(height=24, width=32):
    """One flat colour per picture: black, white, grays, and every saturated one."""
    corners = [[red, green, blue] for red in (0, 255) for green in (0, 255) for blue in (0, 255)]
    return [np.full((height, width, 3), colour, np.uint8) for colour in [*corners, [60, 60, 60], [200, 200, 200]]]


def blobs(height=120, width=160, count=4):
    """Saturated discs with edges a few pixels wide, as lenses draw them."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:height, :width]
    pictures = []
    for _ in range(count):
        picture = np.full((height, width, 3), 128.0)
        for _ in range(12):
            distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) - rng.uniform(10, 50)
            inside = 1 / (1 + np.exp(distance))[..., None]
            picture = picture * (1 - inside) + rng.choice([0, 255], 3) * inside
        pictures.append(np.rint(picture).astype(np.uint8))
    return pictures


def imported(path, to, *, images=None, **options):
    _, source = open_source(str(path), options=options)
    plan = plan_import(source, format="videos", path=str(path), mapping=propose(source.keys), images=images)
    return run_import(source, plan, to, reporter=SilentReporter()).store


def decoded(path, interpolation=None):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24", interpolation=interpolation) for frame in frames])


def over_rgb(frames):
    """What a store gives of frames that are compressed as RGB."""
    return np.stack([decode_jpeg(encode_jpeg(frame), frame.shape) for frame in frames])


def error(found, expected):
    """The largest and the mean difference."""
    apart = np.abs(found.astype(int) - expected)
    return apart.max(), apart.mean()


VIDEOS = [(matrix, full) for matrix in (UNSAID, BT601, BT709) for full in (False, True)]


@pytest.mark.parametrize(("matrix", "full"), VIDEOS)
def test_flat_colours_come_out_as_they_were(tmp_path, matrix, full):
    for size in ((24, 32), (23, 31)):
        path = film(tmp_path / f"{size}.mkv", pictures := flats(*size), matrix=matrix, full=full)
        store = imported(path, tmp_path / f"{size}")
        assert error(store.read(KEY, 0, len(pictures)), np.stack(pictures))[0] <= 3


@pytest.mark.parametrize("size", [(120, 160), (119, 160), (120, 157), (119, 157)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_nearer_to_the_truth_than_over_rgb(tmp_path, full, size):
    path = film(tmp_path / "v.mkv", pictures := blobs(*size), matrix=BT601, full=full)
    found = imported(path, tmp_path / "store").read(KEY, 0, len(pictures))
    quick, exact = decoded(path), decoded(path, ACCURATE)
    references = {"the pictures": np.stack(pictures), "PyAV, exact": exact, "PyAV, quick": quick}
    before = over_rgb(quick)
    for name, reference in references.items():
        numbers = (*error(found, reference), *error(before, reference))
        print("from {}: at most {}, mean {:.2f}; over RGB {}, {:.2f}".format(name, *numbers))
    # Of an odd size PyAV stretches the colours, so that they lie up to half a pixel off.
    for name in ["the pictures"] if size[0] % 2 or size[1] % 2 else ["the pictures", "PyAV, exact"]:
        (most, mean), (most_before, mean_before) = error(found, references[name]), error(before, references[name])
        assert most < most_before and mean < mean_before, name


def test_tables_are_the_definition_of_full_range():
    luma, chroma = np.frombuffer(FULL_LUMA, np.uint8), np.frombuffer(FULL_CHROMA, np.uint8)
    assert (luma[16], luma[235], chroma[128]) == (0, 255, 128)
    for value in range(256):
        assert abs(luma[value] - np.clip((value - 16) * 255 / 219, 0, 255)) <= 0.5
        assert abs(chroma[value] - np.clip(128 + (value - 128) * 255 / 224, 0, 255)) <= 0.5


def test_planes_are_those_of_the_video(tmp_path):
    pictures = blobs(31, 47)
    with VideoFile(film(tmp_path / "v.mkv", pictures, full=True)) as video:
        _, frames = next(video.frame_blocks())
    assert isinstance(frames, VideoFrames) and frames.shape == (len(pictures), 31, 47, 3)
    for number, picture in enumerate(pictures):
        for found, expected in zip(frames.planes(number), planes_of(picture, matrix=UNSAID, full=True), strict=True):
            assert np.array_equal(found, expected)


def test_as_an_array_frames_are_what_pyav_gives(tmp_path):
    path = film(tmp_path / "v.mkv", blobs())
    times = np.array([0.0, 0.1, 0.1, 0.3])
    with VideoFile(path) as video:
        planar, array = video.frames_at(times), video.at(times)
    assert isinstance(planar, VideoFrames) and np.array_equal(np.asarray(planar), array)
    assert np.array_equal(array, decoded(path)[[0, 1, 1, 3]])
    with pytest.raises(ValueError, match="a copy"):
        np.asarray(planar, copy=False)


@pytest.mark.parametrize("video", [{"matrix": BT709}, {"pixels": "yuv444p"}, {"pixels": "yuv420p10le"}])
def test_other_videos_go_over_rgb(tmp_path, video):
    path = film(tmp_path / "v.mkv", pictures := blobs(), **video)
    with VideoFile(path) as file:
        assert isinstance(file.frames_at(np.zeros(1)), np.ndarray)
    stored = imported(path, tmp_path / "store").read_encoded(KEY, 0, len(pictures))
    assert stored == [encode_jpeg(frame) for frame in decoded(path)]


def test_frames_that_are_changed_go_over_rgb(tmp_path):
    path = film(tmp_path / "v.mkv", pictures := blobs())
    small = imported(path, tmp_path / "small", size=48)
    assert small.keys[KEY].shape == (48, 48, 3)
    _, source = open_source(str(path), options={"size": 48})
    (block,) = next(source.episodes()).blocks()
    assert small.read_encoded(KEY, 0, len(pictures)) == [encode_jpeg(frame) for frame in block[KEY]]
    slow = imported(path, tmp_path / "slow", fps=5)
    assert slow.read_encoded(KEY, 0, 2) == [encode_jpeg(frame) for frame in decoded(path)[[0, 2]]]


def test_a_lossless_store_has_pyavs_rgb(tmp_path):
    path = film(tmp_path / "v.mkv", pictures := blobs())
    store = imported(path, tmp_path / "store", images=ImageOptions(codec="zstd"))
    assert np.array_equal(store.read(KEY, 0, len(pictures)), decoded(path))


def test_any_store_takes_planes(tmp_path):
    """By the writer as by an import; a key that keeps no JPEGs gets them as RGB."""
    with VideoFile(film(tmp_path / "v.mkv", pictures := blobs())) as video:
        _, frames = next(video.frame_blocks())
    keys = {"jpeg": KeySpec("uint8", pictures[0].shape, "jpeg"), "zstd": KeySpec("uint8", pictures[0].shape)}
    with EpisodeStore.create(tmp_path / "store", keys=keys, fps=10) as store:
        with store.writer(task="") as writer:
            writer.write({"jpeg": frames, "zstd": frames})
        with pytest.raises(UsageError, match=r'arrays\["jpeg"\]: expected uint8 \[T, 120, 160, 3\], got'):
            store.append({"jpeg": small_frames(tmp_path), "zstd": np.stack(pictures)}, task="")
    assert np.array_equal(store.read("zstd", 0, len(pictures)), np.asarray(frames))
    assert error(store.read("jpeg", 0, len(pictures)), np.stack(pictures))[1] < 2


def small_frames(folder):
    with VideoFile(film(folder / "small.mkv", blobs(24, 32))) as video:
        return video.frames_at(np.arange(4) / 10)


def test_statistics_are_those_of_the_stored_frames(tmp_path):
    path = film(tmp_path / "v.mkv", blobs(72, 96, LENGTH))
    store = imported(path, tmp_path / "store")
    spec = store.keys[KEY]
    again = statistics_of(KEY, spec, [LENGTH], lambda start, stop: store.read(KEY, start, stop))
    for name, expected in again.summary((3,)).items():
        assert np.array_equal(store.statistics(KEY)[name], expected), name


def test_any_number_of_processors_makes_the_same_store(tmp_path, monkeypatch):
    path = film(tmp_path / "v.mkv", blobs(71, 95, LENGTH))
    fingerprints = set()
    for count in (1, 2, 7):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, count=count: set(range(count)))
        fingerprints.add(imported(path, tmp_path / f"{count}").fingerprint())
    assert len(fingerprints) == 1


def test_threads_keep_the_order_and_give_the_first_error():
    for count in (0, 1, 2, 13, 1000):
        assert list(in_threads(lambda item: 3 * item, range(count))) == [3 * item for item in range(count)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // (item - 40), range(100)))
