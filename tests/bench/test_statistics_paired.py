"""Comparing two methods on common seeds: exactness, level and power."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test as scipys

from embodied.bench.statistics.paired import compare_paired, holm, permutation_test, seeds_needed


def tasks(*rows):
    return [np.array(row, float) for row in rows]


@pytest.mark.parametrize("rows", [([0.1, 0.2, -0.05, 0.3],), ([0.1, 0.2, 0.1], [0.05, -0.2, 0.3]), ([0.5] * 6,)])
def test_p_equals_scipys_exact_one(rows):
    found = tasks(*rows)
    pooled = np.concatenate(found)  # tasks of equal size weigh alike: the pooled mean
    expected = scipys((pooled,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert permutation_test(found) == pytest.approx(expected.pvalue)


def test_p_of_tasks_with_unequal_seeds_equals_brute_force():
    rows = tasks([0.3, 0.1], [0.2, -0.1, 0.4])
    weighted = np.concatenate([row / (2 * len(row)) for row in rows])
    patterns = [abs(np.dot(signs, weighted)) >= abs(weighted.sum()) - 1e-12 for signs in product((-1, 1), repeat=5)]
    assert permutation_test(rows) == pytest.approx(np.mean(patterns))


def test_many_pairs_are_sampled_and_agree_with_the_exact_test():
    rows = tasks(np.random.default_rng(3).normal(0.08, 0.2, 16))
    exact = permutation_test(rows)
    padded = tasks([*rows[0], 1e-9])  # one more pair: now signs are drawn
    assert permutation_test(padded) == pytest.approx(exact, abs=0.01)


def test_no_difference_is_p_one():
    assert permutation_test(tasks([0.0, 0.0], [0.0, 0.0])) == 1.0
    found = compare_paired(tasks([0.0, 0.0]))
    assert (found.difference, found.low, found.high, found.seeds_needed) == (0.0, 0.0, 0.0, None)


def test_what_so_few_pairs_can_show():
    assert compare_paired(tasks([0.5] * 5)).p == compare_paired(tasks([0.5] * 5)).smallest_p == 2 / 32
    one = compare_paired(tasks([0.5], [0.4]))
    assert (one.low, one.high, one.seeds_needed) == (None, None, None)
    assert (one.pairs, one.tasks, one.difference) == (2, 2, pytest.approx(0.45))


def test_level_of_the_test():
    random = np.random.default_rng(0)
    rejected = [permutation_test([random.normal(0, 0.1, 5) for _ in range(2)]) <= 0.05 for _ in range(600)]
    assert 0.02 < np.mean(rejected) < 0.075


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("effects", "spread"), [((0.1,), 0.15), ((0.05, 0.05, 0.05, 0.05), 0.12), ((0.2, 0.1, 0.0, 0.0), 0.15)]
)
def test_seeds_needed_give_the_power_they_promise(effects, spread):
    """Simulated with as many seeds as a large pilot asks for, the test finds the difference in about 80 of 100."""
    random = np.random.default_rng(1)

    def draw(seeds):
        return [random.normal(effect, spread, seeds) for effect in effects]

    needed = seeds_needed(draw(3_000))
    power = {
        seeds: np.mean([permutation_test(draw(seeds), seed=trial) <= 0.05 for trial in range(250)])
        for seeds in (needed, max(2, needed // 2))
    }
    assert 0.72 < power[needed] < 0.9
    assert power[max(2, needed // 2)] < power[needed] - 0.1


def test_seeds_needed_is_no_less_than_the_exact_test_wants():
    assert seeds_needed(tasks([0.5, 0.501])) == 6  # 2^(1 - 6) < 0.05 < 2^(1 - 5)
    assert seeds_needed(tasks([0.5, 0.501], [0.5, 0.501], [0.5, 0.501])) == 2


def test_seeds_needed_of_next_to_nothing():
    assert seeds_needed(tasks([0.3, -0.2999])) is None
    assert seeds_needed(tasks([0.3])) is None
