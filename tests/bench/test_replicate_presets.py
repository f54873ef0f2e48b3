"""The presets that pre-train first and come with the package: what they name is there, and both arms are alike."""

import pytest

from embodied.bench.plan import Plan
from embodied.bench.replicate import check_replication, load_replication
from embodied.cli.bench_plan import make_plan
from embodied.cli.config import compose_config
from embodied.cli.replicate_jobs import check_jobs
from embodied.cli.replicate_runner import overrides_of
from embodied.cli.settings import collect_options, store_path
from embodied.policies.assembly import assemble, fill_for_sequence
from embodied.policies.necks.registry import load_neck


@pytest.mark.parametrize("name", ["rpt", "hpt", "maskvit", "toto", "gr1"])
@pytest.mark.parametrize("size", [None, "tiny"])
def test_presets_that_come_with_the_package_make_sense(name, size):
    replication = load_replication(name, size=size)
    check_replication(replication)
    assert replication.url.startswith("https://arxiv.org/abs/")
    assert {"state", "proprioception"} <= set(replication.suite.baselines)
    made = replication.pretraining
    exported = {made.encoder(replication.folder, each) for each in made.exports()}
    assert exported == {
        each for suite in replication.suites for each in suite.baselines if each.startswith("/")
    }  # what is pre-trained is benched
    for curve in replication.curves:
        seeds = {len([job for job in replication.pretraining.jobs if job.name == point]) for point in curve.points}
        assert len(seeds) == 1 and seeds.pop() >= 2


@pytest.mark.parametrize("name", ["rpt", "hpt", "maskvit", "toto", "gr1"])
def test_short_jobs_leave_checkpoints(name):
    jobs = load_replication(name).pretraining.jobs
    assert {job.settings["train.checkpoint_every"] for job in jobs} == {100}


@pytest.mark.parametrize("name", ["rpt", "hpt", "maskvit", "toto", "gr1"])
@pytest.mark.parametrize("size", [None, "tiny"])
def test_settings_of_pretrainings_are_those_of_commands(name, size):
    check_jobs(load_replication(name, size=size).pretraining)


def test_a_model_of_what_actions_do_learns_from_executed_ones():
    """With noise the clean action is recorded, not the executed one: right for cloning alone."""
    made = load_replication("maskvit").pretraining
    for name in made.job("model").trained_on:
        options = collect_options(compose_config("collect", overrides_of(made.stores[name])))
        assert (options["expert"], options["noise"], options["only_successes"]) == ("mixed", 0.0, False)


def test_planning_comes_near_a_bound_that_is_one():
    maskvit = load_replication("maskvit")
    (near,) = (claim for claim in maskvit.claims if claim.margin)
    assert (near.than, near.floor) == ("pixels/simulator", "pixels/random")
    assert "decoding.actions_help" in [measure.metric for measure in maskvit.measures]


@pytest.mark.sim
def test_arms_of_toto_differ_in_what_they_see_alone():
    toto = load_replication("toto")
    plan = make_plan(toto.suite)
    read = {"latent": "tokens", "network": {"context": 4}}  # of a sequence encoder
    video, image = (
        fill_for_sequence(plan.recipes[f"metaworld/hammer-v3/static/{arm}"].settings["policy"], encoder)
        for arm, encoder in (("video", read), ("image", None))
    )
    names = ("head", "neck", "feature", "history", "chunk", "execute", "ensemble", "ema")
    first, second = (assemble(**{name: each[name] for name in names}) for each in (video, image))
    assert (first.neck, second.neck) == ("sequence", "attention")
    assert (first.chunk, first.execute) == (second.chunk, second.execute) == (1, 1)
    assert video["neck_options"] == {"readout": "attention", "state_beside": True}  # one query, see AttentionReadout
    assert load_neck("attention")(width=96, **image["neck_options"]).output_dim == 96
    assert {job.seeds for job in toto.pretraining.jobs if job.each_seed} == {toto.suite.seeds} == {5}
    assert 2.0 ** (1 - (2 * toto.suite.seeds - 4)) <= 0.05  # four of the pairs may tie


@pytest.mark.sim
def test_gr1_has_the_cells_that_claims_need_and_no_others():
    pytest.importorskip("wordllama")
    gr1 = load_replication("gr1")
    plan: Plan = make_plan(gr1.suite)
    cells = plan.cells(gr1.encoders, [0])
    scenes = {"static": "static", "with:instructions=heldout": "unseen", "shift:light+table+objects:2": "shifted"}
    assert {cell.variant for cell in cells} == set(scenes)
    needed = {(claim.scene, gr1.contender(row).encoder) for claim in gr1.claims for row in claim.rows}
    assert {(scenes[cell.variant], cell.encoder) for cell in cells} == needed
    assert len(cells) == 4 * (6 + 2 + 2) == len({cell.key for cell in cells})
    assert [claim.family for claim in gr1.claims] == ["full"] * 2 + ["tenth"] * 2 + ["heldout"] * 2
    assert gr1.suite.settings["episodes"] >= 12


@pytest.mark.parametrize("name", ["rpt", "hpt"])
def test_scratch_is_tuned_as_what_was_pretrained(name):
    for suite in load_replication(name).suites:
        tuned, fresh = (dict(suite.controllers[row]) for row in ("finetune", "fresh"))
        assert (tuned["train.warmup_steps"], tuned["train.clip"]) == (50, 1.0)
        assert fresh.pop("policy.neck_options") == {"fresh": True} and fresh == tuned
        assert suite.settings["episodes"] == 24


def test_the_panda_is_unseen_and_scratch_sees_no_more_of_it_than_it_clones():
    made = load_replication("hpt")
    many, suite = made.pretraining.job("many"), made.suites[1]
    stores = made.pretraining.stores
    seen = {(stores[name]["env"], str(stores[name]["task"]).partition("-")[0]) for name in many.trained_on}
    assert len(many.trained_on) == 15 and len({each["embodiment"] for each in many.data}) == 7
    assert not {env for env, _ in seen} & {"kitchen", "robosuite"} and ("pixmc", "franka") not in seen
    assert made.pretraining.job("from_0-0").settings["sequence.trunk"] is None
    sets = [set(made.pretraining.job(f"datasets_{count}-0").trained_on) for count in (1, 3, 7, 15)]
    assert [len(each) for each in sets] == [1, 3, 7, 15] and sets[0] < sets[1] < sets[2] < sets[3]
    for task in suite.tasks:
        store = next(each for each in stores.values() if each["task"] == task.task)
        assert store == {"env": task.env, "task": task.task, "episodes": task.demos[0], **task.settings}
    seeds = {job.name: job.seeds for job in made.pretraining.jobs if job.each_seed}
    assert seeds == {"panda": suite.seeds, "panda_scratch": suite.seeds}
    assert 2 * 2.0 ** (1 - suite.seeds) <= 0.05  # one task may saturate, with both claims corrected


def test_families_are_the_headline_and_the_rest():
    rpt = [claim.family for claim in load_replication("rpt").claims if not claim.margin]
    assert rpt == ["headline"] * 2 + ["ablations"] * 4
    assert {claim.family for claim in load_replication("hpt").claims} == {"headline"}


@pytest.mark.parametrize("store", ["panda_lift", "panda_door"])
def test_demonstrations_of_the_panda_are_the_suites_own_store(store):
    pytest.importorskip("robosuite")
    made = load_replication("hpt")
    settings = made.pretraining.stores[store]
    task = next(each for each in made.suites[1].tasks if each.task == settings["task"])
    collected = store_path(compose_config("collect", overrides_of(settings)), 10)
    layers = {"env": task.env, "task": task.task, "env.visuals": "static", "demos": 10, **task.settings}
    assert collected == store_path(compose_config("train", overrides_of(layers)), 10)
