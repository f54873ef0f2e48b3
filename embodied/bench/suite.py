"""Suites: what a benchmark runs and under which rules, read from YAML.

A suite's settings are those of `embodied train`, by the same names: nothing can be set in a benchmark that cannot be
tried alone. They depend on the task and the controller, never on the encoder; the one exception is `scratch`, which
learns along and may be given more training, and it stands in the protocol like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from embodied.bench.cells import SEED
from embodied.bench.statistics.sequential import SequentialTest, read_sequential_test
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.encoders.spec import absolute_spec

MANDATORY = ("state", "proprioception", "pixels", "random", "scratch")  # baselines of every table
LEARNS_ALONG = "scratch"
BY_TASK = ("state",)  # encoders that each task has one of: another width, another fingerprint
BY_SEED = ("random", LEARNS_ALONG)  # encoders whose weights belong to the run: another seed, another fingerprint
SHIFT, WITH = "shift:", "with:"  # variants that try the policies of `static` in other episodes
FOLDER = "suite"  # in embodied/conf
# What the cell or the machine decides, and what would make two cells of one encoder differ.
NOT_IN_A_SUITE = (
    "encoder", "seed", "demos", "task", "env", "env.visuals", "evaluate.shift", "evaluate.shift_strength",
    "device", "workers", "root", "run", "cache", "cache_gb", "resume",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SuiteTask:
    """A task of a suite.

    Args:
        env: suite of simulators.
        task: of it.
        variants: `static`, `varied`, `shift:<name>[+<name>]:<strength>`, `with:<option>=<value>[+...]`.
        demos: numbers of demonstrations to learn from, ascending; `(0,)` for reinforcement learning.
        settings: of `embodied train` for this task.
    """

    env: str
    task: str
    variants: tuple[str, ...]
    demos: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark.

    Args:
        name: of its folder and in results.
        description: one line.
        tasks: in the order of tables.
        controllers: name -> settings of `embodied train` (`policy: bc`, `policy.head: mlp`).
        baselines: encoder -> names of the controllers it runs under.
        settings: of `embodied train` for all cells.
        exceptions: `scratch` -> settings for it alone.
        seeds: training seeds where a command names none.
        early_stopping: of the reported episodes; None: as many as the settings say.
        tried_by: variant that `tries_static` -> the encoders that have cells of it; all of them under others.
    """

    name: str
    description: str
    tasks: tuple[SuiteTask, ...]
    controllers: Mapping[str, Mapping[str, Any]]
    baselines: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: int = 3
    early_stopping: SequentialTest | None = None
    tried_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def controllers_of(self, encoder: str) -> tuple[str, ...]:
        """The controllers that an encoder runs under: all of them, but for baselines that are no encoders of grids."""
        return self.baselines.get(encoder, tuple(self.controllers))


def suite_names() -> list[str]:
    """The suites that come with the package."""
    entries = files("embodied.conf").joinpath(FOLDER).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def load_suite(spec: str) -> Suite:
    """A suite by its name or by the path of its file.

    Raises:
        UsageError: there is none of that name, or it makes no sense.
        UserError: the file is missing or no YAML.
    """
    if spec in suite_names():
        text = files("embodied.conf").joinpath(FOLDER, f"{spec}.yaml").read_text(encoding="utf-8")
        return read_suite(yaml.safe_load(text), name=spec)
    if "/" not in spec and not spec.endswith((".yaml", ".yml")):
        raise unknown_name("suite", spec, suite_names())
    path = Path(spec).expanduser()
    if not path.is_file():
        raise UserError(f"no suite at {path}: there is no such file; embodied list suites shows those of the package")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML: {str(error).splitlines()[0]}") from error
    return read_suite(content, name=path.stem)


def read_suite(content: Any, *, name: str) -> Suite:
    """A suite from what its YAML holds.

    Raises:
        UsageError: an entry is missing, unknown or makes no sense; says which.
    """
    where = f"suite {name}"
    fields = _group(content, where, known=("description", "tasks", "controllers", "baselines", "settings", "exceptions",
                                           "variants", "demos", "seeds", "early_stopping", "tried_by"))  # fmt: skip
    for required in ("description", "tasks", "controllers", "baselines"):
        if not fields.get(required):
            raise UsageError(f"{where}: {required} is missing")
    controllers = {
        str(key): _settings(value, f"{where}: controllers.{key}") for key, value in fields["controllers"].items()
    }
    exceptions = {
        str(key): _settings(value, f"{where}: exceptions.{key}")
        for key, value in (fields.get("exceptions") or {}).items()
    }
    if others := sorted(set(exceptions) - {LEARNS_ALONG}):
        raise UsageError(
            f"{where}: exceptions.{others[0]}: only {LEARNS_ALONG} may have settings of its own; an encoder with its "
            "own would not be compared with the others"
        )
    seeds = fields.get("seeds", 3)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UsageError(f"{where}: seeds must be a whole number of at least 1, got {seeds!r}")
    entries = enumerate(_list(fields["tasks"]))
    tasks = tuple(_task(entry, fields, f"{where}: tasks[{number}]") for number, entry in entries)
    names = [f"{task.env}/{task.task}" for task in tasks]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise UsageError(f"{where}: tasks: {twice[0]} stands there twice, and its cells could not be told apart")
    return Suite(
        name=name,
        description=str(fields["description"]),
        tasks=tasks,
        controllers=controllers,
        baselines=_baselines(fields["baselines"], controllers, where),
        settings=_settings(fields.get("settings") or {}, f"{where}: settings"),
        exceptions=exceptions,
        seeds=seeds,
        early_stopping=_early_stopping(fields.get("early_stopping"), where),
        tried_by=_tried_by(fields.get("tried_by") or {}, tasks, f"{where}: tried_by"),
    )


def _early_stopping(settings: Any, where: str) -> SequentialTest | None:
    try:
        return read_sequential_test(settings)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def check_encoder_name(spec: str) -> str:
    """An encoder as cells name it; folders and files become absolute, since a cell may run elsewhere.

    Raises:
        UsageError: see `encoders.spec.absolute_spec`.
    """
    return absolute_spec(spec.removeprefix("path="))


def owned_by_seed(encoder: str) -> bool:
    """Whether each seed has weights of its own under this name."""
    return encoder in BY_SEED or SEED in encoder


def owned_by_task(encoder: str) -> bool:
    """Whether each task has an encoder of its own under this name: the oracle is as wide as the simulator's state."""
    return encoder in BY_TASK


def tries_static(variant: str) -> bool:
    """Whether its cells try the policies of the static ones in episodes of another kind, and train none."""
    return variant.startswith((SHIFT, WITH))


def options_of(variant: str) -> dict[str, Any]:
    """Options of the reported episodes under a variant that `tries_static`; empty for others.

    `shift:light:3` is `shift` and `shift_strength`; `with:instructions=heldout+chain=5` are options of the environment,
    whole numbers where they look like one.
    """
    if variant.startswith(SHIFT):
        name, _, strength = variant.removeprefix(SHIFT).rpartition(":")
        return {"shift": name, "shift_strength": int(strength)}
    if not variant.startswith(WITH):
        return {}
    pairs = (entry.partition("=") for entry in variant.removeprefix(WITH).split("+"))
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def _baselines(content: Any, controllers: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{where}: baselines must be a group, 'encoder: [controllers]' or 'encoder: all'")
    named = {check_encoder_name(str(encoder)): chosen for encoder, chosen in content.items()}
    missing = [encoder for encoder in MANDATORY if encoder not in named]
    if missing:
        raise UsageError(f"{where}: baselines.{missing[0]} is missing: every table has {', '.join(MANDATORY)}")
    found = {}
    for encoder, chosen in named.items():
        found[encoder] = tuple(controllers) if chosen == "all" else tuple(str(name) for name in _list(chosen))
        for name in found[encoder]:
            if name not in controllers:
                raise unknown_name(f"controller of {where}, baselines.{encoder}", name, controllers)
    return found


def _tried_by(content: Any, tasks: Sequence[SuiteTask], where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} must be a group, 'variant: [encoders]', got {content!r}")
    known = sorted({variant for task in tasks for variant in task.variants if tries_static(variant)})
    for variant in content:
        if variant not in known:
            raise unknown_name(f"variant of {where} that tries policies of static", str(variant), known or ["none"])
    return {
        str(variant): tuple(check_encoder_name(str(encoder)) for encoder in _list(named))
        for variant, named in content.items()
    }


def _task(entry: Any, suite: Mapping[str, Any], where: str) -> SuiteTask:
    fields = _group(entry, where, known=("env", "task", "variants", "demos", "settings"))
    for required in ("env", "task"):
        if not fields.get(required):
            raise UsageError(f"{where}: {required} is missing")
    variants = tuple(str(name) for name in _list(fields.get("variants", suite.get("variants", ["static"]))))
    for variant in variants:
        _check_variant(variant, variants, where, env=str(fields["env"]))
    demos = tuple(sorted(set(_list(fields.get("demos", suite.get("demos", [25]))))))
    if not demos or not all(isinstance(number, int) and number >= 0 for number in demos):
        raise UsageError(f"{where}: demos must be whole numbers, got {list(demos)}")
    return SuiteTask(
        env=str(fields["env"]),
        task=str(fields["task"]),
        variants=variants,
        demos=demos,
        settings=_settings(fields.get("settings") or {}, f"{where}: settings"),
    )


def _check_variant(variant: str, variants: Sequence[str], where: str, *, env: str) -> None:
    if variant in ("static", "varied"):
        return
    if not tries_static(variant):
        known = ["static", "varied", "shift:<name>:<strength>", "with:<option>=<value>"]
        raise unknown_name(f"variant in {where}", variant, known)
    if "static" not in variants:
        raise UsageError(f"{where}: {variant} needs the variant static, whose policies it tries")
    if variant.startswith(WITH):
        from embodied.envs.registry import load_suite as load_simulators

        for entry in variant.removeprefix(WITH).split("+"):
            name, _, value = entry.partition("=")
            if not value:
                raise UsageError(f"{where}: {variant}: expected options as in with:instructions=heldout, got {entry!r}")
            if name not in load_simulators(env).options:
                raise unknown_name(f"option of {env} in {where}, {variant}", name, load_simulators(env).options)
        return
    from embodied.envs.visuals.draw import ALL, SHIFTS  # where it is needed: it loads the simulator

    names, _, strength = variant.removeprefix(SHIFT).rpartition(":")
    for name in names.split("+"):
        if name not in (*SHIFTS, ALL):
            raise unknown_name(f"shift in {where}, {variant}", name, (*SHIFTS, ALL))
    if strength not in ("1", "2", "3", "4", "5"):
        raise UsageError(f"{where}: {variant}: the strength must be 1 to 5, as in shift:{names}:3")


def _settings(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} must be settings of embodied train, 'name: value', got {content!r}")
    found = {str(key): value for key, value in content.items()}
    for name in found:
        if name in NOT_IN_A_SUITE:
            raise UsageError(f"{where}: {name} cannot be set: the cell or the machine decides it")
    return found


def _group(content: Any, where: str, *, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} must be a group of settings, got {content!r}")
    for key in content:
        if str(key) not in known:
            raise unknown_name(f"entry of {where}", str(key), known)
    return {str(key): value for key, value in content.items()}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
