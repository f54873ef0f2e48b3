"""Aggregates, profiles, improvement and ranks: rliable's numbers, and what rliable does not cover."""

import time

import numpy as np
import pytest

from embodied.bench.statistics.aggregates import aggregates, iqm, resampled
from embodied.bench.statistics.improvement import probability_of_improvement
from embodied.bench.statistics.intervals import seeds_interval
from embodied.bench.statistics.profiles import performance_profile
from embodied.bench.statistics.ranks import rank_stability
from embodied.core.errors import UsageError

# Two methods, four tasks, five runs of 20 episodes. The numbers below them are what rliable 1.2.0 (with arch 7.2.0,
# scipy 1.17.1, numpy 2.4.6) says of them; its intervals are bootstraps of 50,000 (improvement: 2,000, profile: 20,000).
A = [[0.95, 1.0, 1.0, 0.95, 1.0], [0.6, 0.65, 0.55, 0.7, 0.4], [0.55, 0.3, 0.35, 0.25, 0.15], [0.8, 0.9, 0.5, 0.7, 0.7]]
B = [
    [0.8, 0.7, 0.9, 0.8, 0.85],
    [0.5, 0.5, 0.6, 0.65, 0.85],
    [0.35, 0.3, 0.6, 0.35, 0.05],
    [0.5, 0.45, 0.25, 0.4, 0.65],
]
RLIABLE = {  # value, low, high
    "A": {
        "iqm": (0.665, 0.585, 0.725),
        "mean": (0.65, 0.6025, 0.6975),
        "median": (0.65, 0.575, 0.72),
        "optimality_gap": (0.35, 0.3025, 0.3975),
    },
    "B": {
        "iqm": (0.555, 0.485, 0.63),
        "mean": (0.5525, 0.495, 0.61),
        "median": (0.535, 0.46, 0.615),
        "optimality_gap": (0.4475, 0.39, 0.505),
    },
}
RLIABLE_IMPROVEMENT = (0.71, 0.575, 0.845)
RLIABLE_SHARE = [1.0, 1.0, 0.95, 0.85, 0.75, 0.7, 0.55, 0.35, 0.3, 0.25, 0.0]
RLIABLE_LOW = [1.0, 1.0, 0.85, 0.75, 0.65, 0.55, 0.4, 0.25, 0.25, 0.25, 0.0]
RLIABLE_HIGH = [1.0, 1.0, 1.0, 0.95, 0.85, 0.85, 0.7, 0.45, 0.4, 0.25, 0.0]
RLIABLE_IQM_3X3 = 0.66  # of the first three runs and tasks of A: 9 scores, of which 2 are left out at each end


def arrays(tasks):
    return [np.array(task) for task in tasks]


@pytest.mark.parametrize(("name", "scores"), [("A", A), ("B", B)])
def test_aggregates_equal_rliables(name, scores):
    found = aggregates(arrays(scores), resamples=50_000)
    for aggregate, (value, low, high) in RLIABLE[name].items():
        estimate = found[aggregate]
        assert estimate.value == pytest.approx(value, abs=1e-12)
        # Scores lie on a grid of 1/20, so percentiles jump: twice the width of its image in a mean of ten.
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.0051)


def test_trimming_equals_scipys():
    nine = np.concatenate([task[:3] for task in arrays(A)[:3]])[None]
    assert iqm(nine, [3, 3, 3])[0] == pytest.approx(RLIABLE_IQM_3X3, abs=1e-12)


def test_improvement_equals_rliables():
    found = probability_of_improvement(arrays(A), arrays(B), resamples=20_000)
    assert found.value == pytest.approx(RLIABLE_IMPROVEMENT[0], abs=1e-12)
    assert (found.low, found.high) == pytest.approx(RLIABLE_IMPROVEMENT[1:], abs=0.02)


def test_equal_methods_improve_half_of_the_time():
    assert probability_of_improvement(arrays(A), arrays(A)).value == 0.5
    ones = [np.ones(3)]
    assert probability_of_improvement(ones, ones).value == 0.5
    assert probability_of_improvement([np.array([0.3, 0.4])], [np.array([0.1, 0.2])]).value == 1.0


def test_profile_equals_rliables():
    profile = performance_profile(arrays(A), np.linspace(0, 1, 11), resamples=20_000)
    assert profile.share == pytest.approx(RLIABLE_SHARE, abs=1e-12)
    assert profile.low == pytest.approx(RLIABLE_LOW, abs=0.051)  # one of twenty runs
    assert profile.high == pytest.approx(RLIABLE_HIGH, abs=0.051)


def test_a_missing_run_changes_no_tasks_weight():
    # Two tasks, one with a run less: by hand, weights are 1/4, 1/4 | 1/2, and floor(3/4) = 0 scores are left out.
    assert iqm(np.array([[0.0, 1.0, 0.5]]), [2, 1])[0] == pytest.approx(0.5)
    # 5 + 3 scores: floor(8/4)/8 = a quarter of the weight goes at each end. In order, with weights in 1/30ths:
    # 0 (5), 0.1 (5), 0.2 (3), 0.3 (3), 0.4 (3), 0.6 (5), 0.7 (3), 0.8 (3): kept are 7.5 to 22.5.
    values = np.array([[0.7, 0.2, 0.3, 0.4, 0.8, 0.6, 0.0, 0.1]])
    expected = (2.5 * 0.1 + 3 * 0.2 + 3 * 0.3 + 3 * 0.4 + 3.5 * 0.6) / 15
    assert iqm(values, [5, 3])[0] == pytest.approx(expected)


def test_unequal_and_equal_counts_meet():
    values = np.concatenate(arrays(A))[None]
    doubled = np.concatenate([*arrays(A)[:3], np.tile(arrays(A)[3], 2)])[None]
    assert iqm(doubled, [5, 5, 5, 10])[0] == pytest.approx(iqm(values, [5, 5, 5, 5])[0], abs=0.02)


def test_resampling_stays_within_tasks():
    drawn = resampled([np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0])], resamples=500)
    assert drawn.shape == (500, 5)
    assert set(drawn[:, :2].ravel()) == {1.0, 2.0}
    assert set(drawn[:, 2:].ravel()) == {10.0, 20.0, 30.0}


def test_one_seed_gives_no_interval():
    one = [np.array([0.5]), np.array([0.7])]
    found = aggregates(one)
    assert found["mean"].value == pytest.approx(0.6)
    assert all(estimate.low is None and estimate.high is None for estimate in found.values())
    assert probability_of_improvement(one, one).low is None
    assert performance_profile(one, np.array([0.6])).low is None


def test_nonsense_is_refused():
    for scores in ([], [np.array([])], [np.array([0.1, np.nan])], [np.zeros((2, 2))]):
        with pytest.raises(UsageError, match="scores"):
            aggregates(scores)
    with pytest.raises(UsageError, match="same tasks"):
        probability_of_improvement(arrays(A), arrays(B)[:2])


def test_ranks_of_clear_and_of_equal_methods():
    low, middle, high = ([np.array([base, base + 0.05])] * 2 for base in (0.1, 0.5, 0.9))
    clear = rank_stability([middle, low, high])
    assert clear.order == [2, 0, 1]
    assert clear.whole == 1.0
    assert clear.probabilities.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    equal = rank_stability([middle, middle])
    assert equal.above_next[0] == pytest.approx(0.5, abs=0.05)
    assert equal.probabilities.sum(axis=1) == pytest.approx([1, 1])


def test_luck_that_methods_share_moves_no_rank():
    luck = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    assert rank_stability([[0.52 + luck], [0.5 + luck]]).whole == 1.0
    assert rank_stability([[0.52 + luck], [0.5 + luck[::-1]]]).whole < 0.8


def test_ranks_want_common_seeds():
    with pytest.raises(UsageError, match="common seeds"):
        rank_stability([[np.array([0.1, 0.2])], [np.array([0.1, 0.2, 0.3])]])
    with pytest.raises(UsageError, match="at least two"):
        rank_stability([[np.array([0.1])], [np.array([0.2])]])


def test_interval_of_scores_between_0_and_1():
    """Scores that hardly vary have a narrow interval, which Wilson's would not be; a numpy loop gives the same."""
    random = np.random.default_rng(0)
    runs = [0.7 + 0.02 * random.random(count) for count in (10, 8, 9)]
    mean, low, high = seeds_interval(runs)
    assert high - low < 0.02
    draws = np.random.default_rng(1)
    means = [
        np.mean([draws.choice(runs[run], len(runs[run])).mean() for run in draws.integers(3, size=3)])
        for _ in range(10_000)
    ]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=2e-4)
    assert mean == pytest.approx(np.mean([run.mean() for run in runs]))


def test_interval_of_successes_equals_a_loops():
    runs = [[1.0] * 9 + [0.0] * 11, [1.0] * 15 + [0.0] * 5, [1.0] * 3 + [0.0] * 9]
    draws = np.random.default_rng(1)
    means = [
        np.mean([draws.choice(runs[run], len(runs[run])).mean() for run in draws.integers(3, size=3)])
        for _ in range(10_000)
    ]
    assert seeds_interval(runs)[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_coverage_of_the_stratified_interval():
    """With few seeds a percentile bootstrap is too narrow: what docs and reports say of it is measured here."""
    random, covered = np.random.default_rng(0), {3: 0, 5: 0, 10: 0}
    for seeds in covered:
        for _ in range(300):
            scores = [np.clip(random.normal(base, 0.1, seeds), 0, 1) for base in (0.3, 0.5, 0.6, 0.7)]
            found = aggregates(scores, resamples=500)["mean"]
            covered[seeds] += found.low <= 0.525 <= found.high
    assert 0.80 < covered[3] / 300 < 0.92
    assert 0.86 < covered[5] / 300 < 0.95
    assert 0.90 < covered[10] / 300 < 0.98


def test_fast_enough_for_large_tables():
    scores = [np.random.default_rng(0).random(10) for _ in range(12)]
    start = time.process_time()
    aggregates(scores)
    seeds_interval([np.random.default_rng(0).random(50) for _ in range(5)])
    assert time.process_time() - start < 1.5  # about 0.25 s
