"""Claims of papers: presets that make sense, and verdicts that say no more than the results do."""

import json

import pytest
from bench_results import result

from embodied.bench.replicate import check_replication, load_replication, preset_names
from embodied.bench.replicate_report import verdict_table, write_replication
from embodied.bench.replicate_verdicts import OPPOSITE, SAME, UNDECIDED, UNTESTED, judge
from embodied.bench.result_files import RESULTS, save_result
from embodied.cli.bench_plan import make_plan
from embodied.cli.main import main
from embodied.core.errors import UsageError

TASKS = ("hammer-v3", "assembly-v3")


def results(rates, *, seeds=5, variant="static"):
    """Runs whose rates differ a little by seed."""
    return [
        result(encoder, task, seed, rate=rate + 0.05 * (seed % 2), variant=variant)
        for encoder, rate in rates.items()
        for task in TASKS
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("name", ["mvp", "lfs"])
def test_presets_make_sense(name):
    replication = load_replication(name)
    check_replication(replication)
    assert replication.url.startswith("https://arxiv.org/abs/")
    assert all(claim.claim and claim.theirs for claim in replication.claims)
    plan = make_plan(replication.suite)
    cells = plan.cells(replication.encoders, [0])
    assert {cell.encoder for cell in cells} >= {"default", "random", "scratch", "state", "pixels"}


def test_presets_are_listed(capsys):
    assert {"mvp", "lfs", "rpt", "hpt"} <= set(preset_names())
    assert main(["replicate", "list"]) == 0
    assert "mvp" in capsys.readouterr().out


def test_a_claim_that_carries_over():
    verdicts = judge(load_replication("mvp"), results({"default": 0.8, "random": 0.2, "state": 0.85}))
    assert [verdict.status for verdict in verdicts] == [SAME, UNTESTED, SAME]
    assert verdicts[0].duel.overall.difference == pytest.approx(0.6)
    assert "roles='{supervised: hf:...}'" in verdicts[1].reason


def test_a_claim_that_turns_around():
    verdicts = judge(load_replication("mvp"), results({"default": 0.2, "random": 0.5, "state": 0.9}))
    assert [verdict.status for verdict in verdicts] == [OPPOSITE, UNTESTED, OPPOSITE]


def test_what_seeds_could_turn_is_undecided():
    noisy = [
        *results({"state": 0.9}),
        *(result("default", task, seed, rate=(0.2, 0.8, 0.3)[seed % 3]) for task in TASKS for seed in range(5)),
        *(result("random", task, seed, rate=(0.5, 0.3, 0.2)[seed % 3]) for task in TASKS for seed in range(5)),
    ]
    verdict = judge(load_replication("mvp"), noisy)[0]
    assert verdict.status == UNDECIDED
    assert "leaning towards the claim" in verdict.reason
    assert "seeds would tell" in verdict.reason


def test_a_single_seed_decides_nothing():
    verdict = judge(load_replication("mvp"), results({"default": 0.9, "random": 0.1, "state": 0.9}, seeds=1))[0]
    assert verdict.status == UNDECIDED
    assert "single seed" in verdict.reason


def test_competitive_is_within_the_margin():
    rates = {"default": 0.6, "scratch": 0.55}
    both = results(rates) + results(rates, variant="varied")
    verdicts = judge(load_replication("lfs"), both)
    assert [verdict.status for verdict in verdicts] == [SAME, UNTESTED, UNTESTED, SAME]
    worse = results({"default": 0.6, "scratch": 0.3}) + results(rates, variant="varied")
    assert judge(load_replication("lfs"), worse)[0].status == OPPOSITE


def test_failed_cells_leave_a_claim_untested():
    cells = results({"default": 0.8, "random": 0.2})
    gone = [each for each in cells if each.cell.encoder == "default" or each.cell.seed > 9]
    broken = judge(load_replication("mvp"), gone)[0]
    assert (broken.status, broken.reason) == (UNTESTED, "random / mlp was not run")


def test_roles_can_be_filled():
    replication = load_replication("mvp", {"supervised": "pixels"})
    verdicts = judge(replication, results({"default": 0.8, "random": 0.2, "state": 0.9, "pixels": 0.3}))
    assert verdicts[1].status == SAME
    assert replication.encoders == ["default"]  # pixels is a baseline anyway
    with pytest.raises(UsageError, match="did you mean supervised"):
        load_replication("mvp", {"supervized": "pixels"})
    with pytest.raises(UsageError, match="did you mean mvp"):
        load_replication("mvpp")


def test_page_and_record(tmp_path):
    replication = load_replication("mvp", root=tmp_path)
    verdicts = judge(replication, results({"default": 0.8, "random": 0.2, "state": 0.85}))
    page = write_replication(replication, verdicts, 1234.0).read_text()
    assert "same direction" in page
    assert "not tested" in page
    assert "2203.06173" in page
    assert "21 min" in page
    record = json.loads((tmp_path / "mvp" / "replicate.json").read_text())
    assert [each["status"] for each in record["verdicts"]] == ["same direction", "not tested", "same direction"]
    assert record["verdicts"][0]["better"] == "default/mlp"
    assert record["seconds"] == 1234.0
    assert verdict_table(replication, verdicts).row_count == 3


def test_command_benches_judges_and_writes(tmp_path, monkeypatch, capsys):
    """The benchmark itself is another test's; here it leaves results as if it had run."""
    asked = {}

    def bench(suite, config, console):
        asked.update(suite=suite.name, encoders=list(config.encoders), seeds=config.seeds)
        (tmp_path / "mvp" / RESULTS).mkdir(parents=True)
        for each in results({"default": 0.8, "random": 0.2, "state": 0.85, "pixels": 0.4}):
            save_result(tmp_path / "mvp", each)
        return 0

    monkeypatch.setattr("embodied.cli.bench.bench", bench)
    assert main(["replicate", "mvp", "roles={supervised: pixels}", "seeds=5", f"root={tmp_path}"]) == 0
    assert asked == {"suite": "mvp", "encoders": ["default"], "seeds": 5}
    record = json.loads((tmp_path / "mvp" / "replicate.json").read_text())
    assert [each["status"] for each in record["verdicts"]] == [SAME, SAME, SAME]
    assert "replicate.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mvpp"], "did you mean mvp"),
        (["mvp", "suite=quick"], "a preset has its own"),
        (["mvp", "encoders=[default]"], "a preset has its own"),
        (["mvp", "roles={supervized: random}"], "did you mean supervised"),
        (["mvp", "roles=random"], "roles must be a group"),
        (["mvp", "seeds=0"], "at least 1"),
        (["mvp", "--fast"], "unknown option"),
        (["mvp", "size=tiny"], "unknown size of mvp"),
        (["rpt", "size=tny"], "did you mean tiny"),
        (["rpt", "size=tiny", "launcher=slrm"], "did you mean slurm"),
    ],
)
def test_mistakes(capsys, arguments, message):
    assert main(["replicate", *arguments]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert message in err
    assert "Traceback" not in err


@pytest.mark.sim
@pytest.mark.parametrize("name", ["mvp", "lfs"])
def test_command_from_its_start_to_its_cells_and_on_again(tmp_path, monkeypatch, capsys, name):
    """Stopped before the first cell has ended, the same command goes on with the plan that it had made."""
    asked = []

    def stopped(folder, plan, cells, **settings):
        asked.append((folder, plan.protocol_hash, [cell.key for cell in cells], settings["retry"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("embodied.cli.bench.run_bench", stopped)
    command = ["replicate", name, "seeds=2", f"root={tmp_path}", "device=cpu", f"cache={tmp_path}", "batch_cells=2"]
    assert main(command) == 130
    told = " ".join(capsys.readouterr().out.split())
    assert f"the same command goes on with what is in {tmp_path / name}" in told
    kept = json.loads((tmp_path / name / "bench.json").read_text())
    monkeypatch.setattr("embodied.cli.bench.make_plan", lambda suite: pytest.fail("it was there"))
    assert main([*command, "retry=true"]) == 130
    assert asked[0][:3] == asked[1][:3]
    assert [retry for *_, retry in asked] == [False, True]
    folder, protocol, keys, _ = asked[0]
    assert (folder, protocol) == (tmp_path / name, kept["protocol_hash"])
    looks = 1 if name == "mvp" else 2
    assert len(keys) == 6 * 2 * looks * 2  # baselines and `default`, tasks, looks, seeds
    assert json.loads((tmp_path / name / "bench.json").read_text()) == kept
