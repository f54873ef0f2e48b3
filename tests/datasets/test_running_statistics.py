"""Statistics of blocks merged are those of all frames; quantiles are exact at first, and within their bound after."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.quantile_sketch import MOST_CAPACITY, QuantileSketch, capacity_of
from embodied.datasets.store.running_statistics import (
    EpisodeStatistics,
    RunningStatistics,
    statistics_of,
    statistics_shape,
)

FRACTIONS = [0.01, 0.1, 0.5, 0.9, 0.99]


def rank_errors(values, sketch):
    """How far each quantile's rank is off, as a part of the whole."""
    found = sketch.quantiles(FRACTIONS)
    below, upto = (values < found[:, None]).mean(axis=1), (values <= found[:, None]).mean(axis=1)
    wanted = np.asarray(FRACTIONS)[:, None]
    return np.maximum(np.maximum(below - wanted, wanted - upto), 0)


def test_a_constant_far_from_zero_has_no_spread():
    merged = RunningStatistics.of(np.full((3, 1), 1e8)).merged(RunningStatistics.of(np.full((4, 1), 1e8)))
    found = merged.summary((1,))
    assert found["std"] == 0 and found["q01"] == found["q99"] == 1e8


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_few_values_have_numpys_quantiles(sizes, seed):
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    sketch = QuantileSketch.of(blocks[0])
    for block in blocks[1:]:
        sketch = sketch.merged(QuantileSketch.of(block))
    values = np.concatenate(blocks).astype(np.float64)
    assert sketch.exact
    np.testing.assert_allclose(sketch.quantiles(FRACTIONS), np.quantile(values, FRACTIONS, axis=0))


@pytest.mark.parametrize("order", ["random", "rising", "falling", "few values"])
@pytest.mark.parametrize("block", [37, 5000])
def test_many_values_stay_within_the_bound_and_in_bounded_memory(order, block):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100_000, 2)).astype(np.float32)
    if order == "few values":
        values = np.round(values)
    elif order != "random":
        values = np.sort(values, axis=0)[:: 1 if order == "rising" else -1]
    sketch = QuantileSketch.of(values[:block])
    for start in range(block, len(values), block):
        sketch = sketch.merged(QuantileSketch.of(values[start : start + block]))
    bound = len(sketch.levels) / MOST_CAPACITY
    assert not sketch.exact and bound < 0.01
    assert rank_errors(values, sketch).max() <= bound
    assert sum(map(len, sketch.levels)) < MOST_CAPACITY * len(sketch.levels)
    assert sum(len(level) << number for number, level in enumerate(sketch.levels)) == len(values)


def test_segments_merged_in_a_tree_stay_within_the_bound():
    values = np.random.default_rng(1).normal(size=(65_536, 1))
    sketches = [QuantileSketch.of(values[start : start + 64]) for start in range(0, len(values), 64)]
    while len(sketches) > 1:
        groups = [sketches[start : start + 16] for start in range(0, len(sketches), 16)]
        sketches = []
        for first, *rest in groups:
            for other in rest:
                first = first.merged(other)
            sketches.append(first)
    assert rank_errors(values, sketches[0]).max() <= len(sketches[0].levels) / MOST_CAPACITY


def test_large_frames_get_small_sketches():
    assert [capacity_of(elements) for elements in (1, 64, 65, 100, 1024)] == [1024, 1024, 512, 512, 64]


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64", "uint16", "float16"])
def test_statistics_survive_json(dtype):
    spec = KeySpec(dtype, (2,))
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (3000, 2)).astype(dtype)
    counted = EpisodeStatistics("k", spec)
    counted.add(values)
    record = json.loads(json.dumps(counted.result().to_json()))
    found = RunningStatistics.from_json(record, spec, "k")
    for name, value in counted.result().summary((2,)).items():
        assert np.array_equal(found.summary((2,))[name], value)
    np.testing.assert_allclose(found.mean, values.astype(float).mean(axis=0))
    np.testing.assert_allclose(found.summary((2,))["std"], values.astype(float).std(axis=0))


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("observation.images.a", (8, 6, 3), (3,)),
        ("observation.images.a", (8, 6, 1), (1,)),
        ("observation.depth.a", (8, 6), ()),
        ("observation.raw.a", (8, 6, 4), (4,)),
        ("tactile", (64, 64), ()),
        ("observation.state", (7,), (7,)),
        ("next.reward", (), ()),
    ],
)
def test_each_kind_of_frame_has_its_shape_of_statistics(key, shape, expected):
    spec = KeySpec("uint8", shape)
    counted = EpisodeStatistics(key, spec)
    counted.add(np.full((3, *shape), 7, np.uint8))
    assert statistics_shape(key, spec) == expected
    for name, value in counted.result().summary(expected).items():
        assert value.shape == expected and value.dtype == np.float64
        assert (value == (0 if name == "std" else 7)).all()


def test_images_are_sampled_over_the_whole_episode_however_it_is_cut():
    spec = KeySpec("uint8", (200, 70, 3))
    frames = np.zeros((100, 200, 70, 3), np.uint8)
    frames += np.arange(100, dtype=np.uint8)[:, None, None, None]
    results = []
    for block in (1, 7, 100):
        counted = EpisodeStatistics("observation.images.a", spec)
        for start in range(0, 100, block):
            counted.add(frames[start : start + block])
        results.append(counted.result())
    results.append(statistics_of("observation.images.a", spec, [100], lambda start, stop: frames[start:stop]))
    for result in results:
        assert result.count == 25 * 50 * 35 and result.low.tolist() == [0] * 3 and result.high.tolist() == [96] * 3
        np.testing.assert_allclose(result.mean, 48)
        assert np.array_equal(result.summary((3,))["q90"], results[0].summary((3,))["q90"])


def test_statistics_read_again_are_those_counted():
    spec, values = KeySpec("float32", (2,)), np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    counted = EpisodeStatistics("k", spec)
    counted.add(values)
    again = statistics_of("k", spec, [20, 30], lambda start, stop: values[start:stop])
    for name, value in counted.result().summary((2,)).items():
        np.testing.assert_allclose(again.summary((2,))[name], value)
