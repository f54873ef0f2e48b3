"""What tables say in words: numbers with their intervals, one sentence per scene, how to read it all."""

from __future__ import annotations

from collections.abc import Mapping

from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.statistics.paired import MAXIMUM_SEEDS, Comparison
from embodied.bench.tables.duels import Duel
from embodied.bench.tables.scenes import BenchTables, Row, Scene

ALPHA = 0.05
SETTLED = 0.95  # share of the bootstrap samples from which a rank is called settled

HOW_TO_READ = (
    ("The numbers", "A score is the mean over evaluation episodes, on seeds that nothing was trained or chosen on, of "
     "the final checkpoint: success, or for dm_control the return over 1000. The column best is the best checkpoint "
     "on other episodes, as CortexBench reports; a maximum is too high, so nothing is ranked by it."),
    ("IQM", "The interquartile mean is the mean of the middle half of all runs of all tasks; neither one lucky seed "
     "nor one hopeless task moves it much. Mean and median over tasks, and the optimality gap (how far from 1 on "
     "average) stand beside it."),
    ("Intervals", "The lines are 95 % intervals. Those of a task draw training seeds, then episodes of each; those of "
     "aggregates draw seeds within each task (stratified bootstrap). They speak of other seeds on these tasks and "
     "demonstrations, not of other tasks. With few seeds they are too narrow: in a simulation with four tasks, "
     "intervals of 3, 5 and 10 seeds held the truth in 81, 89 and 91 of 100 cases. Where all runs agree, as at 0 or "
     "100, an aggregate's interval is empty, which is no certainty. A single seed has no interval."),
    ("Better than the baseline", "P(better) is the chance that a run beats a run of the baseline on the same task. "
     "The difference is over common seeds, p is that of the paired permutation test of it, corrected after Holm for "
     "all rows. Seeds needed says about how many seeds per task would tell the two apart in 8 of 10 benchmarks."),
    ("Ranks", "The oracle sees the simulator's state, which no robot has: it shows what is possible and has no rank. "
     "A contender without results on some task has none either. Failed cells are listed with their reasons and "
     "count nowhere: not as zero, and not silently."),
)  # fmt: skip


HOW_TO_READ_EARLY = {
    "Intervals": "Evaluations stop when a sequential test has seen enough, and an interval for a fixed number of "
    "episodes would not hold then. These are 95 % confidence sequences of a beta-binomial mixture, which hold wherever "
    "one stops; those of several runs hold for all of them at once. They speak of these trained policies on other "
    "episodes, not of other training seeds, and they are wide.",
    "Better than the baseline": "P(better) is the chance that a run beats a run of the baseline on the same task. The "
    "difference is over common seeds with the bounds of the confidence sequences, p is that of the paired permutation "
    "test of it, corrected after Holm for all rows.",
}


def how_to_read(*, stops_early: bool) -> list[tuple[str, str]]:
    """Headings and paragraphs; of evaluations that stop early with what their intervals are."""
    changed = HOW_TO_READ_EARLY if stops_early else {}
    return [(name, changed.get(name, text)) for name, text in HOW_TO_READ]


def percent(value: float) -> str:
    """0.873 as 87.3."""
    return f"{100 * value:.1f}"


def with_interval(estimate: Estimate | None) -> str:
    """`62.1 [55.0, 70.3]` in percent; without the bracket where there is no interval."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def rounded_interval(estimate: Estimate) -> str:
    """`62 [55, 70]`: a task's few episodes have no more digits to give."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.0f}"
    return f"{100 * estimate.value:.0f} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def difference_text(comparison: Comparison | None) -> str:
    """`+12.0 [3.1, 20.2]` in percentage points."""
    if comparison is None:
        return ""
    text = f"{100 * comparison.difference:+.1f}"
    if comparison.low is None or comparison.high is None:
        return text
    return f"{text} [{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"


def p_text(p: float | None) -> str:
    """A p value with two digits."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def seeds_needed_text(comparison: Comparison | None) -> str:
    """The estimate of `statistics.paired.seeds_needed`."""
    if comparison is None or comparison.low is None or comparison.bounded:
        return ""
    return f">{MAXIMUM_SEEDS}" if comparison.seeds_needed is None else f"~{comparison.seeds_needed}"


def seed_counts_text(row: Row) -> str:
    """`5`, or `3-5` where tasks differ."""
    fewest, most = row.seed_counts
    return str(most) if fewest == most else f"{fewest}-{most}"


def tasks_text(row: Row) -> str:
    """`4`, or `3 of 4` for who lacks some."""
    return str(row.tasks) if row.tasks == len(row.entries) else f"{row.tasks} of {len(row.entries)}"


def phase_seconds(rows: Mapping[str, float]) -> str:
    """`train 20 s, evaluate 35 s`."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in rows.items())


def duration(seconds: float) -> str:
    """`3 h 20 min`, `4 min`, `12 s`."""
    if seconds >= 5400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def headline(scene: Scene) -> str:
    """One honest sentence or two on who leads a scene, and whether the lead is settled."""
    if not scene.ranked:
        return "No contender has results on all tasks, so there is no ranking."
    rows = {row.contender: row for row in scene.rows}
    first = rows[scene.ranked[0]]
    alone = len(scene.ranked) < 2
    leads = "alone has results on all tasks, with" if alone else "leads with"
    text = f"{first.contender.label} {leads} an IQM of {with_interval(first.aggregates['iqm'])}"
    oracle = next((row for row in scene.rows if row.contender.oracle and row.aggregates), None)
    if oracle is not None:
        text += f"; the oracle has {with_interval(oracle.aggregates['iqm'])}"
    if alone:
        return text + "."
    second = rows[scene.ranked[1]]
    best = first.aggregates["iqm"]
    level = sum(rows[contender].aggregates["iqm"].value == best.value for contender in scene.ranked)
    if level > 1:
        return f"Nobody leads: {level} contenders share the highest IQM, {with_interval(best)}."
    if scene.ranks is None and scene.stops_early:
        return f"{text}. Of evaluations that stop early no seeds are drawn again to see whether the order would hold."
    if scene.ranks is None:
        return f"{text}. With fewer than two common seeds nobody can say whether the order would hold."
    holds = scene.ranks.above_next[0]
    text += f". It stays above {second.contender.label} in {holds:.0%} of resamples: "
    if holds >= SETTLED:
        return text + "a settled lead."
    needed = seeds_needed_text(first.versus_next).lstrip("~").replace(">", "more than ")
    return (
        text + "not a settled one" + (f"; about {needed} seeds per task would tell the two apart." if needed else ".")
    )


def cell_counts(tables: BenchTables) -> str:
    """`118 cells, 2 failed`."""
    failed = len(tables.failures)
    return f"{len(tables.results)} cells" + (f", {failed} failed" if failed else "")


def duel_verdict(duel: Duel) -> str:
    """What a duel says, in a sentence or two."""
    overall = duel.overall
    if overall is None:
        return f"{duel.first} and {duel.second} have no seed of a task in common."
    over = f"over {overall.pairs} pairs of {overall.tasks} tasks"
    p = p_text(duel.holm_p)
    numbers = f"{difference_text(overall)} points {over}, p {'' if p.startswith('<') else '= '}{p}"
    if duel.improvement is not None:
        numbers += f", P({duel.first} better) = {with_interval(duel.improvement)} %"
    if overall.low is None:
        return f"{numbers}. With a single common seed nothing can be said of another one."
    if duel.holm_p is not None and duel.holm_p <= ALPHA:
        better, worse = (duel.first, duel.second) if overall.difference > 0 else (duel.second, duel.first)
        return f"{better} is better than {worse}: {numbers}."
    text = f"The two cannot be told apart: {numbers}."
    if overall.smallest_p > ALPHA:
        text += f" So few pairs cannot give p below {overall.smallest_p:.2g}, whatever the scores."
    needed = seeds_needed_text(overall).lstrip("~").replace(">", "more than ")
    return text + (f" A difference of this size would take about {needed} seeds per task." if needed else "")
