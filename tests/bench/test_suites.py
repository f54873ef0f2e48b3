"""Suites: those of the package, what a user's may say, the cells they make, and the protocol's hash."""

import pytest
import yaml
from tiny_suite import tiny, write_suite

from embodied.bench.plan import Plan, Recipe, differences, load_plan, require_same_protocol, save_plan
from embodied.bench.suite import MANDATORY, check_encoder_name, load_suite, read_suite, suite_names
from embodied.cli.bench_plan import make_plan, override_text
from embodied.core.errors import UsageError, UserError


@pytest.mark.parametrize("name", suite_names())
def test_suites_of_the_package_can_be_read(name):
    suite = load_suite(name)
    assert set(MANDATORY) <= set(suite.baselines)
    assert suite.description
    assert all(set(suite.controllers_of(encoder)) <= set(suite.controllers) for encoder in suite.baselines)


def test_the_suites_that_were_asked_for_are_there():
    asked_for = {"quick", "cortex", "theia", "control", "ood", "pixmc", "kitchen"}
    assert set(suite_names()) == {*asked_for, "heads", "language", "pixmc_curves"}
    assert set(load_suite("heads").controllers) == {"mlp", "act", "diffusion", "flow"}
    assert len(load_suite("cortex").tasks) == 12
    assert load_suite("cortex").controllers["mlp"]["policy.history"] == 3
    assert {task.demos for task in load_suite("control").tasks} == {(5, 10, 25)}
    assert set(load_suite("control").controllers) == {"mlp", "conv"}
    assert len(load_suite("quick").tasks) >= 3


@pytest.mark.sim
def test_quick_makes_a_plan_with_every_setting():
    plan = make_plan(load_suite("quick"))
    cells = plan.cells(["default"], [0, 1, 2])
    assert len({cell.key for cell in cells}) == len(cells)
    looks = {(cell.task, cell.variant) for cell in cells}
    assert len(looks) == 4
    assert {variant for _, variant in looks} == {"static", "varied"}
    assert {cell.controller for cell in cells if cell.encoder == "default"} == {"mlp", "conv"}
    assert {cell.controller for cell in cells if cell.encoder == "state"} == {"mlp"}
    recipe = plan.recipe(cells[0])
    assert recipe.settings["training"]["steps"] == 1000
    assert recipe.settings["training"]["learning_rate"] == 1e-3  # a default of train.yaml
    assert recipe.settings["env"]["horizon"] == 130
    assert recipe.collect["episodes"] == 25


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in suite_names() if name != "quick"])
def test_other_suites_make_plans(name):
    for package in ("dm_control", "gymnasium_robotics", "stable_baselines3"):
        pytest.importorskip(package)
    try:
        plan = make_plan(load_suite(name))
    except UserError as error:
        if "is not installed" in str(error):
            pytest.skip(str(error))
        raise
    assert plan.cells(["default"], [0])


@pytest.mark.sim
def test_shifted_cells_share_the_recipe_of_the_static_one_and_scratch_may_have_its_own():
    plan = make_plan(read_suite(tiny(variants=["static", "shift:light:3"]), name="tiny"))
    by_variant = {cell.variant: cell for cell in plan.cells([], [0]) if cell.encoder == "scratch"}
    assert set(by_variant) == {"static", "shift:light:3"}
    assert plan.recipe(by_variant["static"]) is plan.recipe(by_variant["shift:light:3"])
    steps = {cell.encoder: plan.recipe(cell).settings["training"]["steps"] for cell in plan.cells(["default"], [0])}
    assert steps == {**dict.fromkeys(("state", "proprioception", "pixels", "random", "default"), 20), "scratch": 30}


@pytest.mark.sim
def test_proprioception_has_no_cell_where_the_task_has_none():
    pytest.importorskip("dm_control")
    tasks = [{"env": "dmc", "task": "reacher_easy", "settings": {"env.protocol": "cortex"}}]
    plan = make_plan(read_suite(tiny(tasks=tasks), name="tiny"))
    assert {cell.encoder for cell in plan.cells([], [0])} == set(MANDATORY) - {"proprioception"}


@pytest.mark.sim
def test_the_hash_stands_for_the_protocol_and_nothing_else(tmp_path):
    plan = make_plan(read_suite(tiny(), name="tiny"))
    same = make_plan(read_suite(tiny(seeds=5, description="other words"), name="another"))
    assert same.protocol_hash == plan.protocol_hash
    settings = {**tiny()["settings"], "train.learning_rate": 0.01}
    other = make_plan(read_suite(tiny(settings=settings), name="tiny"))
    assert other.protocol_hash != plan.protocol_hash
    save_plan(plan, tmp_path)
    kept = load_plan(tmp_path)
    assert kept.protocol_hash == plan.protocol_hash
    assert kept.cells(["default"], [0]) == plan.cells(["default"], [0])
    require_same_protocol(kept, same, tmp_path)
    with pytest.raises(UserError, match=r"training\.learning_rate: 0\.001, now 0\.01"):
        require_same_protocol(kept, other, tmp_path)


def pinned_plan(**changes):
    """A plan that depends on nothing but what stands here."""
    training = {"steps": 1000, "learning_rate": 0.001}
    recipe = Recipe(
        kind="imitation",
        settings={
            "env": {"suite": "metaworld", "task": "hammer-v3", "camera": "corner4"},
            "episodes": 20,
            "training": training,
        },
        store="hammer-25-0123",
        collect={"expert": "scripted", "episodes": 25},
        proprioception=True,
    )
    fields = {
        "suite": {"name": "pinned", "description": ""},
        "tasks": [],
        "controllers": ["mlp"],
        "baselines": {},
        "recipes": {"metaworld/hammer-v3/static/mlp": recipe},
        "seeds": {"report": 2_000_000, "selection": 1_000_000, "per_run": 1_000},
        "source": "x",
    }
    return Plan(**{**fields, **changes})


def test_hashes_of_published_results_stay(tmp_path):
    """Computed by the version whose results have format 1: what came later enters only where it is used."""
    assert pinned_plan().protocol_hash == "378364608f0bcace"
    stopping = {"half_width": 0.1, "threshold": None, "confidence": 0.95}
    stopped = pinned_plan(early_stopping=stopping)
    assert stopped.protocol_hash != pinned_plan().protocol_hash
    save_plan(pinned_plan(), tmp_path)
    assert "early_stopping" not in (tmp_path / "bench.json").read_text()  # older versions can read it
    with pytest.raises(UserError, match="early_stopping: new"):
        require_same_protocol(load_plan(tmp_path), stopped, tmp_path)
    save_plan(stopped, tmp_path)
    assert load_plan(tmp_path) == stopped


@pytest.mark.sim
def test_early_stopping_is_of_the_suite_and_its_protocol():
    suite = read_suite(tiny(early_stopping={"half_width": 0.1}), name="tiny")
    plan = make_plan(suite)
    assert plan.early_stopping == {"half_width": 0.1, "threshold": None, "confidence": 0.95}
    plain = make_plan(read_suite(tiny(), name="tiny"))
    assert plain.early_stopping == {}
    assert "early_stopping" not in plain.protocol
    assert plan.recipes == plain.recipes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping": {"half_widht": 0.1}}, "suite mine: unknown setting of early_stopping 'half_widht'"),
        ({"controllers": None}, "suite mine: controllers is missing"),
        ({"task": []}, "unknown entry of suite mine 'task': did you mean tasks"),
        ({"baselines": {"state": "all"}}, "baselines.proprioception is missing: every table has state, "),
        ({"baselines": {**dict.fromkeys(MANDATORY, "all"), "pixel": "all"}}, "did you mean pixels"),
        ({"baselines": {**dict.fromkeys(MANDATORY, "all"), "state": ["mpl"]}}, "did you mean mlp"),
        ({"exceptions": {"default": {"train.steps": 9}}}, "only scratch may have settings of its own"),
        ({"settings": {"encoder": "default"}}, "encoder cannot be set: the cell or the machine decides it"),
        ({"settings": {"seed": 3}}, "seed cannot be set"),
        ({"variants": ["statik"]}, "did you mean static"),
        ({"variants": ["static", "shift:lihgt:3"]}, "did you mean light"),
        ({"variants": ["static", "shift:light:9"]}, "the strength must be 1 to 5"),
        ({"variants": ["shift:light:3"]}, "needs the variant static"),
        ({"demos": ["many"]}, "demos must be whole numbers"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1"),
        ({"tasks": [{"env": "metaworld"}]}, r"tasks\[0\]: task is missing"),
        ({"tasks": [{"env": "metaworld", "task": "a"}] * 2}, "metaworld/a stands there twice"),
    ],
)
def test_mistakes_in_a_suite_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        read_suite(tiny(**changes), name="mine")


@pytest.mark.sim
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"train.step": 9}}, "metaworld/drawer-close-v3/static/mlp: .*did you mean train.step"),
        ({"tasks": [{"env": "metaworld", "task": "drawer-clos-v3"}]}, "did you mean drawer-close-v3"),
        ({"demos": [0]}, "behaviour cloning needs demonstrations"),
        ({"controllers": {"mlp": {"policy": "bcc"}}}, "unknown policy 'bcc'"),
        ({"settings": {"train.steps": "many"}}, "train.steps must be a whole number"),
    ],
)
def test_settings_of_a_suite_are_checked_like_those_of_train(changes, message):
    with pytest.raises(UsageError, match=message):
        make_plan(read_suite(tiny(**changes), name="mine"))


def test_suites_are_found_by_name_or_path(tmp_path):
    assert load_suite(str(write_suite(tmp_path, "mine"))).name == "mine"
    with pytest.raises(UsageError, match="unknown suite 'quik': did you mean quick"):
        load_suite("quik")
    with pytest.raises(UserError, match="there is no such file"):
        load_suite(str(tmp_path / "absent.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not readable YAML"):
        load_suite(str(tmp_path / "bad.yaml"))


def test_encoders_are_named_alike_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert check_encoder_name("path=mine") == check_encoder_name("./mine") == str(tmp_path / "mine")
    assert check_encoder_name("hf:mine") == f"hf:{tmp_path / 'mine'}"
    assert check_encoder_name("hf:facebook/dinov2-base") == "hf:facebook/dinov2-base"
    assert check_encoder_name("pixels") == "pixels"
    with pytest.raises(UsageError, match="did you mean default"):
        check_encoder_name("defalt")


@pytest.mark.parametrize("value", [None, True, 3, 1e-3, "a b", "it's", [1, [2, "x"]], {"a": {"b": None}}, "null"])
def test_values_come_through_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"name={override_text(value)}").value() == value


def test_differences_are_named():
    before, now = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 3}
    assert differences(before, now) == ["a.c: 2, now 4", "d: gone", "e: new"]
    assert differences(before, yaml.safe_load(yaml.safe_dump(before))) == []


@pytest.mark.sim
def test_a_variant_may_be_left_to_some_encoders(tmp_path):
    shift, named = "shift:light:2", {"shift:light:2": ["state", "pixels"]}
    suite = read_suite(tiny(variants=["static", shift], tried_by=named), name="tiny")
    plan, whole = make_plan(suite), make_plan(read_suite(tiny(variants=["static", shift]), name="tiny"))
    cells = plan.cells([], [0])
    shown = {look: {cell.encoder for cell in cells if cell.variant == look} for look in ("static", shift)}
    assert shown == {"static": set(MANDATORY), shift: {"state", "pixels"}}
    assert plan.protocol_hash == whole.protocol_hash
    save_plan(plan, tmp_path)
    assert load_plan(tmp_path).tried_by == named
    with pytest.raises(UsageError, match="did you mean shift:light:2"):
        read_suite(tiny(variants=["static", shift], tried_by={"shift:light:3": ["state"]}), name="tiny")
