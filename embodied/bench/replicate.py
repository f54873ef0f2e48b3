"""Claims of papers, tested again: presets that name a claim and a small benchmark, and verdicts on its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import yaml

from embodied.bench.cells import CellResult
from embodied.bench.statistics.paired import holm
from embodied.bench.suite import MANDATORY, Suite, check_encoder_name, read_suite
from embodied.bench.tables.contenders import Column, Contender, contender_of
from embodied.bench.tables.duels import Duel, Side, make_duels
from embodied.core.errors import UsageError, unknown_name

FOLDER = "replicate"  # in embodied/conf
ALPHA = 0.05
SAME, OPPOSITE, UNDECIDED, UNTESTED = "same direction", "opposite direction", "undecided", "not tested"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Of a paper: `better` has a higher score than `than`, or with a margin is at most so much below it.

    Args:
        claim: in words.
        theirs: what the paper found.
        better, than: `<role or baseline>/<controller>`.
        margin: in [0, 1]; 0 asks for better, more for as good as.
        scene: in which it is tested.
    """

    claim: str
    theirs: str
    better: str
    than: str
    margin: float = 0.0
    scene: str = "static"


@dataclass(frozen=True, kw_only=True)
class Replication:
    """A preset: `suite` is the benchmark that tests the `claims`; `roles` maps names in claims to encoders or None."""

    name: str
    paper: str
    url: str
    theirs: str
    ours: str
    roles: Mapping[str, str | None]
    claims: Sequence[Claim]
    suite: Suite = field(repr=False)

    @property
    def encoders(self) -> list[str]:
        """To bench, beside the baselines."""
        chosen = [name for name in self.roles.values() if name is not None and name not in MANDATORY]
        return list(dict.fromkeys(chosen))

    def contender(self, text: str) -> Contender | None:
        """The row of the tables that `<role>/<controller>` means; None for a role that nobody has."""
        role, _, controller = text.partition("/")
        encoder = self.roles.get(role, role)
        return None if encoder is None else Contender(check_encoder_name(encoder), controller)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What our results say of a claim; `duel` is None where it was not tested."""

    claim: Claim
    status: str
    reason: str
    better: Contender | None
    than: Contender | None
    duel: Duel | None = None


def preset_names() -> dict[str, str]:
    """The presets, each with the first line of its file."""
    folder = files("embodied.conf").joinpath(FOLDER)
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def load_replication(name: str, roles: Mapping[str, Any] | None = None) -> Replication:
    """A preset by its name.

    Args:
        name: see `preset_names`.
        roles: encoders for roles of the preset, in place of its own.

    Raises:
        UsageError: there is no such preset or role.
    """
    if name not in preset_names():
        raise unknown_name("paper", name, preset_names())
    text = files("embodied.conf").joinpath(FOLDER, f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    chosen: dict[str, str | None] = dict(content["roles"])
    for role, encoder in (roles or {}).items():
        if role not in chosen:
            raise unknown_name(f"role of {name}", str(role), chosen)
        chosen[role] = None if encoder is None else check_encoder_name(str(encoder))
    return Replication(
        name=name,
        paper=content["paper"],
        url=content["url"],
        theirs=content["theirs"],
        ours=content["ours"],
        roles=chosen,
        claims=[Claim(**claim) for claim in content["claims"]],
        suite=read_suite(content["suite"], name=name),
    )


def check_replication(replication: Replication) -> None:
    """Claims name roles, baselines, controllers and scenes that are there.

    Raises:
        UsageError: one does not.
    """
    suite = replication.suite
    scenes = {"shifted" if name.startswith("shift:") else name for task in suite.tasks for name in task.variants}
    for claim in replication.claims:
        for text in (claim.better, claim.than):
            role, _, controller = text.partition("/")
            if role not in (*replication.roles, *MANDATORY):
                raise unknown_name(f"role in a claim of {replication.name}", role, [*replication.roles, *MANDATORY])
            if controller not in suite.controllers:
                raise unknown_name(f"controller in a claim of {replication.name}", controller, suite.controllers)
        if claim.scene not in scenes:
            raise UsageError(f"{replication.name}: a claim is about the {claim.scene} scene, which its suite lacks")


def judge(replication: Replication, results: Sequence[CellResult]) -> list[Verdict]:
    """A verdict per claim, by the paired difference over common seeds and its 95 % interval.

    A claim of `better` has the same direction when the interval lies above zero and the paired test (corrected for the
    claims of the preset) agrees; a claim of `as good as` when the interval lies above minus the margin. Whether an
    interval that does not decide leans one way is said in words and called undecided.
    """
    opened = [_open(replication, claim, results) for claim in replication.claims]
    duels = [_duel(verdict, results) if verdict.status == UNDECIDED else None for verdict in opened]
    tested = [duel.overall.p for duel in duels if duel is not None and duel.overall is not None]
    corrected = iter(holm(tested))
    verdicts = []
    for verdict, duel in zip(opened, duels, strict=True):
        if verdict.status != UNDECIDED:
            verdicts.append(verdict)
        elif duel is None or duel.overall is None:
            reason = "the two have no task and seed in common: cells failed or were not run"
            verdicts.append(replace(verdict, status=UNTESTED, reason=reason))
        else:
            verdicts.append(_decide(replace(verdict, duel=replace(duel, holm_p=next(corrected)))))
    return verdicts


def _duel(verdict: Verdict, results: Sequence[CellResult]) -> Duel | None:
    """Of the two in the claim's scene."""
    sides = []
    for contender in (verdict.better, verdict.than):
        assert contender is not None, verdict
        mine = [result for result in results if contender_of(result) == contender]
        shown = [result for result in mine if Column(*result.cell.group).scene == verdict.claim.scene]
        sides.append(Side(label=contender.label, results=shown))
    return next(iter(make_duels([(sides[0], sides[1])])), None)


def _decide(verdict: Verdict) -> Verdict:
    claim, duel = verdict.claim, verdict.duel
    assert duel is not None and duel.overall is not None, verdict
    overall = duel.overall
    if overall.low is None or overall.high is None:
        return replace(verdict, reason="a single seed has no interval: run more seeds")
    clear = claim.margin > 0 or (duel.holm_p is not None and duel.holm_p <= ALPHA)
    if overall.low > -claim.margin and clear:
        return replace(verdict, status=SAME, reason="the interval lies on the claim's side")
    if overall.high < -claim.margin and clear:
        return replace(verdict, status=OPPOSITE, reason="the interval lies on the other side")
    leaning = "towards" if overall.difference > -claim.margin else "against"
    needed = "" if overall.seeds_needed is None or claim.margin else f"; about {overall.seeds_needed} seeds would tell"
    return replace(verdict, reason=f"leaning {leaning} the claim, but seeds could turn it{needed}")


def _open(replication: Replication, claim: Claim, results: Sequence[CellResult]) -> Verdict:
    """Undecided as yet, or not tested for want of an encoder."""
    better, than = replication.contender(claim.better), replication.contender(claim.than)
    present = {contender_of(result) for result in results}
    for text, found in ((claim.better, better), (claim.than, than)):
        role = text.partition("/")[0]
        if found is None:
            reason = f"no {role} encoder comes with this package: roles='{{{role}: hf:...}}' names one"
            return Verdict(claim=claim, status=UNTESTED, reason=reason, better=better, than=than)
        if found not in present:
            reason = f"{found.label} was not run"
            return Verdict(claim=claim, status=UNTESTED, reason=reason, better=better, than=than)
    return Verdict(claim=claim, status=UNDECIDED, reason="", better=better, than=than)
