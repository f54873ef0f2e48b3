"""Confidence sequences: their formula, their coverage wherever one stops, and the test that ends an evaluation."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import betainc
from scipy.stats import beta, binom

from embodied.bench.statistics import sequential
from embodied.bench.statistics.intervals import wilson_interval
from embodied.bench.statistics.sequential import (
    SequentialTest,
    confidence_sequence,
    log_mixture,
    read_sequential_test,
    simultaneous_bounds,
)
from embodied.core.errors import UsageError


@pytest.mark.parametrize(("total", "episodes", "mean"), [(3, 10, 0.6), (0, 7, 0.2), (25, 25, 0.9), (4.75, 12, 0.5)])
def test_the_mixture_is_the_integral_over_all_rates(total, episodes, mean):
    """By numerical integration of the likelihood ratio over the Jeffreys prior."""

    def ratio(rate):
        return (rate / mean) ** total * ((1 - rate) / (1 - mean)) ** (episodes - total) * beta.pdf(rate, 0.5, 0.5)

    expected, _ = quad(ratio, 0, 1, limit=200)
    assert np.exp(log_mixture(mean, total, episodes)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("total", "episodes"), [(0, 5), (3, 10), (40, 50), (50, 50)])
def test_with_a_uniform_prior_it_is_robbins_interval(total, episodes, monkeypatch):
    """Robbins 1970: {p: (n + 1) P(Binomial(n, p) = S) > alpha}."""
    monkeypatch.setattr(sequential, "PRIOR", 1.0)

    def excess(rate):
        return (episodes + 1) * binom.pmf(total, episodes, rate) - 0.05

    rate = total / episodes
    low = 0.0 if total == 0 else brentq(excess, 1e-12, rate)
    high = 1.0 if total == episodes else brentq(excess, rate, 1 - 1e-12)
    assert confidence_sequence(total, episodes) == pytest.approx((low, high), abs=1e-9)


def test_it_is_wider_than_an_interval_for_a_fixed_number_and_shrinks():
    for total, episodes in ((0, 20), (10, 20), (30, 100)):
        fixed, found = wilson_interval(total, episodes), confidence_sequence(total, episodes)
        assert found[1] - found[0] > fixed[1] - fixed[0]
    widths = [np.diff(confidence_sequence(count / 2, count))[0] for count in (10, 40, 160, 640)]
    assert widths == sorted(widths, reverse=True)
    assert confidence_sequence(0, 0) == (0.0, 1.0)


def ever_outside(rows, mean):
    """Share of the rows [R, N] of scores whose sequence leaves `mean` out at some number of episodes."""
    totals = np.cumsum(rows, axis=1)
    left_out = [
        [log_mixture(mean, float(total), number) >= np.log(20) for number, total in enumerate(row, 1)] for row in totals
    ]
    return np.any(left_out, axis=1).mean()


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
def test_the_truth_is_inside_at_all_numbers_of_episodes_at_once(mean):
    rows = np.random.default_rng(7).random((1500, 150)) < mean
    assert ever_outside(rows.astype(float), mean) <= 0.05 + 0.012  # 0.05 and two standard errors


@pytest.mark.parametrize("shape", [(2.0, 2.0), (0.3, 0.9)])
def test_scores_that_are_no_successes_are_covered_too(shape):
    rows = np.random.default_rng(3).beta(*shape, (400, 150))
    assert ever_outside(rows, shape[0] / sum(shape)) <= 0.05
    assert betainc(*shape, 1.0) == 1.0  # they are scores in [0, 1]


def stopped(test, rows):
    """Each row up to where the test stops."""
    for row in rows:
        scores = [float(value) for value in row]
        count = next((n for n in range(1, len(scores) + 1) if test.enough(scores[:n])), len(scores))
        yield scores[:count]


def test_the_interval_holds_where_the_test_stops_and_a_fixed_one_does_not():
    """Stopping as soon as the score looks different from 0.5 is where a fixed interval is fooled."""
    rows = np.random.default_rng(11).random((200, 100)) < 0.5
    found = list(stopped(SequentialTest(threshold=0.5), rows))
    intervals = [confidence_sequence(sum(scores), len(scores)) for scores in found]
    assert np.mean([low <= 0.5 <= high for low, high in intervals]) >= 0.95

    def fooled(row):
        totals = np.cumsum(row)
        return any(
            not low <= 0.5 <= high for low, high in (wilson_interval(int(totals[n - 1]), n) for n in range(10, 101))
        )

    assert np.mean([fooled(row) for row in rows[:200]]) > 0.2


def test_it_stops_when_it_is_narrow_enough_or_the_threshold_is_out():
    assert not SequentialTest(half_width=0.15).enough([1.0] * 13)
    assert SequentialTest(half_width=0.15).enough([1.0] * 14)
    test = SequentialTest(threshold=0.5)
    assert [test.enough([1.0] * count) for count in (5, 6, 7)] == [False, False, True]
    assert not test.enough([1.0, 0.0] * 50)


def test_sums_of_scores_may_be_rounded():
    assert confidence_sequence(sum([0.1] * 10) / 1, 10)[0] > 0
    assert confidence_sequence(3 + 1e-12, 3) == confidence_sequence(3 - 1e-12, 3) == confidence_sequence(3, 3)
    assert confidence_sequence(1e-300, 4)[0] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(UsageError, match="total must be in"):
        confidence_sequence(4, 3)


def test_simultaneous_bounds_are_wider_than_each_alone():
    runs = [[1.0] * 10, [1.0, 0.0] * 5]
    bounds = simultaneous_bounds(runs)
    assert bounds.shape == (2, 2)
    for (low, high), run in zip(bounds, runs, strict=True):
        alone = confidence_sequence(sum(run), len(run))
        assert low < alone[0] and high >= alone[1]
        assert (low, high) == confidence_sequence(sum(run), len(run), confidence=0.975)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (0.1, "early_stopping must be a group"),
        ({}, "needs a half_width, a threshold, or both"),
        ({"half_widht": 0.1}, "did you mean half_width"),
        ({"half_width": 0.7}, r"early_stopping.half_width must be in \(0, 0.5\), got 0.7"),
        ({"threshold": 1}, r"early_stopping.threshold must be in \(0, 1\), got 1"),
        ({"half_width": True}, "early_stopping.half_width must be"),
        ({"half_width": 0.1, "confidence": 1.0}, r"early_stopping.confidence must be in \[0.5, 1\)"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(UsageError, match=message):
        read_sequential_test(settings)


def test_settings_come_back():
    assert read_sequential_test(None) is None
    test = read_sequential_test({"half_width": 0.1})
    assert read_sequential_test(test.record()) == test
