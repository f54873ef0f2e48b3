"""What may stand in one table, and what tables say: rankings, failures, missing tasks, a single seed."""

from dataclasses import replace

import numpy as np
import pytest
from bench_results import TASKS, benchmark, failed, result

from embodied.bench.cells import RESULT_FORMAT, read_result
from embodied.bench.statistics.paired import permutation_test
from embodied.bench.suite import MANDATORY
from embodied.bench.tables.build import build_tables
from embodied.bench.tables.checks import check_results, merge_results, version_notes
from embodied.bench.tables.contenders import BASELINES, Column, Contender, column_labels
from embodied.bench.tables.words import headline
from embodied.core.errors import UsageError, UserError


def row(tables, encoder, controller="mlp", scene="static"):
    found = next(each for each in tables.scenes if each.name == scene)
    return next(each for each in found.rows if each.contender == Contender(encoder, controller))


def test_baselines_are_the_suites():
    assert set(BASELINES) == set(MANDATORY)


def test_results_of_a_newer_version_are_refused():
    record = {**result().record(), "format": RESULT_FORMAT + 1}
    with pytest.raises(UserError, match="upgrade embodied"):
        read_result(record)


def test_protocols_do_not_mix():
    mixed = [result(), result(seed=1, protocol="fedcba9876543210", suite="other")]
    with pytest.raises(UserError, match=r"0123456789abcdef.*fedcba9876543210.*different suites"):
        build_tables(mixed)


def test_mixed_protocols_say_what_differs():
    protocols = {
        "0123456789abcdef": {"mlp": {"steps": 2000, "width": 256}, "episodes": 20},
        "fedcba9876543210": {"mlp": {"steps": 4000, "width": 256}, "episodes": 20},
    }
    with pytest.raises(UserError, match=r"differ in mlp.steps \(2000, 4000\)\. "):
        check_results([result(), result(seed=1, protocol="fedcba9876543210")], protocols)
    with pytest.raises(UserError, match="settings were changed between them"):
        check_results([result(), result(seed=1, protocol="fedcba9876543210")])


def test_demonstrations_do_not_mix():
    with pytest.raises(UserError, match=r"hammer-v3 .*same demonstrations"):
        check_results([result(), result("pixels", demos_fingerprint="others")])
    check_results([result(), result("pixels", "assembly-v3"), result("state", demos_fingerprint="")])


def test_a_name_stands_for_one_encoder():
    with pytest.raises(UserError, match="default stands for several weights"):
        check_results([result(), result(seed=1, encoder_fingerprint="trained-again")])
    check_results([result(), result(seed=1, encoder_fingerprint="trained-again")], same_encoders=False)
    check_results([result("random", encoder_fingerprint="a"), result("random", seed=1, encoder_fingerprint="b")])


def test_the_oracle_is_as_wide_as_the_state_of_a_task():
    states = [result("state", encoder_fingerprint="39 wide"), result("state", "assembly-v3", encoder_fingerprint="42")]
    check_results(states)
    merged, notes = merge_results({"a": states[:1], "b": states[1:]})
    assert [each.cell.encoder for each in merged] == ["state", "state"] and not notes
    again = result("state", "assembly-v3", seed=1, encoder_fingerprint="43")
    with pytest.raises(UserError, match="state stands for several weights"):
        check_results([*states, again])
    merged, _ = merge_results({"a": states, "b": [again]})
    assert sorted({each.cell.encoder for each in merged}) == ["state@39 wide", "state@42", "state@43"]


def test_nothing_is_no_table():
    with pytest.raises(UserError, match="no results"):
        build_tables([])


def test_merging_counts_cells_once_and_tells_encoders_apart():
    first = [result(), failed(seed=1)]
    second = [result(rate=0.9, encoder_fingerprint="other-weights"), result("pixels"), result("pixels", seed=1)]
    third = [result("pixels", rate=0.9), failed("pixels", seed=1), result(seed=1)]
    merged, notes = merge_results({"a": first, "b": second, "c": third})
    names = [(each.cell.encoder, each.cell.seed, each.status) for each in merged]
    assert ("default@weights-", 0, "done") in names
    assert ("default@other-we", 0, "done") in names
    assert len([name for name in names if name[0] == "pixels"]) == 2
    assert next(each for each in merged if each.cell.encoder == "pixels" and each.cell.seed == 0).score == 0.5
    assert any("stands for 2 encoders" in note for note in notes)
    assert any(
        "1 cells are in several folders" in note and "in 1 of them the episodes differ" in note for note in notes
    )


def test_merging_hides_no_other_protocol_behind_a_twin():
    with pytest.raises(UserError, match="cannot mix protocols"):
        merge_results({"a": [result()], "b": [result(protocol="fedcba9876543210")]})


def test_a_done_cell_counts_before_a_failed_one():
    merged, _ = merge_results({"a": [failed()], "b": [result()]})
    assert [each.status for each in merged] == ["done"]


def test_versions_and_devices_that_differ_are_told():
    notes = version_notes([result(), result(seed=1, versions={"torch": "2.9"}, device="H200")])
    assert notes == [
        "cells ran under several versions of torch: 2.13.0, 2.9",
        "cells ran on several devices (H200, cpu): their seconds do not compare",
    ]


def test_scenes_stay_apart_and_are_ranked():
    tables = build_tables(benchmark(seeds=3))
    assert [scene.name for scene in tables.scenes] == ["static", "varied"]
    static = tables.scenes[0]
    assert static.baseline == Contender("pixels", "mlp")
    assert static.ranked[0] == Contender("hf:acme/vit-small", "conv")
    oracle = row(tables, "state")
    assert oracle.rank is None
    assert oracle.aggregates["iqm"].value > row(tables, "hf:acme/vit-small", "conv").aggregates["iqm"].value
    assert row(tables, "pixels").versus is None
    assert row(tables, "random").versus.difference < 0
    assert "hf:acme/vit-small / conv leads" in headline(static)
    values = [each.aggregates["iqm"].value for each in static.rows if each.rank]
    assert values == sorted(values, reverse=True)


def test_shifted_scenes_are_a_scene_of_their_own():
    variants = ("static", "shift:light:3", "shift:camera:5")
    tables = build_tables([result(variant=variant, seed=seed) for variant in variants for seed in range(2)])
    assert [scene.name for scene in tables.scenes] == ["static", "shifted"]
    assert list(column_labels(tables.scenes[1].columns).values()) == ["hammer-v3 (camera 5)", "hammer-v3 (light 3)"]


def test_labels_name_what_differs():
    columns = [Column("metaworld", "hammer-v3", "static", 5), Column("dmc", "walker", "static", 25)]
    assert list(column_labels(columns).values()) == ["metaworld hammer-v3 (5 demos)", "dmc walker (25 demos)"]
    assert Contender("/somewhere/runs/mae-1/encoder", "mlp").label == "mae-1/encoder / mlp"
    assert Contender("hf:/somewhere/dinov2-small", "mlp").short == "hf:dinov2-small"


def test_comparison_is_over_common_seeds():
    ours = [result(seed=seed, rate=rate) for seed, rate in enumerate((0.9, 0.6, 0.5))]
    theirs = [result("pixels", seed=seed, rate=rate) for seed, rate in ((1, 0.5), (2, 0.45), (7, 0.9))]
    found = row(build_tables([*ours, *theirs]), "default").versus
    assert (found.pairs, found.difference) == (2, pytest.approx(0.075))
    assert found.p == permutation_test([np.array([0.1, 0.05])])


def test_a_missing_task_takes_the_rank_away_and_is_told():
    results = [each for each in benchmark(seeds=3) if (each.cell.encoder, each.cell.task) != ("default", TASKS[0])]
    tables = build_tables(results)
    lacking = row(tables, "default")
    assert (lacking.rank, lacking.tasks, len(lacking.entries)) == (None, 3, 4)
    assert lacking.aggregates["iqm"].low is not None
    assert lacking.improvement is not None
    assert tables.scenes[0].rows[-1].contender.encoder == "default"


def test_failures_are_kept_and_count_nowhere():
    broken = [failed("hf:broken", task, seed, reason="NaN") for task in TASKS for seed in range(3)]
    results = [*benchmark(seeds=3, variants=("static",)), *broken, failed("default", TASKS[0], 3, reason="killed")]
    tables = build_tables(results)
    assert len(tables.failures) == 13
    gone = row(tables, "hf:broken")
    assert (gone.rank, gone.tasks, gone.aggregates, gone.seed_counts) == (None, 0, {}, (0, 0))
    assert len(gone.failures) == 12
    partly = row(tables, "default")
    assert partly.rank is not None
    assert len(partly.failures) == 1
    assert partly.seed_counts == (3, 3)


def test_who_alone_has_all_tasks_leads_nobody():
    results = [result("pixels", task, seed) for task in TASKS[:2] for seed in range(3)]
    broken = [failed("random", TASKS[0], 0), result("random", TASKS[1], 0), result("random", TASKS[1], 1)]
    told = headline(build_tables([*results, *broken]).scenes[0])
    assert told.startswith("pixels / mlp alone has results on all tasks, with an IQM of 50.0")


def test_nothing_but_failures():
    tables = build_tables([failed("default"), failed("pixels")])
    assert tables.scenes[0].ranked == []
    assert tables.scenes[0].baseline is None
    assert "no ranking" in headline(tables.scenes[0])


def test_a_single_seed_has_no_interval():
    rates = {"default": 0.8, "pixels": 0.6}
    tables = build_tables([result(encoder, task, rate=rate) for encoder, rate in rates.items() for task in TASKS[:2]])
    found = row(tables, "default")
    assert found.aggregates["iqm"].low is None
    assert found.versus.low is None
    assert found.profile.low is None
    entry = next(iter(found.entries.values()))
    assert entry.estimate.low is None
    assert entry.one_policy_interval == pytest.approx((0.584, 0.919), abs=0.001)  # Wilson's of 16 of 20
    assert tables.scenes[0].ranks is None
    assert "fewer than two common seeds" in headline(tables.scenes[0])


def test_nobody_leads_where_the_best_are_level():
    tables = build_tables([result(encoder, task, rate=0.0) for encoder in ("default", "pixels") for task in TASKS])
    assert headline(tables.scenes[0]).startswith("Nobody leads: 2 contenders share the highest IQM, 0.0")


def test_scores_that_are_no_successes():
    episodes = [replace(episode, score=0.7 + 0.001 * episode.steps) for episode in result().episodes]
    one = build_tables([replace(result(), episodes=episodes)])
    entry = next(iter(row(one, "default").entries.values()))
    assert entry.one_policy_interval is None
    assert entry.estimate.value == pytest.approx(0.7 + 0.001 * 109.5)


def test_the_baseline_can_be_chosen():
    results = benchmark(seeds=2, variants=("static",))
    assert build_tables(results, baseline="random/conv").scenes[0].baseline == Contender("random", "conv")
    assert build_tables(results, baseline="random").scenes[0].baseline == Contender("random", "mlp")
    with pytest.raises(UsageError, match="did you mean default"):
        build_tables(results, baseline="defalt")


def test_by_demonstrations():
    tables = build_tables(benchmark(seeds=2, variants=("static",), demos=(5, 25)))
    by_demos = row(tables, "default").by_demos
    assert list(by_demos) == [5, 25]
    assert len(tables.scenes[0].columns) == 8
