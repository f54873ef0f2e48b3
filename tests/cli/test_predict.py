"""`embodied predict`, whole, on a run with random weights; what goes wrong gives one message."""

import json

import pytest
from video_runs import video_run, video_store

from embodied.cli.main import main


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    return video_run(folder / "run", video_store(folder / "store"), holdout=0.3)


def run(capsys, *arguments):
    code = main(["predict", "device=cpu", *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, " ".join(captured.err.split())


def test_everything_is_there_and_the_page_asks_nobody(run_folder, tmp_path, capsys):
    code, out, _ = run(
        capsys, f"run={run_folder}", "episodes=4", "films=2", f"to={tmp_path}", f"cache={tmp_path / 'cache'}"
    )
    assert code == 0 and "copy last frame" in out
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left == {"report.html", "metrics.json", "frames.png", "horizon.png", "clip_0.mp4", "clip_1.mp4"}
    page = (tmp_path / "report.html").read_text()
    assert "://" not in page and page.count("data:video/mp4") == 2 and page.count("data:image/png") == 2
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert (numbers["context"], numbers["frames"]) == (2, 5)
    assert numbers["trained_on"] is False  # the run held episodes out, and those are shown
    assert "was trained on" not in page


def test_other_data_context_and_length(run_folder, tmp_path, capsys):
    store = video_store(tmp_path / "other", side=24)
    arguments = [f"run={run_folder}", f"data={store}", f"cache={tmp_path / 'cache'}", "episodes=2", "films=0"]
    code, _, _ = run(capsys, *arguments, "frames=4", "context=3", f"to={tmp_path / 'out'}")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert code == 0 and (numbers["context"], numbers["frames"], numbers["clips"]) == (3, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which model? write run="),
        (["run=nowhere"], "nowhere is not a run folder"),
        (["rum=x"], "did you mean run"),
        (["run={run}", "context=5"], "context must be in [1, 4]"),
        (["run={run}", "episodes=0"], "episodes must be a whole number of at least 1"),
        (["run={run}", "features=deflaut"], "unknown encoder"),
        (["run={run}", "data=nowhere"], "nowhere"),
        (["run={run}", "frames=40"], "the longest episode or video has"),
    ],
)
def test_what_goes_wrong_gives_one_message(run_folder, tmp_path, capsys, arguments, message):
    given = [argument.format(run=run_folder) for argument in arguments]
    code, _, error = run(capsys, *given, f"cache={tmp_path}")
    assert code in (1, 2) and message in error
