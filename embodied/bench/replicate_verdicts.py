"""Verdicts on the claims of a replication, from the results of its benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embodied.bench.cells import CellResult
from embodied.bench.replicate import Claim, Replication
from embodied.bench.replicate_curves import Curve, Measured, measure
from embodied.bench.replicate_jobs import JobRecord
from embodied.bench.replicate_measures import Measure, Reading, take
from embodied.bench.statistics.paired import holm
from embodied.bench.tables.contenders import Column, Contender, contender_of
from embodied.bench.tables.duels import Duel, Side, make_duels

ALPHA = 0.05
SAME, OPPOSITE, UNDECIDED, UNTESTED = "same direction", "opposite direction", "undecided", "not tested"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What our results say of a claim; `duel` is None where it was not tested."""

    claim: Claim
    status: str
    reason: str
    better: Contender | None
    than: Contender | None
    duel: Duel | None = None


@dataclass(frozen=True, kw_only=True)
class CurveVerdict:
    """What our pre-trainings say of a curve."""

    curve: Curve
    status: str
    reason: str
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class MeasureVerdict:
    """What looks at our pre-trainings say of a measure."""

    measure: Measure
    status: str
    reason: str
    reading: Reading


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


def judge_curves(replication: Replication, records: Mapping[str, JobRecord]) -> list[CurveVerdict]:
    """A verdict per curve: the same direction when the 95 % interval of its slope lies on the claim's side of zero."""
    return [_decide_curve(curve, measure(curve, records, replication.pretraining)) for curve in replication.curves]


def _decide_curve(curve: Curve, measured: Measured) -> CurveVerdict:
    def verdict(status: str, reason: str) -> CurveVerdict:
        return CurveVerdict(curve=curve, status=status, reason=reason, measured=measured)

    if measured.slope is None:
        lacking = ", ".join(measured.missing)
        return verdict(UNTESTED, f"the points have no seed in common: {lacking} did not end with {curve.metric}")
    if measured.low is None or measured.high is None:
        return verdict(UNDECIDED, "a single seed has no interval: give the jobs more seeds")
    sign = -1 if curve.falls else 1
    ends = (sign * measured.low, sign * measured.high)
    return verdict(*_side(sign * measured.slope, ends, "the slope's interval"))


def judge_measures(replication: Replication, records: Mapping[str, JobRecord]) -> list[MeasureVerdict]:
    """A verdict per measure: the same direction when the 95 % interval of the number lies on the claim's side."""
    return [_decide_measure(each, take(each, records, replication.pretraining)) for each in replication.measures]


def _decide_measure(measure: Measure, reading: Reading) -> MeasureVerdict:
    def verdict(status: str, reason: str) -> MeasureVerdict:
        return MeasureVerdict(measure=measure, status=status, reason=reason, reading=reading)

    if reading.value is None:
        return verdict(UNTESTED, f"{', '.join(reading.missing)} did not end with {measure.metric}")
    if reading.low is None or reading.high is None:
        return verdict(UNDECIDED, "a single seed has no interval: give the job more seeds")
    sign = -1 if measure.above is None else 1
    value, *ends = (sign * (each - measure.bound) for each in (reading.value, reading.low, reading.high))
    return verdict(*_side(value, ends, "the interval"))


def _side(value: float, ends: Sequence[float], interval: str) -> tuple[str, str]:
    """Status and reason of a number that the claim wants above zero, with the ends of its interval in either order."""
    if min(ends) > 0:
        return SAME, f"{interval} lies on the claim's side"
    if max(ends) < 0:
        return OPPOSITE, f"{interval} lies on the other side"
    return UNDECIDED, f"leaning {'towards' if value > 0 else 'against'} the claim, but seeds could turn it"
