"""Student's intervals: scipy's numbers, brute force, and as often right as they say."""

import numpy as np
import pytest
from scipy import stats

from embodied.bench.statistics.paired import compare_paired
from embodied.bench.statistics.student import student_interval, student_quantile


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 3.7, 4, 8, 30.2, 400])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_quantiles_are_scipys(freedom, confidence):
    expected = stats.t.ppf(0.5 + confidence / 2, freedom)
    assert student_quantile(freedom, confidence=confidence) == pytest.approx(expected, rel=1e-4)


def test_one_task_is_the_textbooks_interval():
    values = np.array([0.1, 0.3, 0.25, -0.05])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert student_interval([values]) == pytest.approx((values.mean(), low, high), rel=1e-4)


def test_two_tasks_are_scipys_of_welch():
    """The mean of two tasks is half the difference of one and the other turned around, whose interval scipy knows."""
    first, second = np.array([0.1, 0.3, 0.25, -0.05]), np.array([0.5, 0.45, 0.6, 0.2, 0.9])
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    found = student_interval([first, second])
    assert found == pytest.approx(((first.mean() + second.mean()) / 2, welch.low / 2, welch.high / 2), rel=1e-4)


def test_nothing_varies():
    assert student_interval([np.full(3, 0.1), np.full(5, 0.3)]) == pytest.approx((0.2, 0.2, 0.2))
    differing = np.array([0.7, 0.75, 0.7]) - np.array([0.2, 0.25, 0.2])  # the same but for rounding
    mean, low, high = student_interval([differing])
    assert mean == low == high


def test_a_task_that_does_not_vary_adds_nothing():
    varied = np.array([0.1, 0.3, 0.25, -0.05])
    mean, _, high = student_interval([varied])
    both, _, higher = student_interval([varied, np.zeros(4)])
    assert (both, higher - both) == pytest.approx((mean / 2, (high - mean) / 2))


def test_coverage_is_that_of_the_name_and_the_bootstraps_below():
    """Five seeds in each of two tasks that differ in spread."""
    random = np.random.default_rng(0)
    centres, spreads, student, bootstrap = np.array([0.1, 0.3]), (0.1, 0.2), 0, 0
    for trial in range(2_000):
        tasks = [random.normal(centre, spread, 5) for centre, spread in zip(centres, spreads, strict=True)]
        _, low, high = student_interval(tasks)
        student += low <= centres.mean() <= high
        if trial < 400:
            found = compare_paired(tasks, resamples=500, seed=trial)
            bootstrap += found.low <= centres.mean() <= found.high
    assert student / 2_000 == pytest.approx(0.95, abs=0.02)
    assert bootstrap / 400 < 0.91
