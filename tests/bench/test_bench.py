"""Intervals, plots, video, report."""

import av
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from embodied.bench.plots import Row, plot_comparison, plot_learning_curve, plot_success, save_image_grid
from embodied.bench.report import write_report
from embodied.bench.statistics.intervals import seeds_interval, wilson_interval
from embodied.bench.video import label_frames, side_by_side, write_video
from embodied.core.errors import UsageError


@pytest.mark.parametrize(("successes", "episodes"), [(0, 25), (1, 25), (17, 25), (25, 25), (3, 4)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_equals_scipys(successes, episodes, confidence):
    expected = binomtest(successes, episodes).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, episodes, confidence=confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_wilson_refuses_nonsense():
    for arguments in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(UsageError):
            wilson_interval(*arguments)


def test_interval_over_seeds_is_wider_than_over_pooled_episodes():
    runs = [[True] * 25, [False] * 25, [True] * 12 + [False] * 13]
    mean, low, high = seeds_interval(runs)
    pooled = wilson_interval(37, 75)
    assert mean == pytest.approx(37 / 75)
    assert low < pooled[0]
    assert high > pooled[1]
    assert seeds_interval(runs) == (mean, low, high)  # its seed is fixed


def test_interval_over_equal_seeds_is_the_binomial_one():
    runs = [[True] * 60 + [False] * 40] * 50
    _, low, high = seeds_interval(runs)
    deviation = (0.6 * 0.4 / 5000) ** 0.5
    assert (high - low) == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_interval_refuses_empty_runs():
    with pytest.raises(UsageError):
        seeds_interval([[True], []])


def outcomes():
    return [
        {"seed": 1, "success": True, "steps": 60, "total_reward": 10.0},
        {"seed": 2, "success": False, "steps": 250, "total_reward": 1.0},
    ]


def draw_all(folder):
    metrics = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.1}, {"step": 2, "success_rate": 0.5}]
    plot_learning_curve(metrics, folder / "learning_curve.png")
    plot_success(outcomes(), (0.1, 0.9), folder / "success.png")
    rows = [Row(label="state", mean=1.0, low=0.9, high=1.0), Row(label="pixels", mean=0.5, low=0.3, high=0.7)]
    plot_comparison({"hammer": rows, "assembly": rows}, folder / "comparison.png")


def test_plots_are_pictures_with_something_on_them(tmp_path):
    draw_all(tmp_path)
    for name in ("learning_curve", "success", "comparison"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert picture.shape[0] > 100
        assert picture.std() > 5


def test_image_grid(tmp_path):
    rows = [np.full((2, 4, 4, 3), value, np.uint8) for value in (0, 255)]
    save_image_grid(rows, tmp_path / "grid.png")
    assert np.asarray(Image.open(tmp_path / "grid.png")).shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_video_can_be_read_back(tmp_path, size):
    frames = np.zeros((5, *size, 3), np.uint8)
    frames[3:] = 200
    write_video(tmp_path / "clip.mp4", frames, 10)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.name == "h264"
    assert len(decoded) == 5
    assert decoded[0].shape == (size[0] // 2 * 2, size[1] // 2 * 2, 3)
    assert decoded[0].mean() < 10
    assert decoded[4].mean() > 190


def test_labels_enlarge_and_colour():
    frames = np.full((2, 16, 16, 3), 90, np.uint8)
    good, bad = label_frames(frames, "a", True, size=64), label_frames(frames, "a", False, size=64)
    assert good.shape == (2, 64 + 32, 64 + 8, 3)
    assert good[0, -1, 0].tolist() != bad[0, -1, 0].tolist()
    assert (good[:, 28:92, 4:68] == 90).all()


def test_clips_side_by_side_wait_for_the_longer():
    short, long = np.full((1, 4, 4, 3), 1, np.uint8), np.full((3, 4, 6, 3), 2, np.uint8)
    both = side_by_side([short, long])
    assert both.shape == (3, 4, 10, 3)
    assert (both[2, :, :4] == 1).all()


def test_report_is_whole_and_escapes(tmp_path):
    draw_all(tmp_path)
    write_video(tmp_path / "rollout.mp4", np.zeros((2, 16, 16, 3), np.uint8), 10)
    (tmp_path / "environment.txt").write_text("torch 2\n")
    summary = {
        "task": "<script>alert(1)</script>",
        "encoder": "default",
        "head": "mlp",
        "demos": 25,
        "seed": 0,
        "device": "cpu",
        "success_rate": 0.5,
        "interval": [0.1, 0.9],
        "episodes": 2,
        "successes": 1,
        "outcomes": outcomes(),
        "best_checkpoint": {"success_rate": 1.0, "episodes": 4, "step": 2},
        "seconds": {"train": 1.25},
        "command": "embodied train a='<b>'",
        "artifacts": {
            "video": "rollout.mp4",
            "learning_curve": "learning_curve.png",
            "success": "success.png",
        },
    }
    write_report(tmp_path, summary, "task: <x>\n")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "50%" in page
    assert page.count("data:image/png;base64,") == 2
    assert page.count("data:video/mp4;base64,") == 1
    assert "://" not in page
    (tmp_path / "rollout.mp4").unlink()
    write_report(tmp_path, summary, "task: <x>\n")
    page = (tmp_path / "report.html").read_text()
    assert "not filmed" in page
    assert "<video" not in page
