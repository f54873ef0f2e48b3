"""A whole small benchmark: what it leaves, that its cells are runs of `embodied train`, and what it survives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from processes import started
from tiny_suite import tiny, write_suite

from embodied.bench.bench_runs import record_environment
from embodied.bench.cells import RESULT_FORMAT
from embodied.bench.result_files import RESULTS, RUNS, load_results
from embodied.bench.statistics.sequential import SequentialTest, confidence_sequence
from embodied.bench.store_costs import load_store_costs
from embodied.bench.suite import MANDATORY
from embodied.bench.work_list import LIST
from embodied.cli.main import main
from embodied.core.checkpoint import load_checkpoint
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder

pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.xdist_group("bench")]
SHIFTED = ["static", "shift:light:3"]


def vit():
    torch.manual_seed(0)
    return ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a suite, an encoder, and the cache that all tests of this file share."""
    folder = tmp_path_factory.mktemp("bench")
    save_encoder(vit(), folder / "good", card="tiny\n")
    write_suite(folder, variants=SHIFTED)
    return folder


def command(place, root, *more, suite="tiny", encoders="good"):
    named = ",".join(str(place / name) for name in encoders.split(",") if name)
    places = [f"suite={place / suite}.yaml", f"encoders=[{named}]", f"root={root}", f"cache={place / 'cache'}"]
    return ["bench", *places, "device=cpu", *more]


@pytest.fixture(scope="module")
def whole(place):
    root = place / "whole"
    assert main(command(place, root)) == 0
    return root / "tiny"


def numbers(folder):
    """All that must not depend on interruptions or workers."""
    return {
        result.cell.key: (result.status, result.episodes, result.curve, result.encoder_fingerprint)
        for result in load_results(folder)
    }


def test_every_cell_has_a_result_that_says_how_it_was_made(place, whole):
    results = load_results(whole)
    assert {(result.cell.encoder, result.cell.variant) for result in results} == {
        (encoder, variant) for encoder in (*MANDATORY, str(place / "good")) for variant in SHIFTED
    }
    assert len({result.protocol for result in results}) == 1
    assert len({result.demos_fingerprint for result in results}) == 1
    for result in results:
        assert result.status == "done"
        assert [episode.seed for episode in result.episodes] == [2_000_000, 2_000_001]
        assert (whole / result.run / "videos" / "rollout.mp4").is_file()
        assert result.versions["mujoco"]
        assert bool(result.encoder_fingerprint) == (result.cell.encoder != "scratch")
        static = result.cell.variant == "static"
        steps = [15, 30] if result.cell.encoder == "scratch" else [10, 20]
        assert [step for step, _ in result.curve] == (steps if static else [])
        assert {"evaluate"} <= set(result.seconds)
        assert not static or {"collect", "encode", "train", "select"} <= set(result.seconds)
        assert result.cpu_seconds.keys() == result.seconds.keys()
        assert result.cpu_seconds["evaluate"] > 0
        assert result.sequential == {}
    (cost,) = load_store_costs(whole)
    assert (cost.task, cost.variant, cost.episodes, cost.begun_before) == ("drawer-close-v3", "static", 2, False)
    assert cost.fingerprint == results[0].demos_fingerprint
    assert cost.frames > 0 and cost.seconds > 0 and cost.cpu_seconds > 0
    assert "drawer-close-v3 (static)" in (whole / "report.html").read_text()
    files = {path.name for path in whole.iterdir()}
    assert {"report.html", "results.csv", "bench.json", "environment.txt", LIST} <= files


def test_a_cell_is_a_run_of_train(place, whole, tmp_path):
    settings = [f"{name}={str(value).replace(' ', '')}" for name, value in tiny()["settings"].items()]
    arguments = [*settings, "task=drawer-close-v3", "demos=2", "policy.head=mlp", "workers=0", "device=cpu"]
    places = [f"root={tmp_path}", f"cache={tmp_path / 'cache'}", f"encoder=path={place / 'good'}"]
    assert main(["train", *arguments, *places]) == 0
    (run,) = [path for path in tmp_path.iterdir() if (path / "summary.json").exists()]
    (result,) = [each for each in load_results(whole) if each.cell.encoder.endswith("good") and each.curve]
    outcomes = json.loads((run / "summary.json").read_text())["outcomes"]
    assert [(each["seed"], each["success"], each["steps"]) for each in outcomes] == [
        (episode.seed, episode.success, episode.steps) for episode in result.episodes
    ]
    name = "checkpoints/step_000020.safetensors"
    alone, (in_bench, _) = load_checkpoint(run / name)[0], load_checkpoint(whole / result.run / name)
    assert all(torch.equal(tensor, in_bench[key]) for key, tensor in alone.items())


def test_a_finished_benchmark_is_not_run_again_and_shown_at_once(place, whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / RESULTS).iterdir()}
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "embodied", *command(place, whole.parent)], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - started < 5 * 4, "under five seconds where nothing else runs"
    assert "all of 12 cells have results" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in (whole / RESULTS).iterdir()} == before


def test_a_lost_list_is_made_again_from_the_results(place, whole, tmp_path, capsys):
    copy = tmp_path / "tiny"
    shutil.copytree(whole, copy)
    for path in copy.glob(f"{LIST}*"):
        path.unlink()
    (copy / "environment.txt").write_text("torch 1\n")
    assert main(command(place, tmp_path)) == 0
    assert "all of 12 cells have results" in capsys.readouterr().out
    assert (copy / "environment.txt").read_text() == "torch 1\n", "what the numbers came from"


def test_an_environment_is_kept_when_cells_are_run_in_another(tmp_path, monkeypatch):
    for versions in ("torch 1\ncpus 2\n", "torch 2\ncpus 2\n", "torch 1\ncpus 2\n"):
        monkeypatch.setattr("embodied.bench.bench_runs.environment_text", lambda text=versions: text)
        record_environment(tmp_path)
    assert (tmp_path / "environment.txt").read_text() == "torch 1\ncpus 2\n\ntorch 2\ncpus 2\n"


def test_an_evaluation_may_stop_early_and_says_so(place, tmp_path, capsys):
    settings = {**tiny()["settings"], "episodes": 16}
    write_suite(place, "early", settings=settings)
    stopping = "early_stopping={half_width: 0.2}"
    assert main(command(place, tmp_path, stopping, suite="early", encoders="")) == 0
    out = " ".join(capsys.readouterr().out.split())
    results = load_results(tmp_path / "early")
    for result in results:
        assert result.sequential == {"half_width": 0.2, "threshold": None, "confidence": 0.95, "planned": 16}
        assert result.stopped_early == (len(result.episodes) < 16)
        seeds = [episode.seed for episode in result.episodes]
        assert seeds == list(range(2_000_000, 2_000_000 + len(seeds)))
        test = SequentialTest(half_width=0.2)
        assert test.enough(result.episode_scores) or len(seeds) == 16
        assert not test.enough(result.episode_scores[:-1])
        summary = json.loads((tmp_path / "early" / result.run / "summary.json").read_text())
        assert summary["interval"] == list(confidence_sequence(summary["successes"], summary["episodes"]))
    assert any(result.stopped_early for result in results)
    assert "evaluations stopped early by a sequential test (half width 0.2)" in out
    assert main(command(place, tmp_path, suite="early", encoders="")) == 1  # a fixed number is another protocol
    assert "early_stopping: gone" in " ".join(capsys.readouterr().err.split())


def workers_of(process):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    values = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(values[1]) == process and values[0] != "Z":
                found.append(int(entry))
    return found


def wait_until(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    return os.path.exists(f"/proc/{process}")


def test_ctrl_c_then_sigkill_then_a_killed_worker_end_like_an_uninterrupted_run(place, whole, tmp_path):
    write_suite(place, "static")
    arguments = [sys.executable, "-m", "embodied", *command(place, tmp_path, "workers=1", suite="static", encoders="")]
    folder = tmp_path / "static"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def count():
        return len(list((folder / RESULTS).glob("*.json")))

    with started(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: count() >= 1, process)
        workers = workers_of(process.pid)
        process.send_signal(signal.SIGINT)
        told = process.stdout.read().decode()
        assert process.wait(60) == 130
    assert "the same command goes on" in told and "Traceback" not in told
    wait_until(lambda: not any(alive(worker) for worker in workers))
    first = count()
    with started(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: count() > first, process)
        workers = workers_of(process.pid)
        process.kill()
    wait_until(lambda: not any(alive(worker) for worker in workers))
    second = count()
    assert second < len(MANDATORY)
    with started(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        # Once the next cell has begun: killed between two, the worker would leave nothing to be done once more.
        wait_until(lambda: count() > second and len(list((folder / RUNS).glob("*/config.yaml"))) > count(), process)
        for worker in workers_of(process.pid):
            with open(f"/proc/{worker}/cmdline") as file:
                if "spawn_main" in file.read():
                    os.kill(worker, signal.SIGKILL)
        told = process.stdout.read().decode()
        assert process.wait(300) == 0, told
    assert "SIGKILL" in told and "once more" in told
    uninterrupted = numbers(whole)
    assert numbers(folder) == {key: uninterrupted[key] for key in numbers(folder)}
    assert len(numbers(folder)) == len(MANDATORY)


def broken(folder, value):
    encoder = vit()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(value)
    save_encoder(encoder, folder, card="broken\n")


def test_encoders_that_fail_are_reported_and_the_others_go_on(place, tmp_path, capsys):
    broken(place / "nan", float("nan"))
    broken(place / "constant", 0.0)
    write_suite(place, "plain")
    code = main(command(place, tmp_path, suite="plain", encoders="nan,constant,absent,good"))
    out = capsys.readouterr().out
    assert code == 1
    results = {result.cell.encoder.rpartition("/")[2]: result for result in load_results(tmp_path / "plain")}
    assert {name for name, result in results.items() if result.status == "failed"} == {"nan", "constant", "absent"}
    assert "nan" in results["nan"].reason and "check the encoder" in results["nan"].reason
    assert "gives constant features" in results["constant"].reason
    assert "there is no such folder" in results["absent"].reason
    assert "3 of 9 cells have failed" in out
    save_encoder(vit(), place / "absent", card="now it is there\n")
    assert main(command(place, tmp_path, suite="plain", encoders="absent,good")) == 1  # without retry it stays failed
    assert main(command(place, tmp_path, "retry=true", suite="plain", encoders="absent,good")) == 1  # others still are
    results = {result.cell.encoder.rpartition("/")[2]: result.status for result in load_results(tmp_path / "plain")}
    assert results["absent"] == "done"
    shutil.rmtree(place / "absent")


def test_an_encoder_that_changes_under_its_name_is_not_mixed(place, tmp_path, capsys):
    save_encoder(vit(), place / "moving", card="first\n")
    write_suite(place, "plain")
    assert main(command(place, tmp_path, suite="plain", encoders="moving")) == 0
    torch.manual_seed(1)
    changed = ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=3)
    save_encoder(changed, place / "moving", card="second\n")
    assert main(command(place, tmp_path, "seeds=[1]", suite="plain", encoders="moving")) == 1
    (failed,) = [result for result in load_results(tmp_path / "plain") if result.status == "failed"]
    assert failed.cell.seed == 1
    assert "has changed since other cells of this benchmark ran" in failed.reason


def test_a_task_without_a_demonstrator_fails_with_its_cells(place, tmp_path, capsys):
    pytest.importorskip("dm_control")
    tasks = [{"env": "dmc", "task": "swimmer_swimmer6"}]
    write_suite(place, "swimmer", tasks=tasks)
    assert main(command(place, tmp_path, suite="swimmer", encoders="")) == 1
    results = load_results(tmp_path / "swimmer")
    assert len(results) == 5
    assert all(result.reason.startswith("no demonstrations: no rl expert for swimmer_swimmer6") for result in results)


def test_reinforcement_learning_has_cells_too(place, tmp_path):
    pytest.importorskip("stable_baselines3")
    settings = {
        "env.horizon": 10,
        "env.image_size": 32,
        "episodes": 2,
        "reinforce.steps": 32,
        "reinforce.num_envs": 2,
        "reinforce.checkpoint_every": 16,
        "evaluate.selection_episodes": 1,
    }
    controllers = {"ppo": {"policy": "ppo", "policy.rollout_steps": 8, "policy.minibatches": 1, "policy.epochs": 1}}
    write_suite(place, "rl", controllers=controllers, settings=settings, demos=[0], exceptions=None, variants=SHIFTED)
    assert main(command(place, tmp_path, suite="rl")) == 0
    results = load_results(tmp_path / "rl")
    assert len(results) == 12
    for result in results:
        assert (result.status, len(result.episodes), result.demos_fingerprint) == ("done", 2, "")
        if result.cell.variant == "static":
            assert [step for step, _ in result.curve] == [16, 32]
            assert {"train", "evaluate"} <= set(result.seconds)


def test_another_protocol_is_refused_before_anything_runs(place, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "root" / "tiny")
    (tmp_path / "changed").mkdir()
    write_suite(tmp_path / "changed", variants=SHIFTED, settings={**tiny()["settings"], "train.steps": 25})
    assert main(command(tmp_path / "changed", tmp_path / "root", encoders="")) == 1
    err = capsys.readouterr().err
    assert "holds results of another protocol" in err
    assert "training.steps: 20, now 25" in err
    assert numbers(tmp_path / "root" / "tiny") == numbers(whole)


def test_results_of_a_newer_version_and_of_another_protocol_are_refused(place, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "tiny")
    path = sorted((tmp_path / "tiny" / RESULTS).iterdir())[0]
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": RESULT_FORMAT + 1}))
    assert main(command(place, tmp_path)) == 1
    assert "upgrade embodied" in capsys.readouterr().err
    path.write_text(json.dumps({**record, "protocol": "f" * 16}))
    assert main(command(place, tmp_path)) == 1
    assert "is of protocol ffffffffffffffff" in capsys.readouterr().err
