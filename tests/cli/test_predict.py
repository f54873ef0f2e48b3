"""`embodied predict`, whole, on a run with random weights; what goes wrong gives one message."""

import json
import shutil

import pytest
from tiny_gr1 import make_store
from tiny_sequences import image_encoder
from video_runs import video_run, video_store

from embodied.cli.main import main
from embodied.encoders.artifact import save_encoder


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


@pytest.fixture(scope="module")
def gr1_folder(tmp_path_factory):
    """A finished run of objective=gr1, of four steps."""
    folder = tmp_path_factory.mktemp("gr1")
    save_encoder(image_encoder(), folder / "images", card="tiny\n")
    store = make_store(folder / "store", lengths=(12, 9, 12), first_seed=0)
    settings = [
        *("encoder.width=32", "encoder.depth=1", "+encoder.latents=2", "device=cpu", "sequence.context=4"),
        *("objective.image_size=16", "objective.decoder_depth=1", "objective.next_frames=2"),
        *("sequence.text_encoder=null", "train.steps=4", "train.batch_size=6", "train.warmup_steps=1"),
    ]
    places = [f"sequence.image_encoder={folder / 'images'}", f"data={store}", f"run={folder / 'run'}"]
    assert main(["pretrain", "objective=gr1", *settings, *places, f"cache={folder / 'cache'}"]) == 0
    return folder / "run"


def test_gr1_expects_frames_ahead(gr1_folder, tmp_path, capsys):
    places = [f"run={gr1_folder}", f"to={tmp_path}", f"cache={tmp_path / 'cache'}"]
    code, out, _ = run(capsys, *places, "frames=6", "episodes=2", "films=1")
    assert code == 0 and "patch means" in out and "codes right" not in out
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left == {"report.html", "metrics.json", "frames.png", "horizon.png", "clip_0.mp4"}
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert (numbers["context"], numbers["frames"], numbers["clips"], numbers["frames_ahead"]) == (2, 6, 2, 2)
    assert set(numbers["rows"]) == {"prediction", "copy last frame", "patch means"} and numbers["trained_on"] is True
    assert "predicted 2 ahead, from the true ones until then" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["context=2"], "context: GR-1 predicts every frame 2 ahead from the 4 steps until then"),
        (["camera=frnt"], "did you mean front"),
        (["frames=2"], "frames must be above the 2 that this model predicts ahead"),
        (["frames=30"], "the longest has 12: lower frames"),
    ],
)
def test_what_goes_wrong_with_gr1_gives_one_message(gr1_folder, tmp_path, capsys, arguments, message):
    code, _, error = run(capsys, f"run={gr1_folder}", *arguments, f"cache={tmp_path}")
    assert code in (1, 2) and message in error


def test_a_run_that_learned_no_futures_is_refused(gr1_folder, tmp_path, capsys):
    shutil.copytree(gr1_folder, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("video_weight: 0.1", "video_weight: 0.0"))
    code, _, error = run(capsys, f"run={tmp_path / 'run'}", f"cache={tmp_path}")
    assert code == 1 and "has learned nothing of frames to come (objective.video_weight=0)" in error
