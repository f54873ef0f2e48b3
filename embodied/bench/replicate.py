"""Claims of papers, tested again: presets that name claims, what to pre-train for them, and small benchmarks.

A preset is a YAML file in `embodied/conf/replicate/`: `paper`, `url`, `theirs`, `ours`, `roles` (encoders by name),
`claims`, and `suite`, or several `suites` by name. Optional are `pretraining` (see `replicate_jobs`), whose encoders
every suite names with their controllers in `encoders`, and whose runs settings of controllers may name as `job:<name>`;
`curves` and `measures` of them (see `replicate_curves`, `replicate_measures`); and `sizes`: by name, what another size
of the preset has in place of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from embodied.bench.replicate_curves import Curve, read_curve
from embodied.bench.replicate_jobs import Job, Pretraining, read_pretraining, run_path
from embodied.bench.replicate_measures import Measure, read_measure
from embodied.bench.suite import MANDATORY, Suite, check_encoder_name, read_suite
from embodied.bench.tables.contenders import Column, Contender
from embodied.core.errors import UsageError, unknown_name

FOLDER = "replicate"  # in embodied/conf


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Of a paper: `better` has a higher score than `than`, or with a margin is at most so much below it.

    Args:
        claim: in words.
        theirs: what the paper found.
        better, than: `<role, pre-trained encoder or baseline>/<controller>`.
        margin: in [0, 1]; 0 asks for better, more for as good as.
        scene: in which it is tested.
        family: claims of `better` of one name are corrected together.
        floor: as `better`, or None: a claim with a margin is undecided unless `than` beats this, since where nothing
            works everything is near everything.
    """

    claim: str
    theirs: str
    better: str
    than: str
    margin: float = 0.0
    scene: str = "static"
    family: str = "claims"
    floor: str | None = None

    @property
    def rows(self) -> list[str]:
        """All that it names."""
        return [self.better, self.than, *([self.floor] if self.floor else [])]


@dataclass(frozen=True, kw_only=True)
class Replication:
    """A preset: the `suites` are the benchmarks that test the `claims`.

    Args:
        name: of the preset, with its size if it has one.
        paper, url, theirs, ours: in words.
        folder: of everything that it leaves.
        roles: maps names in claims to encoders or None.
        claims: that are tested.
        suites: one or several.
        pretraining: what is pre-trained before.
        curves: of losses of pre-trainings.
        measures: of what looks at pre-trainings found.
    """

    name: str
    paper: str
    url: str
    theirs: str
    ours: str
    folder: Path
    roles: Mapping[str, str | None]
    claims: Sequence[Claim]
    suites: Sequence[Suite] = field(repr=False)
    pretraining: Pretraining = field(default_factory=lambda: Pretraining(stores={}, jobs=[]))
    curves: Sequence[Curve] = ()
    measures: Sequence[Measure] = ()

    @property
    def suite(self) -> Suite:
        """The first benchmark."""
        return self.suites[0]

    @property
    def encoders(self) -> list[str]:
        """To bench under all controllers, beside the baselines and what each suite names itself."""
        chosen = [name for name in self.roles.values() if name is not None and name not in MANDATORY]
        return list(dict.fromkeys(chosen))

    @property
    def names(self) -> list[str]:
        """Of all encoders that a claim may be about."""
        return [*self.roles, *self.pretraining.exports(), *MANDATORY]

    def needed_jobs(self) -> list[Job]:
        """Those without which cells cannot run: whose encoders they see, whose runs they name, and what came before."""
        needed: list[Job] = []
        for job in self.pretraining.jobs:
            seen = {self.pretraining.encoder(self.folder, name) for name in job.exports}
            if any(
                seen & set(suite.baselines) or names_run(suite, run_path(self.folder, job)) for suite in self.suites
            ):
                needed += [each for each in self.pretraining.chain(job) if each not in needed]
        return needed

    def contender(self, text: str) -> Contender | None:
        """The row of the tables that `<name>/<controller>` means; None for a role that nobody has."""
        name, _, controller = text.partition("/")
        if name in self.pretraining.exports():
            return Contender(self.pretraining.encoder(self.folder, name), controller)
        encoder = self.roles.get(name, name)
        return None if encoder is None else Contender(check_encoder_name(encoder), controller)


def names_run(suite: Suite, run: Path) -> list[str]:
    """The controllers whose settings name a file or folder of a run."""
    return [
        name
        for name, settings in suite.controllers.items()
        if any(str(value) == str(run) or str(value).startswith(f"{run}/") for value in settings.values())
    ]


def preset_names() -> dict[str, str]:
    """The presets, each with the first line of its file."""
    folder = files("embodied.conf").joinpath(FOLDER)
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def load_replication(
    name: str, roles: Mapping[str, Any] | None = None, *, size: str | None = None, root: str | Path = "replicate"
) -> Replication:
    """A preset by its name.

    Args:
        name: see `preset_names`.
        roles: encoders for roles of the preset, in place of its own.
        size: one of the preset's `sizes`; None: as it stands.
        root: holds the folder of the replication.

    Raises:
        UsageError: there is no such preset, role or size.
    """
    if name not in preset_names():
        raise unknown_name("paper", name, preset_names())
    text = files("embodied.conf").joinpath(FOLDER, f"{name}.yaml").read_text(encoding="utf-8")
    return read_replication(yaml.safe_load(text), name=name, roles=roles, size=size, root=root)


def read_replication(
    content: Mapping[str, Any],
    *,
    name: str,
    roles: Mapping[str, Any] | None = None,
    size: str | None = None,
    root: str | Path = "replicate",
) -> Replication:
    """A preset from what its YAML holds; arguments and errors as of `load_replication`."""
    sizes = content.get("sizes", {})
    if size is not None:
        if size not in sizes:
            raise unknown_name(f"size of {name}", size, sizes or ["null"])
        content, name = changed(content, sizes[size]), f"{name}-{size}"
    chosen: dict[str, str | None] = dict(content.get("roles") or {})
    for role, encoder in (roles or {}).items():
        if role not in chosen:
            raise unknown_name(f"role of {name}", str(role), chosen or ["none"])
        chosen[role] = None if encoder is None else check_encoder_name(str(encoder))
    pretraining = read_pretraining(content.get("pretraining", {}), where=f"{name}: pretraining")
    folder = Path(root).expanduser() / name
    several = content.get("suites", {})
    suites = [
        _suite(entry, f"{name}-{part}" if several else name, folder, pretraining)
        for part, entry in (several or {"": content["suite"]}).items()
    ]
    return Replication(
        name=name,
        paper=content["paper"],
        url=content["url"],
        theirs=content["theirs"],
        ours=content["ours"],
        folder=folder,
        roles=chosen,
        claims=[Claim(**claim) for claim in content["claims"]],
        suites=suites,
        pretraining=pretraining,
        curves=[read_curve(entry, where=f"{name}: curves") for entry in content.get("curves", [])],
        measures=[read_measure(entry, where=f"{name}: measures") for entry in content.get("measures", [])],
    )


def changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content with some of its entries changed, groups entry by entry; None takes an entry away."""
    found = dict(content)
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = changed(found[key], value)
        else:
            found[key] = value
    return found


def _suite(content: Mapping[str, Any], name: str, folder: Path, pretraining: Pretraining) -> Suite:
    """A suite in which pre-trained encoders stand beside the baselines, each with controllers of its own."""
    rest = {key: value for key, value in content.items() if key != "encoders"}
    named = {}
    for encoder, controllers in (content.get("encoders") or {}).items():
        if encoder not in pretraining.exports():
            raise unknown_name(f"encoder of {name}", str(encoder), pretraining.exports() or ["none"])
        named[pretraining.encoder(folder, encoder)] = controllers
    rest["controllers"] = {
        controller: pretraining.resolved(folder, settings) if isinstance(settings, Mapping) else settings
        for controller, settings in rest["controllers"].items()
    }
    exports = pretraining.exports()
    rest["tried_by"] = {
        variant: [pretraining.encoder(folder, each) if each in exports else each for each in encoders]
        for variant, encoders in (rest.get("tried_by") or {}).items()
    }
    return read_suite({**rest, "baselines": {**(rest.get("baselines") or {}), **named}}, name=name)


def check_replication(replication: Replication) -> None:
    """Claims name encoders, controllers and scenes that are there, curves jobs.

    Raises:
        UsageError: one does not.
    """
    name, suites = replication.name, replication.suites
    looks = {(task.env, task.task, variant) for suite in suites for task in suite.tasks for variant in task.variants}
    scenes = {Column(*look, demos=0).scene for look in looks}
    controllers = list(dict.fromkeys(each for suite in suites for each in suite.controllers))
    for claim in replication.claims:
        if claim.floor and not claim.margin:
            raise UsageError(f"{name}: a floor is for claims with a margin, this one has none: {claim.claim}")
        for text in claim.rows:
            role, _, controller = text.partition("/")
            if role not in replication.names:
                raise unknown_name(f"role in a claim of {name}", role, replication.names)
            if controller not in controllers:
                raise unknown_name(f"controller in a claim of {name}", controller, controllers)
        if claim.scene not in scenes:
            raise UsageError(f"{name}: a claim is about the {claim.scene} scene, which its suite lacks")
    jobs = [job.name for job in replication.pretraining.jobs]
    named = [(job, f"curve {curve.name}") for curve in replication.curves for job in curve.jobs]
    for job, where in [*named, *((measure.job, "measures") for measure in replication.measures)]:
        if job not in jobs:
            raise unknown_name(f"job of {name}, {where}", job, jobs)
