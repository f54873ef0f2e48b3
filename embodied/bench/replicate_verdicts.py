"""Verdicts on the claims of a replication, from the results of its benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embodied.bench.cells import CellResult
from embodied.bench.replicate import Claim, Replication
from embodied.bench.replicate_curves import Curve, Measured, measure
from embodied.bench.replicate_jobs import JobRecord
from embodied.bench.replicate_measures import Measure, Reading, take
from embodied.bench.statistics.paired import Comparison, holm
from embodied.bench.statistics.student import NOTHING, student_interval
from embodied.bench.tables.contenders import Column, Contender, contender_of
from embodied.bench.tables.duels import Duel, Side, make_duels

ALPHA = 0.05
SAME, OPPOSITE, UNDECIDED, UNTESTED = "same direction", "opposite direction", "undecided", "not tested"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What our results say of a claim.

    Args:
        claim: that was tested.
        status, reason: in words.
        better, than: the two rows.
        duel: of them, with Student's interval; None where the claim was not tested.
        differing: pairs that differ.
        smallest_p: that so many could have come to, with the p values of the family as they are; None with a margin.
    """

    claim: Claim
    status: str
    reason: str
    better: Contender | None
    than: Contender | None
    duel: Duel | None = None
    differing: int = 0
    smallest_p: float | None = None


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
    """A verdict per claim, by the paired difference over common seeds and its 95 % interval after Student.

    A claim of `better` has the same direction when the interval lies above zero and the paired test (corrected for the
    claims of its family) agrees; a claim of `as good as`, which has no such test and is in no family, when the interval
    lies above minus the margin. Whether an interval that does not decide leans one way is said in words and called
    undecided. So is a claim with a `floor` that the row which it is held against does not beat: its interval over that
    floor has to lie above zero.
    """
    opened = [_open(replication, claim, results) for claim in replication.claims]
    decided = [_decide(verdict, replication) if verdict.duel else verdict for verdict in _corrected(opened)]
    return [_above_floor(verdict, replication, results) for verdict in decided]


def _above_floor(verdict: Verdict, replication: Replication, results: Sequence[CellResult]) -> Verdict:
    """The verdict, undecided where `than` is not seen to beat the floor."""
    claim = verdict.claim
    if claim.floor is None or verdict.status == UNTESTED:
        return verdict
    premise = _open(replication, replace(claim, better=claim.than, than=claim.floor, margin=0.0), results)
    if premise.duel is None:
        return replace(verdict, status=UNTESTED, reason=f"of its floor: {premise.reason}")
    overall = _overall(premise)
    if overall.low is not None and overall.low > 0:
        return verdict
    assert premise.than is not None, premise
    return replace(verdict, status=UNDECIDED, reason=f"the bound itself is no better than {premise.than.label}")


def _corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """With p values corrected within families, and what each could have come to at best."""
    families: dict[str, list[int]] = defaultdict(list)
    for place, verdict in enumerate(verdicts):
        if verdict.duel is not None and not verdict.claim.margin:
            families[verdict.claim.family].append(place)
    found = list(verdicts)
    for places in families.values():
        p_values = [_overall(verdicts[place]).p for place in places]
        for number, (place, p) in enumerate(zip(places, holm(p_values), strict=True)):
            least = 2.0 ** (1 - verdicts[place].differing)
            best = holm([*p_values[:number], least, *p_values[number + 1 :]])[number]
            duel = verdicts[place].duel
            assert duel is not None, verdicts[place]
            found[place] = replace(verdicts[place], duel=replace(duel, holm_p=p), smallest_p=best)
    return found


def _overall(verdict: Verdict) -> Comparison:
    assert verdict.duel is not None and verdict.duel.overall is not None, verdict
    return verdict.duel.overall


def _duel(verdict: Verdict, results: Sequence[CellResult]) -> Duel | None:
    """Of the two in the claim's scene."""
    sides = []
    for contender in (verdict.better, verdict.than):
        assert contender is not None, verdict
        mine = [result for result in results if contender_of(result) == contender]
        shown = [result for result in mine if Column(*result.cell.group).scene == verdict.claim.scene]
        sides.append(Side(label=contender.label, results=shown))
    return next(iter(make_duels([(sides[0], sides[1])])), None)


def _differences(duel: Duel) -> list[np.ndarray]:
    """Of the scores of common seeds, one array per task."""
    found = []
    for task in duel.tasks:
        first, second = (dict(zip(side.seeds, side.scores, strict=True)) for side in (task.first, task.second))
        if common := sorted(set(first) & set(second)):
            found.append(np.array([first[seed] - second[seed] for seed in common]))
    return found


def _with_student(verdict: Verdict, duel: Duel) -> Verdict:
    """With Student's interval in place of the bootstrap's; confidence sequences stay, which are not about seeds."""
    assert duel.overall is not None, duel
    differences, overall = _differences(duel), duel.overall
    if overall.low is not None and not overall.bounded:
        _, low, high = student_interval(differences)
        overall = replace(overall, low=low, high=high)
    differing = sum(int((abs(task) > NOTHING).sum()) for task in differences)
    return replace(verdict, duel=replace(duel, overall=overall, holm_p=None), differing=differing)


def _decide(verdict: Verdict, replication: Replication) -> Verdict:
    """Status and reason, which names the pre-trainings that all seeds stand on."""
    status, reason = _side_of_claim(verdict)
    shared = [
        key
        for text in (verdict.claim.better, verdict.claim.than)
        for key in replication.pretraining.shared(text.partition("/")[0])
    ]
    if shared:
        reason += f"; all seeds are of one pre-training of {' and '.join(dict.fromkeys(shared))}"
    return replace(verdict, status=status, reason=reason)


def _side_of_claim(verdict: Verdict) -> tuple[str, str]:
    claim, overall, bound = verdict.claim, _overall(verdict), -verdict.claim.margin
    if overall.low is None or overall.high is None:
        return UNDECIDED, "a single seed has no interval: run more seeds"
    holm_p = verdict.duel.holm_p if verdict.duel else None
    # Where nothing varies, the interval is none; signs about the margin are what is left to test.
    alike = overall.high == overall.low
    clear = (overall.smallest_p if alike else 0.0) if claim.margin else holm_p
    told = f"all {overall.pairs} pairs differ by the same, which" if alike else "the interval"
    if overall.low > bound and clear is not None and clear <= ALPHA:
        return SAME, f"{told} lies on the claim's side"
    if overall.high < bound and clear is not None and clear <= ALPHA:
        return OPPOSITE, f"{told} lies on the other side"
    if verdict.smallest_p is not None and verdict.smallest_p > ALPHA:
        few = f"{verdict.differing} of {overall.pairs}" if verdict.differing else "none"
        return UNDECIDED, f"too few pairs that differ ({few}): no test of them could have been significant"
    leaning = "towards" if overall.difference > bound else "against"
    needed = "" if overall.seeds_needed is None or claim.margin else f"; about {overall.seeds_needed} seeds would tell"
    return UNDECIDED, f"leaning {leaning} the claim, but seeds could turn it{needed}"


def _open(replication: Replication, claim: Claim, results: Sequence[CellResult]) -> Verdict:
    """Undecided as yet, with the duel, or not tested for want of an encoder or of common cells."""
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
    verdict = Verdict(claim=claim, status=UNDECIDED, reason="", better=better, than=than)
    duel = _duel(verdict, results)
    if duel is None or duel.overall is None:
        reason = "the two have no task and seed in common: cells failed or were not run"
        return replace(verdict, status=UNTESTED, reason=reason)
    return _with_student(verdict, duel)


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
    status, reason = _side(sign * measured.slope, ends, "the slope's interval")
    if measured.missing:
        reason += f"; of the seeds without {', '.join(measured.missing)}, which did not end with {curve.metric}"
    if measured.beside:
        reason += f"; beside the points, {curve.beside} has {np.mean(measured.beside):.4f}"
    return verdict(status, reason)


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
