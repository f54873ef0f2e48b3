"""What replications pre-train: presets with stores, jobs, sizes and curves, read, checked, measured and shown."""

import json

import numpy as np
import pytest
from bench_results import result
from scipy import stats

from embodied.bench.replicate import changed, check_replication, read_replication
from embodied.bench.replicate_curves import measure, read_curve
from embodied.bench.replicate_jobs import (
    JobRecord,
    export_places,
    load_records,
    read_pretraining,
    save_record,
)
from embodied.bench.replicate_measures import read_measure
from embodied.bench.replicate_report import verdict_table, write_replication
from embodied.bench.replicate_verdicts import OPPOSITE, SAME, UNDECIDED, UNTESTED, judge, judge_curves, judge_measures
from embodied.bench.suite import owned_by_seed
from embodied.bench.tables.contenders import Contender
from embodied.cli.replicate import check_seeds
from embodied.cli.replicate_jobs import check_looks
from embodied.core.errors import UsageError, UserError

JOBS = {
    "stores": {"demos": {"task": "hammer-v3", "episodes": 3}, "more": {"task": "assembly-v3", "episodes": 3}},
    "data": ["demos"],
    "settings": {"objective": "rpt", "train.steps": 10},
    "jobs": {
        "token": {},
        "long": {"settings": {"train.steps": 99}, "data": ["demos", "more"], "exports": {}, "seeds": 2},
        "next": {
            "settings": {"sequence.trunk": "job:long/trunk.safetensors"},
            "exports": {"a": "encoders/a"},
            "seeds": 2,
        },
    },
}
PRESET = {
    **{"paper": "A paper", "url": "https://arxiv.org/abs/1", "theirs": "theirs", "ours": "ours"},
    "pretraining": JOBS,
    "claims": [{"claim": "It helps.", "theirs": "yes", "better": "token/tuned", "than": "token/fresh"}],
    "curves": [
        {"name": "steps", "claim": "More is lower.", "theirs": "yes", "metric": "holdout_loss", "axis": "steps",
         "points": {"long": 1, "next": 4}},
    ],
    "suite": {
        **{"description": "small", "seeds": 2, "demos": [2], "tasks": [{"env": "metaworld", "task": "hammer-v3"}]},
        "controllers": {"tuned": {"policy.tune": "full"}, "fresh": {}, "mlp": {}},
        "encoders": {"token": ["tuned", "fresh"]},
        "baselines": {"state": ["mlp"], "proprioception": [], "pixels": [], "random": [], "scratch": []},
    },
    "sizes": {"tiny": {"pretraining": {"settings": {"train.steps": 1}, "jobs": {"next": {"seeds": 3}}}, "curves": []}},
}  # fmt: skip


def preset(tmp_path, **changes):
    return read_replication(changed(PRESET, changes), name="mine", root=tmp_path)


def records(values):
    """Of the seeds of each job."""
    return {
        f"{name}-{seed}": JobRecord(key=f"{name}-{seed}", identity="", metrics={"holdout_loss": value}, seconds=1.0)
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
    }


def test_jobs_are_one_per_seed_and_export_the_first(tmp_path):
    made = read_pretraining(JOBS, where="mine")
    assert [job.key for job in made.jobs] == ["token", "long-0", "long-1", "next-0", "next-1"]
    assert made.job("token").settings == {"objective": "rpt", "train.steps": 10}
    assert made.job("long-1").stores == ["demos", "more"] and made.job("long-1").settings["train.steps"] == 99
    assert made.exports() == ["token", "a"]
    assert made.job("next-1").exports == {}
    assert made.before(made.job("next-1")) == made.job("long-1")  # the one of its seed
    assert made.before(made.job("token")) is None


def test_an_identity_is_that_of_all_that_decides():
    def identities(**changes):
        made = read_pretraining(changed(JOBS, changes), where="mine")
        return {job.key: made.identity(job) for job in made.jobs}

    plain = identities()
    assert len(set(plain.values())) == 5
    longer = identities(jobs={"long": {"settings": {"train.steps": 100}}})
    assert [key for key in plain if plain[key] != longer[key]] == ["long-0", "long-1", "next-0", "next-1"]
    other = identities(stores={"more": {"episodes": 4}})
    assert [key for key in plain if plain[key] != other[key]] == ["long-0", "long-1", "next-0", "next-1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ["demoz"]}, "did you mean demos"),
        ({"data": []}, "must be a list of stores"),
        ({"data": [{"embodiment": "a"}]}, "groups with a store"),
        ({"settings": {"objective": None}}, "objective is missing"),
        ({"jobs": {"token": {"seeds": 0}}}, "at least 1"),
        ({"jobs": {"token": {"datas": ["demos"]}}}, "did you mean data"),
        ({"jobs": {"token": {"settings": {"sequence.trunk": "job:lng/x"}}}}, "did you mean long"),
        ({"jobs": {"token": {"settings": {"a": "job:long/x", "b": "job:next/x"}}}}, "one is the most"),
        ({"jobs": {"long": {"exports": {"token": "encoder"}}}}, "two jobs export token"),
        ({"store": {}}, "did you mean stores"),
    ],
)
def test_mistakes_in_jobs(changes, message):
    with pytest.raises(UsageError, match=message):
        read_pretraining(changed(JOBS, changes), where="mine")


def test_a_pretrained_encoder_is_benched_under_its_controllers_and_named_in_claims(tmp_path):
    replication = preset(tmp_path)
    check_replication(replication)
    path = str(tmp_path / "mine" / "pretrained" / "token")
    assert replication.suite.baselines[path] == ("tuned", "fresh")
    assert replication.encoders == []
    assert replication.contender("token/tuned").encoder == path
    with pytest.raises(UsageError, match="did you mean token"):
        preset(tmp_path, suite={"encoders": {"tokens": ["tuned"]}})
    with pytest.raises(UsageError, match="did you mean token"):
        check_replication(preset(tmp_path, claims=[{**PRESET["claims"][0], "better": "tokn/tuned"}]))
    with pytest.raises(UsageError, match="did you mean long"):
        check_replication(preset(tmp_path, curves=[{**PRESET["curves"][0], "points": {"lng": 1, "next": 2}}]))


def test_a_size_changes_what_it_names(tmp_path):
    made = read_replication(PRESET, name="mine", size="tiny", root=tmp_path)
    assert (made.name, made.folder, made.curves) == ("mine-tiny", tmp_path / "mine-tiny", [])
    assert made.pretraining.job("token").settings == {"objective": "rpt", "train.steps": 1}
    assert [job.key for job in made.pretraining.jobs][-3:] == ["next-0", "next-1", "next-2"]
    assert changed({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "d": [4]}) == {"a": {"c": 2}, "d": [4]}


def test_records_are_of_these_settings_or_refused(tmp_path):
    made = read_pretraining(JOBS, where="mine")
    job = made.job("long-1")
    record = JobRecord(key=job.key, identity=made.identity(job), metrics={"loss": 0.5}, seconds=2.0)
    save_record(tmp_path, record)
    assert load_records(tmp_path, made) == {"long-1": record}
    other = read_pretraining(changed(JOBS, {"settings": {"train.clip": 2.0}}), where="mine")
    with pytest.raises(UserError, match="choose another root="):
        load_records(tmp_path, other)
    (tmp_path / "pretraining" / "records" / "long-1.json").write_text("{")
    with pytest.raises(UserError, match="is no record"):
        load_records(tmp_path, made)


def test_a_slope_is_that_of_least_squares_and_its_interval_students(tmp_path):
    replication = preset(tmp_path)
    curve, made = replication.curves[0], replication.pretraining
    found = measure(curve, records({"long": [1.0, 1.2], "next": [0.6, 0.7]}), made)
    slopes = np.array([-0.2, -0.25])  # per doubling: two of them from 1 to 4
    assert found.slope == pytest.approx(slopes.mean())
    assert found.high - found.slope == pytest.approx(stats.t.ppf(0.975, 1) * stats.sem(slopes), rel=1e-4)
    assert found.low == pytest.approx(2 * found.slope - found.high)
    half = measure(curve, records({"long": [1.0, 1.2], "next": [0.6]}), made)
    assert (half.values.shape, half.missing, half.low) == ((2, 1), ["next-1"], None)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"long": [1.0, 1.01], "next": [0.6, 0.61]}, SAME),
        ({"long": [0.6, 0.61], "next": [1.0, 1.01]}, OPPOSITE),
        ({"long": [1.0, 1.2], "next": [0.9, 0.6]}, UNDECIDED),
        ({"long": [1.0], "next": [0.6]}, UNDECIDED),
        ({"long": [1.0]}, UNTESTED),
    ],
)
def test_verdicts_on_curves(tmp_path, values, status):
    (verdict,) = judge_curves(preset(tmp_path), records(values))
    assert verdict.status == status and verdict.reason


def test_a_job_beside_the_points_is_shown_and_has_no_part_in_the_slope(tmp_path):
    curves = [{**PRESET["curves"][0], "beside": "token"}]
    replication = preset(tmp_path, curves=curves)
    check_replication(replication)
    jobs = records({"long": [1.0, 1.01], "next": [0.6, 0.61]})
    jobs["token"] = JobRecord(key="token", identity="", metrics={"holdout_loss": 0.9}, seconds=1.0)
    (verdict,) = judge_curves(replication, jobs)
    assert (verdict.measured.slope, verdict.measured.beside) == (pytest.approx(-0.2), [0.9])
    assert "beside the points, token has 0.9000" in verdict.reason
    page = write_replication(replication, [], 0.0, curves=[verdict], jobs=jobs).read_text()
    assert "<td>token</td>" in page and "0.9000" in page
    with pytest.raises(UsageError, match="did you mean token"):
        check_replication(preset(tmp_path, curves=[{**curves[0], "beside": "tokn"}]))


def test_a_curve_says_which_seeds_it_lacks(tmp_path):
    jobs = records({"long": [1.0, 1.01, 1.02], "next": [0.6, 0.61]})
    replication = preset(tmp_path, pretraining={"jobs": {"long": {"seeds": 3}, "next": {"seeds": 3}}})
    (verdict,) = judge_curves(replication, jobs)
    assert verdict.status == SAME and "without next-2" in verdict.reason


@pytest.mark.parametrize("points", [{"long": 1}, {"long": 1, "next": 1}, {"long": 0, "next": 1}])
def test_curves_that_are_none(points):
    with pytest.raises(UsageError, match="places of two jobs"):
        read_curve({**PRESET["curves"][0], "points": points}, where="mine")
    with pytest.raises(UsageError, match="unexpected keyword"):
        read_curve({**PRESET["curves"][0], "point": points}, where="mine")


def test_encoders_that_differ_by_seed(tmp_path):
    changes = {"token": {"seeds": 3, "each_seed": True}, "long": None, "next": None}
    replication = preset(tmp_path, pretraining={"jobs": changes}, curves=[])
    made, folder = replication.pretraining, tmp_path / "mine"
    spec = str(folder / "pretrained" / "token" / "{seed}")
    assert made.exports() == ["token"] and made.seeds() == 3
    assert list(export_places(folder, made.job("token-2"))) == [folder / "pretrained" / "token" / "2"]
    assert replication.suite.baselines[spec] == ("tuned", "fresh")
    assert replication.contender("token/tuned") == Contender(spec, "tuned")
    assert Contender(spec, "tuned").short == "pretrained/token"
    cell = result(spec, seed=1, rate=0.5, controller="tuned").cell
    assert cell.weights == str(folder / "pretrained" / "token" / "1") and owned_by_seed(cell.encoder)
    check_seeds(replication, [0, 2])
    with pytest.raises(UsageError, match=r"for each seed from 0 to 2, there is none for seed 3"):
        check_seeds(replication, [0, 3])


def test_controllers_and_jobs_name_runs_of_jobs(tmp_path):
    controllers = {"tuned": {"policy.model": "job:long"}, "fresh": {"policy.goal": "job:next/x.png"}}
    suite = preset(tmp_path, suite={"controllers": controllers}).suite
    runs = tmp_path / "mine" / "pretraining"
    assert suite.controllers["tuned"]["policy.model"] == str(runs / "long-0")
    assert suite.controllers["fresh"]["policy.goal"] == str(runs / "next-0" / "x.png")
    made = read_pretraining(JOBS, where="mine")
    settings = made.resolved(tmp_path / "mine", made.job("next-1").settings, seed=1)
    assert settings["sequence.trunk"] == str(runs / "long-1" / "trunk.safetensors")
    with pytest.raises(UsageError, match="did you mean long"):
        preset(tmp_path, suite={"controllers": {"tuned": {"policy.model": "job:lng"}}})


def test_what_cells_need_and_what_all_their_seeds_stand_on(tmp_path):
    """`next` fine-tunes the only `long` with a seed of its own; `other` is for a curve alone."""
    jobs = {
        "long": {"seeds": 1},
        "next": {"each_seed": True, "seeds": 5},
        "other": {"exports": {}},
    }
    controllers = {"tuned": {"policy.model": "job:model/x"}}
    changes = {
        "pretraining": {"jobs": {**jobs, "model": {"exports": {}}}},
        "suite": {"encoders": {"a": ["tuned"]}, "controllers": controllers},
    }
    replication = preset(tmp_path, **changes)
    made = replication.pretraining
    assert {made.before(made.job(f"next-{seed}")).key for seed in range(5)} == {"long"}
    assert {job.key for job in replication.needed_jobs()} == {
        "token", "long", "model", *(f"next-{seed}" for seed in range(5)),
    }  # fmt: skip
    assert (made.shared("token"), made.shared("a"), made.shared("pixels")) == (["token"], ["long"], [])


@pytest.mark.parametrize(("each_seed", "told"), [(False, "of one pre-training of token"), (True, "")])
def test_a_verdict_says_that_it_is_of_one_pretraining(tmp_path, each_seed, told):
    jobs = {"token": {"seeds": 6, "each_seed": True}} if each_seed else {}
    replication = preset(tmp_path, pretraining={"jobs": jobs})
    path = replication.contender("token/tuned").encoder
    cells = [
        result(path, seed=seed, rate=rate, controller=controller)
        for controller, rate in (("tuned", 0.8), ("fresh", 0.2))
        for seed in range(6)
    ]
    (verdict,) = judge(replication, cells)
    assert verdict.status == SAME
    assert told in verdict.reason and ("pre-training" in verdict.reason) == (not each_seed)


MEASURE = {"claim": "It is fast.", "theirs": "yes", "job": "long", "metric": "decoding.times", "unit": "times"}


@pytest.mark.parametrize(
    ("bound", "values", "status"),
    [
        ({"above": 2}, [3.0, 3.1], SAME),
        ({"above": 4}, [3.0, 3.1], OPPOSITE),
        ({"below": 4}, [3.0, 3.1], SAME),
        ({"above": 3}, [2.0, 6.0], UNDECIDED),
        ({"above": 2}, [3.0], UNDECIDED),  # which says nothing of other seeds
        ({"above": 2}, [(3.0, 2.5, 3.5)], SAME),  # but has an interval of its own
        ({"above": 2}, [], UNTESTED),
    ],
)
def test_verdicts_on_measures(tmp_path, bound, values, status):
    replication = preset(tmp_path, measures=[{**MEASURE, **bound, "picture": "plots/a.png"}])
    check_replication(replication)
    names = ("decoding.times", "decoding.times_low", "decoding.times_high")
    jobs = {}
    for seed, value in enumerate(values):
        metrics = dict(zip(names, value if isinstance(value, tuple) else [value], strict=False))
        jobs[f"long-{seed}"] = JobRecord(key=f"long-{seed}", identity="", metrics=metrics, seconds=1.0)
    (verdict,) = measures = judge_measures(replication, jobs)
    assert verdict.status == status and verdict.reason
    page = write_replication(replication, [], 0.0, measures=measures, jobs=jobs).read_text()
    assert "It is fast." in page and ('src="pretraining/long-0/plots/a.png"' in page) == bool(values)
    (record,) = json.loads((tmp_path / "mine" / "replicate.json").read_text())["measures"]
    assert (record["status"], record["metric"], len(record["values"])) == (status, "decoding.times", len(values))
    assert verdict_table(replication, [], [], measures).row_count == 1


def test_measures_and_looks_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="expected one of above and below"):
        read_measure({**MEASURE, "above": 1, "below": 2}, where="mine")
    with pytest.raises(UsageError, match="did you mean long"):
        check_replication(preset(tmp_path, measures=[{**MEASURE, "job": "lng", "above": 1}]))
    for looks, message in (
        ({"decodings": {}}, "did you mean decoding"),
        ({"decoding": {"clip": 1}}, "did you mean clips"),
        ({"depths": {}}, "store is missing"),
    ):
        made = read_pretraining(changed(JOBS, {"jobs": {"token": {"looks": looks}}}), where="mine")
        with pytest.raises(UsageError, match=message):
            check_looks(made)
    with pytest.raises(UsageError, match="did you mean demos"):
        read_pretraining(changed(JOBS, {"jobs": {"token": {"looks": {"depths": {"store": "demoz"}}}}}), where="mine")


def test_page_record_and_picture(tmp_path):
    replication = preset(tmp_path)
    path = replication.contender("token/tuned").encoder
    cells = [
        result(path, seed=seed, rate=rate + 0.05 * (seed % 2), controller=controller)
        for controller, rate in (("tuned", 0.8), ("fresh", 0.2))
        for seed in range(6)
    ]
    verdicts = judge(replication, cells)
    assert [verdict.status for verdict in verdicts] == [SAME]
    jobs = records({"long": [1.0, 1.01], "next": [0.6, 0.61]})
    curves = judge_curves(replication, jobs)
    page = write_replication(replication, verdicts, 60.0, curves=curves, jobs=jobs).read_text()
    assert "More is lower." in page and 'src="plots/steps.png"' in page and "after 4 s of 4 pre-trainings" in page
    assert (tmp_path / "mine" / "plots" / "steps.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "mine" / "replicate.json").read_text())
    assert [each["status"] for each in (*record["verdicts"], *record["curves"])] == [SAME, SAME]
    assert record["curves"][0]["slope"] == pytest.approx(-0.2)
    assert record["pretraining"]["long-0"] == {"seconds": 1.0, "holdout_loss": 1.0}
    assert verdict_table(replication, verdicts, curves).row_count == 2
