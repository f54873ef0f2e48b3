"""From a suite to a plan: every recipe is what `embodied train` would run with the suite's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from embodied.bench.plan import Plan, Recipe, plan_tasks, recipe_key
from embodied.bench.suite import LEARNS_ALONG, Suite, SuiteTask, tries_static
from embodied.cli.config import CONFIG_MODULE, compose_config
from embodied.core.errors import UsageError
from embodied.core.extensions import extension_conf
from embodied.core.files import hash_json
from embodied.core.run_folder import versions

if TYPE_CHECKING:  # both load torch, without which finished benchmarks are shown
    from embodied.bench.phases import AnyExperiment
    from embodied.bench.planning import Planning

PLANNERS = "visual_mpc"  # in conf/policy
BLIND = ("state", "proprioception")  # encoders that read no frames


def source_of(suite: Suite) -> str:
    """Hash of all that a plan is made from: the suite, the defaults of the settings, the versions of packages."""
    return hash_json({"suite": repr(suite), "defaults": _defaults(), "versions": versions()})


def _defaults() -> dict[str, str]:
    folder = files(CONFIG_MODULE)
    own = [found / group for found in extension_conf() for group in ("env", "policy") if (found / group).is_dir()]
    groups = (folder, folder.joinpath("env"), folder.joinpath("policy"), *own)
    return {
        f"{group.name}/{entry.name}": entry.read_text(encoding="utf-8")
        for group in groups
        for entry in group.iterdir()
        if entry.name.endswith(".yaml") and (group != folder or entry.name == "train.yaml")
    }


def make_plan(suite: Suite) -> Plan:
    """Resolve every setting of a suite.

    Raises:
        UsageError: a setting, task, camera or expert does not exist or makes no sense; names the task.
    """
    from embodied.bench.policy_episodes import REPORT_SEEDS, SEEDS_PER_RUN, SELECTION_SEEDS

    check_planners(suite)
    recipes: dict[str, Recipe] = {}
    for task in suite.tasks:
        for variant in (name for name in task.variants if not tries_static(name)):
            for name, controller in suite.controllers.items():
                layers = [suite.settings, controller, task.settings]
                key = recipe_key(task.env, task.task, variant, name)
                recipes[key] = _recipe(key, task, variant, layers)
                extra = suite.exceptions.get(LEARNS_ALONG)
                if extra and name in suite.controllers_of(LEARNS_ALONG):
                    key = recipe_key(task.env, task.task, variant, name, LEARNS_ALONG)
                    recipes[key] = _recipe(key, task, variant, [*layers, extra])
    return Plan(
        suite={"name": suite.name, "description": suite.description},
        tasks=plan_tasks(suite),
        controllers=list(suite.controllers),
        baselines={encoder: list(names) for encoder, names in suite.baselines.items()},
        recipes=recipes,
        seeds={"report": REPORT_SEEDS, "selection": SELECTION_SEEDS, "per_run": SEEDS_PER_RUN},
        early_stopping=suite.early_stopping.record() if suite.early_stopping else {},
        source=source_of(suite),
        tried_by={variant: list(encoders) for variant, encoders in suite.tried_by.items()},
    )


def _recipe(key: str, task: SuiteTask, variant: str, layers: Sequence[Mapping[str, Any]]) -> Recipe:
    from embodied.bench.recipes import recipe_of
    from embodied.bench.reinforcement import AGENTS
    from embodied.cli.cloning_settings import make_experiment
    from embodied.cli.planning_settings import PLANNER
    from embodied.cli.reinforcement_settings import make_reinforcement
    from embodied.cli.settings import collect_options, probe_env

    experiment: AnyExperiment

    demos = max(task.demos)
    settings: dict[str, Any] = {"task": task.task, "env.visuals": variant}
    for layer in layers:
        settings.update(layer)
    overrides = [f"env={task.env}"]
    if "policy" in settings:
        overrides.append(f"policy={settings.pop('policy')}")
    overrides += [f"{name}={override_text(value)}" for name, value in settings.items()]
    overrides += [f"demos={demos}"] if demos else []
    try:
        config = compose_config("train", overrides)
        if config.data is not None:
            raise UsageError("data: a suite collects its demonstrations itself; leave it out")
        agent = str(config.policy._target_).startswith(AGENTS)
        if str(config.policy._target_) == PLANNER:
            experiment = checked_planning(config, demos=demos)
        elif agent:
            experiment = make_reinforcement(config)
        else:
            experiment = make_experiment(config)
            if not demos:
                raise UsageError("demos: behaviour cloning needs demonstrations, got 0")
        collect = {**collect_options(config), "episodes": demos} if experiment.store is not None else {}
        return recipe_of(experiment, collect, proprioception=bool(probe_env(experiment.env).spec_of_task.state))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error


def check_planners(suite: Suite) -> None:
    """A planner looks at frames through an encoder that stays as it is.

    Raises:
        UsageError: a baseline that is none such is to run under one.
    """
    planners = [name for name, settings in suite.controllers.items() if settings.get("policy") == PLANNERS]
    for encoder in (*BLIND, LEARNS_ALONG):
        if named := [name for name in suite.controllers_of(encoder) if name in planners]:
            raise UsageError(
                f"suite {suite.name}: baselines.{encoder}: policy={PLANNERS} sees frames through a frozen encoder, "
                f"which {encoder} is not: leave {named[0]} out there and name it under pixels, whose features "
                "policy.cost=pixels does not read"
            )


def checked_planning(config: DictConfig, *, demos: int) -> Planning:
    """The experiment of a planner whose goals and rewards are those of the suite's own demonstrations.

    Raises:
        UsageError: a setting makes no sense, or data of the user's own are named.
        UserError: the model cannot be loaded, or does not go with the task.
    """
    from embodied.bench.planning import check_planning
    from embodied.cli.planning_settings import make_planning

    experiment = make_planning(config)
    if experiment.given:
        raise UsageError(
            "policy.goal and policy.reward.data: a suite collects its demonstrations itself; leave them out, or give "
            "policy.goal a picture"
        )
    if experiment.store is not None and not demos:
        raise UsageError("demos: goals and the head that reads rewards come of demonstrations, got 0")
    check_planning(experiment)
    return experiment


def override_text(value: Any) -> str:
    """A value in Hydra's grammar.

    Raises:
        UsageError: it has no form there.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {override_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(override_text(each) for each in value) + "]"
    raise UsageError(f"a setting must be a number, a text, a list or a group, got {value!r}")
