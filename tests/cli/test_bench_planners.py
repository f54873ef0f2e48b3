"""Planners in suites: cells beside others, what is refused, a model that is another one by now."""

import pytest
from tiny_suite import tiny
from video_runs import random_video_run

from embodied.bench.bench_runs import items_of
from embodied.bench.plan import PLANNING, recipe_key
from embodied.bench.planning import Planning
from embodied.bench.recipes import Place, experiment_of
from embodied.bench.session import Session
from embodied.bench.suite import read_suite
from embodied.bench.work_list import CELL
from embodied.cli.bench_plan import make_plan
from embodied.core.errors import UsageError, UserError

PLANNER = {"policy": "visual_mpc", "policy.samples": 2, "policy.iterations": 1, "policy.elites": 1, "policy.horizon": 2}
SIMULATOR = {**PLANNER, "policy.model": "simulator", "policy.cost": "reward", "env.horizon": 4}
BASELINES = {"state": ["mlp"], "proprioception": [], "pixels": ["plan"], "random": [], "scratch": []}
SETTINGS = {**tiny()["settings"], "env.image_size": 24}
del SETTINGS["policy.hidden"]  # not of every policy here


def suite(plan, **changes):
    return tiny(**{"controllers": {"mlp": {}, "plan": plan}, "baselines": BASELINES, "settings": SETTINGS, **changes})


@pytest.mark.sim
@pytest.mark.parametrize(
    ("plan", "changes", "message"),
    [
        (SIMULATOR, {"baselines": {**BASELINES, "state": "all"}}, "baselines.state: policy=visual_mpc sees frames"),
        (SIMULATOR, {"baselines": {**BASELINES, "scratch": "all"}}, "leave plan out there"),
        ({**SIMULATOR, "policy.model": None}, {}, "plans with a world model: write policy.model="),
        ({**SIMULATOR, "policy.plannr": "mppi"}, {}, "did you mean policy.planner"),
        ({**SIMULATOR, "policy.cost": "pixels"}, {"demos": [0], "controllers": {"plan": {}}}, "demos: goals"),
    ],
)
def test_what_makes_no_sense_is_refused(plan, changes, message):
    if "controllers" in changes:
        changes = {**changes, "controllers": {"plan": plan}, "baselines": {**BASELINES, "state": []}}
    with pytest.raises((UsageError, UserError), match=message):
        make_plan(read_suite(suite(plan, **changes), name="mine"))


@pytest.mark.sim
def test_a_plan_knows_the_weights_of_its_model(tmp_path):
    model = random_video_run(tmp_path / "video")
    video = {**PLANNER, "policy.model": str(model), "policy.cost": "tokens"}
    plan = make_plan(read_suite(suite(video, controllers={"mlp": {}, "plan": video, "bound": SIMULATOR}), name="mine"))
    cells = {cell.controller: cell for cell in plan.cells([], [0])}
    assert set(cells) == {"mlp", "plan"}
    recipe = plan.recipe(cells["plan"])
    # Goals are ends of what others learn from.
    assert (recipe.kind, recipe.store) == (PLANNING, plan.recipe(cells["mlp"]).store)
    assert plan.recipes[recipe_key("metaworld", "drawer-close-v3", "static", "bound")].store == ""
    assert [item.team == "" for item in items_of(plan, list(cells.values())) if item.kind == CELL] == [False, True]

    def experiment():
        return experiment_of(recipe, cells["plan"], Place(cache=tmp_path), Session(), record=False)

    assert isinstance(experiment(), Planning) and experiment().demos == 2 and experiment().encoder == "pixels"
    assert experiment().known_model == recipe.settings["policy"]["model_fingerprint"]
    random_video_run(model, seed=1)
    with pytest.raises(UserError, match="has changed since this benchmark began"):
        _ = experiment().known_model
