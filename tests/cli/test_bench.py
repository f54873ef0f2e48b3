"""`embodied bench`: mistakes give one message before anything is made; help; what is printed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tiny_suite import write_suite

from embodied.bench.schedule import Tally
from embodied.bench.work_list import Item
from embodied.cli.bench import chosen_seeds, closing_line
from embodied.cli.bench_progress import BenchProgress
from embodied.cli.main import main
from embodied.core.errors import UsageError


@pytest.mark.sim
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite=quik"], "unknown suite 'quik': did you mean quick"),
        (["suit=quick"], "did you mean suite"),
        (["compair", "a", "b"], "did you mean compare"),
        (["encoders=[defalt]"], "did you mean default"),
        (["encoders=default"], "encoders must be a list, '[a,b]'"),
        (["launcher=slrum"], "did you mean slurm"),
        (["launcher_options.partition=x"], "did you mean launcher"),
        (["launcher_options={cluster: local}"], "launcher_options are for launcher=ray and launcher=slurm"),
        (["seeds=0"], "seeds must be how many, at least 1, or a list"),
        (["seeds=[0,0]"], "seeds: one stands there twice"),
        (["seeds=[-1]"], "seeds must be whole numbers of at least 0"),
        (["workers=0"], "workers must be a whole number of at least 1"),
        (["videos=-1"], "videos must be 0 or more"),
        (["gpu_gb=0"], "gpu_gb must be positive"),
        (["batch_cells=0"], "batch_cells must be a whole number of at least 1"),
        (["early_stopping={half_with: 0.1}"], "did you mean half_width"),
        (["early_stopping=0.1"], "early_stopping must be a group, '{half_width: 0.1}', got 0.1"),
        (["episodes=3"], "unknown setting of embodied bench 'episodes'"),
        (["seeds=0,1"], "several values need -m"),
        (["suite=absent/mine.yaml"], "there is no such file"),
        (["device=gpu"], "unknown device 'gpu'"),
    ],
)
def test_mistakes_give_one_message_and_leave_nothing(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) in (1, 2)
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("launcher", "package", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
@pytest.mark.sim
def test_a_missing_launcher_names_its_extra(capsys, tmp_path, monkeypatch, launcher, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    suite = write_suite(tmp_path)
    assert main(["bench", f"suite={suite}", f"launcher={launcher}", f"root={tmp_path / 'bench'}", "device=cpu"]) == 1
    told = capsys.readouterr().err
    assert f"{package} is not installed: run pip install 'embodied-learning[{extra}]'" in " ".join(told.split())


def test_help_shows_the_settings(capsys):
    assert main(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    assert "encoders: [default]" in out
    assert "launcher: local" in out
    assert "leaderboard" in out


def test_suites_are_listed(capsys):
    assert main(["list", "suites"]) == 0
    assert "CortexBench's 12 MuJoCo tasks" in " ".join(capsys.readouterr().out.split())


def test_seeds_are_a_number_or_a_list():
    from omegaconf import OmegaConf

    assert chosen_seeds(None, 3) == chosen_seeds(3, 5) == [0, 1, 2]
    assert chosen_seeds(OmegaConf.create([4, 2]), 5) == [4, 2]
    with pytest.raises(UsageError):
        chosen_seeds(True, 3)


def test_what_the_schedule_added_is_said():
    tally = Tally(items=10, item_seconds=200.0, overhead_seconds=3.0, idle_seconds=7.0)
    assert "10 items in 200 s of workers; the schedule added 3.0 s (1.5%)" in closing_line([], tally)
    assert closing_line([], Tally()) == "all of 0 cells have results"


def test_progress_says_what_ended_and_how_long_the_rest_takes(capsys):
    items = [Item(key="a/[b]", encoder="x"), Item(key="c", encoder="x"), Item(key="d", encoder="x")]
    with BenchProgress(Console(width=200)) as progress:
        progress.begin(items, ["done", "waiting", "waiting"], 1)
        progress.started(items[1])
        progress.ended(items[1], status="waiting", seconds=1.0, reason="gone")
        progress.started(items[1])
        progress.ended(items[1], status="done", seconds=90.0, reason="")
        progress.ended(items[2], status="failed", seconds=1.0, reason="no [such] thing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 of 3 to do, 1 worker"
    assert lines[1] == "↻ c  1.0 s: gone, once more  (1 of 3)"
    assert lines[2] == "✓ c  90.0 s  (2 of 3, about 1:30 left)"
    assert lines[3].startswith("✗ d  1.0 s: no [such] thing  (3 of 3")


@pytest.mark.sim
def test_results_of_before_are_shown_under_the_protocol_that_they_were_made_by(capsys, tmp_path, monkeypatch):
    """What the package does otherwise by default, or settings that it has more of, must not turn them away."""
    committed = Path(__file__).parents[2] / "docs" / "results" / "quick"
    shutil.copytree(committed, tmp_path / "bench" / "quick")
    protocol = json.loads((committed / "bench.json").read_text())["protocol_hash"]
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "suite=quick", "seeds=3", "root=bench"]) == 0
    told = capsys.readouterr().out
    assert f"protocol {protocol}" in told and " to do" not in told


def test_the_command_starts_without_torch():
    code = "import sys, embodied.cli.bench; sys.exit('torch' in sys.modules or 'mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
