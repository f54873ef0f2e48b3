"""Claims of papers: presets that make sense, and verdicts that say no more than the results do."""

import json

import pytest
from bench_results import result
from scipy import stats

from embodied.bench.replicate import check_replication, load_replication, preset_names, read_replication
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


MINE = {
    **{"paper": "A paper", "url": "https://arxiv.org/abs/1", "theirs": "theirs", "ours": "ours"},
    "claims": [
        {"claim": "One.", "theirs": "yes", "better": "state/mlp", "than": "pixels/mlp"},
        {"claim": "Two.", "theirs": "yes", "better": "state/mlp", "than": "random/mlp"},
        {"claim": "As good.", "theirs": "yes", "better": "pixels/mlp", "than": "random/mlp", "margin": 0.1},
    ],
    "suite": {
        **{"description": "small", "tasks": [{"env": "metaworld", "task": task} for task in TASKS]},
        "controllers": {"mlp": {}},
        "baselines": {name: ["mlp"] for name in ("state", "proprioception", "pixels", "random", "scratch")},
    },
}


def mine(*families):
    """The preset with its claims in these families."""
    claims = [{**claim, "family": name} for claim, name in zip(MINE["claims"], families, strict=True)]
    return read_replication({**MINE, "claims": claims}, name="mine")


def seeded(**rates):
    """Runs of both tasks with these rates by seed."""
    return [
        result(encoder, task, seed, rate=rate)
        for encoder, by_seed in rates.items()
        for task, values in zip(TASKS, by_seed, strict=True)
        for seed, rate in enumerate(values)
    ]


def test_p_is_corrected_within_families_and_a_margin_is_in_none():
    cells = results({"state": 0.9, "pixels": 0.5, "random": 0.5}, seeds=3)  # 6 pairs: p = 2^-5
    alone = judge(mine("a", "b", "a"), cells)
    together = judge(mine("a", "a", "a"), cells)
    assert [verdict.duel.holm_p for verdict in alone] == [2**-5, 2**-5, None]
    assert [verdict.duel.holm_p for verdict in together] == [2**-4, 2**-4, None]
    assert [verdict.status for verdict in alone] == [SAME, SAME, SAME]
    assert [verdict.status for verdict in together] == [UNDECIDED, UNDECIDED, SAME]
    assert "too few pairs that differ (6 of 6)" in together[0].reason


def test_a_task_that_saturates_is_named_for_what_it_takes_away():
    """The five pairs of the other task are too few, however clear they are."""
    cells = seeded(state=([1.0] * 5, [0.9, 0.9, 0.95, 0.9, 1.0]), pixels=([1.0] * 5, [0.2, 0.1, 0.0, 0.2, 0.1]))
    first, second, _ = judge(mine("a", "b", "a"), cells + seeded(random=([0.0] * 5, [0.0] * 5)))
    assert (first.status, first.differing) == (UNDECIDED, 5)
    assert "too few pairs that differ (5 of 10): no test of them could have been significant" in first.reason
    assert second.status == SAME
    equal, *_ = judge(mine("a", "b", "a"), results({"state": 0.5, "pixels": 0.5, "random": 0.1}))
    assert "too few pairs that differ (none)" in equal.reason


def test_intervals_of_verdicts_are_students():
    pixels, random = ([0.5, 0.7, 0.6], [0.2, 0.35, 0.3]), ([0.4, 0.65, 0.5], [0.1, 0.2, 0.3])
    *_, verdict = judge(mine("a", "b", "a"), seeded(pixels=pixels, random=random, state=pixels))
    one, two = ([a - b for a, b in zip(*rates, strict=True)] for rates in zip(pixels, random, strict=True))
    expected = stats.ttest_ind(one, [-each for each in two], equal_var=False).confidence_interval(0.95)
    overall = verdict.duel.overall
    assert (overall.low, overall.high) == pytest.approx((expected.low / 2, expected.high / 2), rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "seeds", "status"), [(0.5, 5, SAME), (0.45, 5, SAME), (0.3, 5, OPPOSITE), (0.5, 2, UNDECIDED)]
)
def test_where_nothing_varies_signs_about_the_margin_decide(rate, seeds, status):
    pixels, random = (([value] * seeds, [value] * seeds) for value in (rate, 0.5))
    *_, verdict = judge(mine("a", "b", "a"), seeded(pixels=pixels, random=random, state=pixels))
    assert verdict.status == status
    assert ("pairs differ by the same" in verdict.reason) == (status != UNDECIDED)


NOTHING, LITTLE, MUCH = [0.0] * 5, [0.1, 0.0, 0.0, 0.0, 0.0], [0.8, 0.7, 0.8, 0.7, 0.8]
NEAR = {"claim": "Near.", "theirs": "yes", "better": "pixels/mlp", "than": "random/mlp", "margin": 0.1}


def floored(**changes):
    """The preset with one claim, about coming near a bound that has to beat a floor."""
    return read_replication({**MINE, "claims": [{**NEAR, "floor": "scratch/mlp", **changes}]}, name="mine")


@pytest.mark.parametrize(
    ("pixels", "bound", "floor", "status", "reason"),
    [
        (NOTHING, NOTHING, NOTHING, UNDECIDED, "the bound itself is no better than scratch / mlp"),
        (NOTHING, LITTLE, NOTHING, UNDECIDED, "the bound itself is no better than scratch / mlp"),
        (NOTHING, MUCH, LITTLE, OPPOSITE, "on the other side"),
        (MUCH, MUCH, LITTLE, SAME, "on the claim's side"),
        (NOTHING, NOTHING, None, UNTESTED, "scratch / mlp was not run"),
    ],
)
def test_near_a_bound_that_does_not_beat_its_floor_says_nothing(pixels, bound, floor, status, reason):
    rows = {"pixels": pixels, "random": bound, **({} if floor is None else {"scratch": floor})}
    (verdict,) = judge(floored(), seeded(**{name: (rates, rates) for name, rates in rows.items()}))
    assert verdict.status == status and reason in verdict.reason


def test_a_floor_is_a_row_of_a_claim_with_a_margin():
    check_replication(floored())
    for wrong, message in (({"floor": "scrach/mlp"}, "did you mean scratch"), ({"margin": 0.0}, "this one has none")):
        with pytest.raises(UsageError, match=message):
            check_replication(floored(**wrong))


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
