"""Tables of evaluations that stop early: confidence sequences and nothing that assumes a fixed number of episodes."""

import csv

import numpy as np
import pytest
from bench_results import TASKS, benchmark, early_stopped, failed, result
from rich.console import Console

from embodied.bench.bench_report import write_bench_report
from embodied.bench.statistics.aggregates import iqm
from embodied.bench.statistics.paired import permutation_test
from embodied.bench.statistics.sequential import confidence_sequence, simultaneous_bounds
from embodied.bench.store_costs import StoreCost, load_store_costs, save_store_cost
from embodied.bench.tables.build import build_tables
from embodied.bench.tables.checks import check_results
from embodied.bench.tables.contenders import Contender
from embodied.bench.tables.words import headline, how_to_read, seeds_needed_text
from embodied.core.errors import UserError


def row(tables, encoder, controller="mlp"):
    return next(each for each in tables.scenes[0].rows if each.contender == Contender(encoder, controller))


def two(seeds=3):
    """Two encoders on two tasks; the better one differs by seed."""
    return early_stopped(
        [
            result(encoder, task, seed, rate=rate + 0.1 * seed, episodes=10 + 10 * seed)
            for encoder, rate in (("default", 0.6), ("pixels", 0.2))
            for task in TASKS[:2]
            for seed in range(seeds)
        ]
    )


def test_a_task_has_the_mean_of_bounds_that_hold_at_once():
    entry = next(iter(row(build_tables(two()), "default").entries.values()))
    each = 1 - 0.05 / 3
    bounds = [confidence_sequence(sum(run.episode_scores), len(run.episodes), confidence=each) for run in entry.runs]
    assert entry.estimate.value == pytest.approx(np.mean([0.6, 0.7, 0.8]))
    assert (entry.estimate.low, entry.estimate.high) == pytest.approx(tuple(np.mean(bounds, axis=0)))


def test_a_single_seed_has_that_policys_sequence_and_no_fixed_interval():
    entry = next(iter(row(build_tables(two(seeds=1)), "default").entries.values()))
    assert (entry.estimate.low, entry.estimate.high) == confidence_sequence(6, 10)
    assert entry.one_policy_interval is None


def test_aggregates_lie_between_those_of_the_bounds():
    found = row(build_tables(two()), "default")
    bounds = simultaneous_bounds([run.episode_scores for run in found.runs])
    assert len(bounds) == 6
    low, high = (float(iqm(bounds[None, :, end], [3, 3])[0]) for end in (0, 1))
    assert (found.aggregates["iqm"].low, found.aggregates["iqm"].high) == pytest.approx((low, high))
    gap = found.aggregates["optimality_gap"]
    assert (gap.low, gap.high) == pytest.approx((1 - bounds[:, 1].mean(), 1 - bounds[:, 0].mean()))
    for estimate in found.aggregates.values():
        assert estimate.low <= estimate.value <= estimate.high
    assert (found.profile.low <= found.profile.share).all() and (found.profile.share <= found.profile.high).all()
    assert found.profile.low[0] == found.profile.high[0] == 1.0


def test_comparisons_keep_the_permutation_test_and_bound_the_difference():
    tables = build_tables(two())
    found = row(tables, "default")
    assert found.versus.difference == pytest.approx(0.4)
    assert found.versus.p == permutation_test([np.full(3, 0.4)] * 2)
    assert found.versus.low < 0.4 < found.versus.high
    assert (found.versus.bounded, found.versus.seeds_needed, seeds_needed_text(found.versus)) == (True, None, "")
    assert found.improvement.low <= found.improvement.value <= found.improvement.high
    assert tables.scenes[0].ranks is None
    assert "no seeds are drawn again" in headline(tables.scenes[0])


def test_wider_than_what_a_fixed_number_would_have():
    plain = benchmark(seeds=3, variants=("static",))
    fixed, early = build_tables(plain), build_tables(early_stopped(plain, planned=20))
    for entry in row(early, "default").entries.values():
        other = next(each for column, each in row(fixed, "default").entries.items() if column.task == _task(entry))
        assert entry.estimate.value == pytest.approx(other.estimate.value)
        assert entry.estimate.high - entry.estimate.low > other.estimate.high - other.estimate.low


def _task(entry):
    return entry.runs[0].cell.task


def test_they_are_not_mixed_with_a_fixed_number():
    mixed = [*two(), result("random")]
    with pytest.raises(UserError, match="one table cannot mix protocols"):
        check_results(mixed)
    by_hand = [*two(), result("random", protocol=two()[0].protocol)]
    with pytest.raises(UserError, match=r"may stop early, that of .*random.* has a fixed number of episodes"):
        check_results(by_hand)


def test_report_says_so_everywhere(tmp_path):
    results = [*two(), *early_stopped([failed("random")])]
    report = write_bench_report(tmp_path, results, "early")
    page = report.page.read_text()
    assert "12 of 12 evaluations stopped early by a sequential test (threshold 0.5)" in page
    assert "10 of 60" not in page and "60 of 180 planned episodes" in page
    assert "confidence sequences of a beta-binomial mixture" in page
    assert "intervals of 3, 5 and 10 seeds held the truth" not in page
    with open(tmp_path / "results.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [each["stopped_early"] for each in rows if each["status"] == "done"] == ["True"] * 12
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(report.shown())
        assert "about these trained policies" in " ".join(console.export_text().split())


def test_how_to_read_differs_only_where_it_must():
    plain, early = (dict(how_to_read(stops_early=value)) for value in (False, True))
    assert plain.keys() == early.keys()
    assert {name for name in plain if plain[name] != early[name]} == {"Intervals", "Better than the baseline"}


def test_costs_of_demonstrations_and_processor_time(tmp_path):
    cost = StoreCost(
        store="hammer-25-0", env="metaworld", task="hammer-v3", variant="varied", episodes=25, frames=2000,
        fingerprint="f", seconds=31.0, cpu_seconds=47.0,
    )  # fmt: skip
    save_store_cost(tmp_path, cost)
    again = StoreCost(**{**vars(cost), "seconds": 0.1, "begun_before": True})
    save_store_cost(tmp_path, again)  # the same demonstrations: what they had cost stays
    assert load_store_costs(tmp_path) == [cost]
    results = [result(encoder, cpu_seconds={"train": 11.0, "evaluate": 29.0}) for encoder in ("default", "pixels")]
    page = write_bench_report(tmp_path, results).page.read_text()
    assert "<td>hammer-v3 (varied)</td><td>25</td><td>2000</td><td>31</td><td>47</td>" in page
    assert "processor s" in page and "<td>40</td>" in page
    older = write_bench_report(tmp_path / "older", [result()]).page.read_text()
    assert "processor s" not in older and "Demonstrations</h3>" not in older
    (tmp_path / "stores" / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken.json is damaged .*: delete it"):
        load_store_costs(tmp_path)
