"""`embodied replicate` of presets that pre-train first: whole at their tiny size, stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from embodied.bench.replicate import read_replication
from embodied.bench.replicate_jobs import RUNS, JobRecord, load_records, save_record
from embodied.bench.result_files import RESULTS, load_results
from embodied.bench.work_list import Item
from embodied.cli.bench_arguments import compose_sub_verb
from embodied.cli.main import main
from embodied.cli.replicate import check_plans, replicate
from embodied.cli.replicate_jobs import check_jobs, run_jobs, without_stores
from embodied.cli.replicate_runner import Attempts, JobPlace, MakeJobRunner, overrides_of
from embodied.core.errors import UsageError
from embodied.core.run_folder import read_metrics
from embodied.encoders.load import load_encoder
from embodied.encoders.sensorimotor import SensorimotorEncoder

ENV = {
    "task": "drawer-close-v3",
    "episodes": 2,
    "env.horizon": 12,
    "env.image_size": 16,
    "collect.only_successes": False,
}
CONTENT = {
    **{"paper": "A paper", "url": "https://arxiv.org/abs/1", "theirs": "theirs", "ours": "ours", "claims": []},
    "pretraining": {
        "stores": {"demos": ENV},
        "data": [{"store": "demos", "embodiment": "sawyer"}],
        "settings": {
            **{"objective": "hpt", "sequence.image_encoder": "pixels", "sequence.latent": "pooled", "train.steps": 4},
            **{"encoder.size": None, "encoder.width": 16, "encoder.depth": 1, "encoder.heads": 2, "encoder.tokens": 2},
            **{"train.batch_size": 4, "train.warmup_steps": 1, "sequence.context": 2, "holdout": 0.5},
        },
        "jobs": {
            "many": {"exports": {"sawyer": "encoders/sawyer"}},
            "on": {"settings": {"sequence.trunk": "job:many/trunk.safetensors", "sequence.freeze_trunk": True},
                   "exports": {}},
        },
    },
    "suite": {
        **{"description": "none", "tasks": [{"env": "metaworld", "task": "drawer-close-v3"}]},
        "controllers": {"mlp": {}},
        "baselines": {name: ["mlp"] for name in ("state", "proprioception", "pixels", "random", "scratch")},
    },
}  # fmt: skip


def test_settings_are_checked_before_anything_is_collected(tmp_path):
    assert overrides_of({"objective": "rpt", "data": ["a b"], "train.clip": None}) == [
        *("objective=rpt", "data=['a b']", "train.clip=null"),
    ]
    made = read_replication(CONTENT, name="mine", root=tmp_path).pretraining
    check_jobs(made)
    for part, name in (("stores", "demos"), ("settings", None)):
        broken = {**CONTENT["pretraining"]}
        inner = {**broken[part][name], "env.horizn": 3} if name else {**broken[part], "train.stps": 3}
        broken[part] = {name: inner} if name else inner
        content = {**CONTENT, "pretraining": broken}
        with pytest.raises(UsageError, match=r"did you mean (env\.horizon|train\.steps)"):
            check_jobs(read_replication(content, name="mine", root=tmp_path).pretraining)


def test_seconds_are_those_of_all_attempts(tmp_path):
    """One that ended counts in full, one that was killed until its run was last written to."""
    path, run = tmp_path / "mine.attempts.json", tmp_path / "mine"
    run.mkdir()
    with pytest.raises(KeyboardInterrupt), Attempts(path).another(run):
        time.sleep(0.05)
        raise KeyboardInterrupt
    ended = Attempts(path).seconds
    assert ended >= 0.05
    kept = json.loads(path.read_text())
    (run / "metrics.jsonl").write_text("{}")
    os.utime(run / "metrics.jsonl", (1_000, 1_060))
    path.write_text(json.dumps([*kept, {"began": 1_000.0}]))
    last = Attempts(path)
    with last.another(run):
        time.sleep(0.02)
    assert last.seconds == Attempts(path).seconds >= 60 + ended + 0.02
    assert last.seconds < 61 + ended


def test_a_jobs_record_has_the_seconds_of_all_attempts(tmp_path, monkeypatch):
    """Stopped the first time, done the second; nothing is trained."""
    replication = read_replication(CONTENT, name="mine", root=tmp_path)
    (replication.folder / RUNS / "records").mkdir(parents=True)
    place = JobPlace(devices=["cpu"], processes=0, threads=1, cache=str(tmp_path / "cache"), cache_gb=1.0)
    runner = MakeJobRunner(replication.folder, replication.pretraining, place)(0)
    monkeypatch.setattr(runner, "_data", lambda job: ["demos"])
    calls = []

    def pretrain_once(config, arguments):
        calls.append(config.train.steps)
        time.sleep(0.3)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("embodied.cli.pretrain.pretrain_once", pretrain_once)
    with pytest.raises(KeyboardInterrupt):
        runner(Item(key="pretrain/on"))
    runner(Item(key="pretrain/on"))
    assert load_records(replication.folder, replication.pretraining)["on"].seconds >= 0.6


def test_jobs_of_other_stores_run_where_one_store_fails(tmp_path, monkeypatch):
    pretraining = {
        **CONTENT["pretraining"],
        "stores": {"demos": ENV, "more": ENV},
        "jobs": {**CONTENT["pretraining"]["jobs"], "other": {"data": ["more"], "exports": {}}},
    }
    replication = read_replication({**CONTENT, "pretraining": pretraining}, name="mine", root=tmp_path)
    given = []

    def work(work, items, *_):
        given.append([item.key for item in items])
        return {"store/more": "no such task"} if len(given) == 1 else {}

    monkeypatch.setattr("embodied.cli.replicate_jobs._work", work)
    config = compose_sub_verb("replicate", ["rpt"], positional=("paper",), about=None)
    failed = run_jobs(replication, config, Console())
    assert given == [["store/demos", "store/more"], ["pretrain/many", "pretrain/on"]]
    assert failed == {"store/more": "no such task", "pretrain/other": "store/more has failed"}


def test_a_store_that_cannot_be_collected_bars_what_needs_it_alone():
    pretraining = {
        **CONTENT["pretraining"],
        "stores": {"demos": ENV, "more": ENV},
        "jobs": {
            **CONTENT["pretraining"]["jobs"],
            "other": {"data": ["more"], "exports": {}},
            "further": {"exports": {}, "settings": {"sequence.trunk": "job:other/trunk.safetensors"}},
        },
    }
    made = read_replication({**CONTENT, "pretraining": pretraining}, name="mine").pretraining
    assert without_stores(made, [], ["more"]) == {"other": "more", "further": "more"}
    assert without_stores(made, ["other"], ["more"]) == {}  # whose run is there
    assert without_stores(made, [], []) == {}


def test_plans_are_resolved_before_anything_is_pretrained(tmp_path):
    """But for controllers that name runs, which are not there yet."""
    check_plans(read_replication(CONTENT, name="mine", root=tmp_path))
    models = {"policy": "visual_mpc", "policy.model": "job:many"}
    late = {**CONTENT["suite"], "controllers": {**CONTENT["suite"]["controllers"], "late": models}}
    check_plans(read_replication({**CONTENT, "suite": late}, name="mine", root=tmp_path))
    broken = {**CONTENT["suite"], "settings": {"env.horizn": 12}}
    with pytest.raises(UsageError, match=r"did you mean env\.horizon"):
        check_plans(read_replication({**CONTENT, "suite": broken}, name="mine", root=tmp_path))


def record_of(key, identity):
    return JobRecord(key=key, identity=identity, metrics={"loss": 1.0}, seconds=1.0)


CURVE = {
    **{"name": "steps", "claim": "More is lower.", "theirs": "yes", "metric": "loss", "axis": "steps"},
    "points": {"many": 1, "on": 4},
}


@pytest.mark.parametrize(("failing", "benched"), [("on", True), ("many", False)])
def test_a_job_that_no_cell_needs_may_fail(tmp_path, monkeypatch, capsys, failing, benched):
    """`on` is for a curve alone; cells see what `many` exports."""
    suite = {**CONTENT["suite"], "encoders": {"sawyer": ["mlp"]}}
    content = {**CONTENT, "suite": suite, "curves": [CURVE]}
    replication = read_replication(content, name="mine", root=tmp_path)
    asked = []

    def fake_jobs(replication, config, console):
        assert asked.pop() == "plans"  # resolved before
        made = replication.pretraining
        for job in made.jobs:
            if job.name != failing:
                save_record(replication.folder, record_of(job.key, made.identity(job)))
        return {f"pretrain/{failing}": "no memory"}

    monkeypatch.setattr("embodied.cli.replicate_jobs.run_jobs", fake_jobs)

    def bench(suite, config, console):
        asked.append(suite.name)
        (replication.folder / RESULTS).mkdir()
        return 0

    monkeypatch.setattr("embodied.cli.bench.bench", bench)
    monkeypatch.setattr("embodied.cli.replicate.check_plans", lambda replication: asked.append("plans"))
    arguments = ["rpt", f"root={tmp_path}"]  # whose preset stands in for ours
    config = compose_sub_verb("replicate", arguments, positional=("paper",), about=None)
    assert replicate(replication, arguments, config, Console()) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert f"pretrain/{failing} has failed: no memory" in told
    assert asked == (["mine"] if benched else [])
    assert ("judged without pretrain/on" in told) == benched
    assert ("the benchmark needs many: it was not begun" in told) == (not benched)
    assert (replication.folder / RUNS / "records").is_dir()
    if benched:
        (curve,) = json.loads((replication.folder / "replicate.json").read_text())["curves"]
        assert curve["status"] == "not tested" and "on did not end with loss" in curve["reason"]


@pytest.mark.sim
@pytest.mark.slow
def test_a_job_goes_on_from_anothers_run_and_publishes_its_encoder(tmp_path):
    replication = read_replication(CONTENT, name="mine", root=tmp_path)
    place = JobPlace(devices=["cpu"], processes=0, threads=1, cache=str(tmp_path / "cache"), cache_gb=1.0)
    runner = MakeJobRunner(replication.folder, replication.pretraining, place)(0)
    for key in ("pretrain/many", "pretrain/on"):  # the store is collected by the way
        (replication.folder / "pretraining" / "records").mkdir(parents=True, exist_ok=True)
        runner(Item(key=key))
    done = load_records(replication.folder, replication.pretraining)
    assert set(done) == {"many", "on"} and done["on"].metrics["step"] == 4
    assert {"loss", "loss_demos", "holdout_loss"} <= set(done["many"].metrics)
    encoder = load_encoder(str(replication.folder / "pretrained" / "sawyer"))
    assert isinstance(encoder, SensorimotorEncoder) and encoder.sequence.width == 16
    runs = replication.folder / "pretraining"
    trunks = [(runs / name / "trunk.safetensors").read_bytes() for name in ("many", "on")]
    assert trunks[0] == trunks[1]  # frozen there
    assert "run folder" in (runs / "many.log").read_text()
    assert [record["step"] for record in read_metrics(runs / "on" / "metrics.jsonl") if "holdout_loss" in record] == [
        0,
        4,
    ]


@pytest.mark.sim
@pytest.mark.slow
def test_rpt_at_its_tiny_size_is_killed_goes_on_and_ends(tmp_path, capsys):
    """A worker with all of it is killed with the command that started it; the same command does the rest."""
    command = ["replicate", "rpt", "size=tiny", f"root={tmp_path}", f"cache={tmp_path / 'cache'}", "device=cpu",
               "workers=1", "videos=0"]  # fmt: skip
    records = tmp_path / "rpt-tiny" / "pretraining" / "records"
    first = subprocess.Popen([sys.executable, "-m", "embodied", *command], start_new_session=True)
    until = time.monotonic() + 500
    while not list(records.glob("*.json")) and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    made = {path.name: path.stat().st_mtime_ns for path in records.glob("*.json")}
    assert made and not (tmp_path / "rpt-tiny" / "replicate.json").exists()
    assert main(command) == 0
    assert all((records / name).stat().st_mtime_ns == moment for name, moment in made.items())  # not trained again
    record = json.loads((tmp_path / "rpt-tiny" / "replicate.json").read_text())
    assert {each["status"] for each in record["verdicts"]} <= {"same direction", "opposite direction", "undecided"}
    assert all(each["pairs"] == 2 for each in record["verdicts"])
    results = load_results(tmp_path / "rpt-tiny")
    rows = {(os.path.basename(each.cell.encoder.removesuffix("/{seed}")), each.cell.controller) for each in results}
    assert rows == {
        *(("token", "finetune"), ("token", "fresh"), ("token", "probe"), ("modality", "finetune")),
        ("proprioception", "mlp"),
    }
    assert all(each.status == "done" and len(each.episodes) == 2 for each in results)
    capsys.readouterr()
    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "all of 3 pre-trainings are done" in told and "all of 10 cells have results" in told


@pytest.mark.sim
@pytest.mark.slow
def test_hpt_at_its_tiny_size_has_claims_on_two_suites_and_two_curves(tmp_path):
    places = [f"root={tmp_path}", f"cache={tmp_path / 'cache'}", "device=cpu", "videos=0"]
    assert main(["replicate", "hpt", "size=tiny", *places]) == 0
    folder = tmp_path / "hpt-tiny"
    record = json.loads((folder / "replicate.json").read_text())
    assert [each["pairs"] for each in record["verdicts"]] == [2, 2]
    assert [len(each["values"][0]) for each in record["curves"]] == [2, 2]
    assert len(record["curves"][1]["beside"]["from_0"]) == 2
    assert {"many", "panda-0", "panda_scratch-1", "trunk_16x128-1", "from_15-1"} <= set(record["pretraining"])
    assert all("of one pre-training of many" in each["reason"] for each in record["verdicts"])
    assert all((folder / "plots" / f"{name}.png").is_file() for name in ("trunk", "datasets"))
    assert all((folder / name / "report.html").is_file() for name in ("hpt-tiny-tasks", "hpt-tiny-body"))
