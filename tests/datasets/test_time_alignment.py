"""Alignment in time, against a reference that looks at every sample for every tick."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.datasets.importers.time_alignment import (
    METHODS,
    NEVER,
    NS,
    blend_angles,
    blend_linear,
    blend_quaternions,
    choose_clock,
    common_range,
    count_ticks,
    find_gaps,
    pick,
    rate_hz,
    sort_samples,
    ticks,
)

TIMES = st.lists(st.integers(0, 50), min_size=1, max_size=12)


def int64(*values):
    return np.array(values, np.int64)


def reference(stamps, time, method, slack):
    """(first, second, weight, age) of one tick by exhaustion; None where there is no sample."""
    before = [i for i, stamp in enumerate(stamps) if stamp <= time + slack]
    after = [i for i, stamp in enumerate(stamps) if stamp >= time - slack]
    if method == "previous":
        return (before[-1], before[-1], 0.0, max(time - stamps[before[-1]], 0)) if before else None
    if method == "next":
        return (after[0], after[0], 0.0, max(stamps[after[0]] - time, 0)) if after else None
    if method == "nearest":
        best = min(range(len(stamps)), key=lambda i: (abs(stamps[i] - time), i))
        return best, best, 0.0, abs(stamps[best] - time)
    if set(before) & set(after):  # one is at the tick
        age = min(max(time - stamps[before[-1]], 0), max(stamps[after[0]] - time, 0))
        return before[-1], before[-1], 0.0, age
    if not before or not after:
        return None
    first, second = before[-1], after[0]
    span = stamps[second] - stamps[first]
    weight = (time - stamps[first]) / span if span else 0.0
    return first, second, weight, max(time - stamps[first], stamps[second] - time)


@settings(max_examples=80, deadline=None)
@given(stamps=TIMES, times=TIMES, method=st.sampled_from(METHODS), slack=st.integers(0, 2))
def test_picks_are_those_of_exhaustive_search(stamps, times, method, slack):
    stamps = np.unique(int64(*stamps))
    picks = pick(stamps, int64(*times), method, slack_ns=slack)
    for number, time in enumerate(times):
        expected = reference(stamps.tolist(), time, method, slack)
        if expected is None:
            assert picks.age_ns[number] == NEVER
        else:
            got = picks.first[number], picks.second[number], picks.weight[number], picks.age_ns[number]
            assert got == pytest.approx(expected)


def test_previous_never_looks_ahead_and_next_never_back():
    stamps, times = int64(0, 10, 20) * NS, int64(0, 9, 10, 11, 19) * NS
    assert pick(stamps, times, "previous").first.tolist() == [0, 0, 1, 1, 1]
    assert pick(stamps, times, "next").first.tolist() == [0, 1, 1, 2, 2]
    assert pick(stamps, int64(5) * NS, "nearest").first.tolist() == [0]  # of two equally close the earlier


def test_stamps_that_are_rounded_a_little_differently_from_the_ticks_are_at_them():
    exact = ticks(1_700_000_000 * NS, 1_700_000_010 * NS, 30)
    as_seconds = np.rint((exact / NS) * NS).astype(np.int64)  # a double has seconds since 1970 to some 200 ns
    assert 0 < np.abs(as_seconds - exact).max() < 1000
    for method in METHODS:
        picks = pick(as_seconds, exact, method)
        assert (picks.first == np.arange(len(exact))).all() and (picks.second == picks.first).all()


@settings(max_examples=80, deadline=None)
@given(stamps=TIMES)
def test_samples_are_sorted_and_the_last_of_one_stamp_stays(stamps):
    samples = sort_samples(int64(*stamps))
    expected = {stamp: place for place, stamp in enumerate(stamps)}  # later ones replace earlier ones
    assert dict(zip(samples.stamps.tolist(), samples.order.tolist(), strict=True)) == expected
    assert samples.stamps.tolist() == sorted(expected)
    assert samples.duplicates == len(stamps) - len(expected)
    assert samples.out_of_order == sum(stamp < max(stamps[: place + 1]) for place, stamp in enumerate(stamps))


def test_the_common_range_is_that_of_all_sensors_and_latched_ones_only_limit_its_start():
    camera, joints, gripper = int64(5, 90), int64(0, 80), int64(10)
    assert common_range([camera, joints]) == (5, 80)
    assert common_range([camera, joints], [gripper]) == (10, 80)
    first, last = common_range([int64(0, 4), int64(6, 9)])
    assert first > last


@pytest.mark.parametrize("fps", [1.0, 29.97, 30.0, 80.0, 1000 / 3])
def test_ticks_fill_the_range_without_drift(fps):
    start = 1_700_000_000 * NS
    stop = start + round(1000 * NS / fps)  # where the 1001st tick is, as nanoseconds round it
    times = ticks(start, stop, fps)
    assert len(times) == count_ticks(start, stop, fps) == 1001
    assert times[0] == start and times[-1] == stop
    assert np.abs((times - start) / NS - np.arange(1001) / fps).max() < 1e-9
    assert count_ticks(start, stop - 5000, fps) == 1000
    assert count_ticks(start, start, fps) == 1 and count_ticks(start, start - 1, fps) == 0


def test_gaps_are_counted_measured_and_placed():
    stamps, times = int64(0, 1, 2, 7, 8, 10) * NS, np.arange(11, dtype=np.int64) * NS
    too_old = pick(stamps, times, "previous").age_ns > 1.5 * NS
    gaps = find_gaps(stamps, times, too_old)
    assert (gaps.count, gaps.frames, gaps.longest_s, gaps.at_s) == (1, 3, 5.0, 2.0)  # ticks 4, 5, 6 of 2 to 7
    both = find_gaps(stamps, times, pick(stamps, times, "previous").age_ns > 0.5 * NS)
    assert (both.count, both.frames) == (2, 5)
    assert find_gaps(stamps, times, np.zeros(11, bool)) is None


def test_header_stamps_are_used_when_they_are_sane():
    log = np.arange(10, dtype=np.int64) * NS + 5 * NS
    header = log - 40_000_000
    clock = choose_clock(header, log, "header")
    assert clock.used == "header" and clock.offset_s == pytest.approx(0.04)
    assert (clock.stamps == header).all()
    assert choose_clock(header, log, "log").used == "log"
    assert choose_clock(None, log, "header").offset_s is None


@pytest.mark.parametrize("header", [np.zeros(10, np.int64), np.arange(10, dtype=np.int64) * NS])
def test_stamps_of_another_clock_are_not_believed_and_the_offset_is_told(header):
    log = np.arange(10, dtype=np.int64) * NS + 1_700_000_000 * NS
    clock = choose_clock(header, log, "header")
    assert clock.used == "log" and (clock.stamps == log).all()
    assert clock.offset_s == pytest.approx(1_700_000_000, rel=1e-6)


def test_single_broken_stamps_are_replaced_by_where_the_others_put_them():
    log = np.arange(10, dtype=np.int64) * NS + 1_700_000_000 * NS
    header = log - 40_000_000
    expected, header[3] = header.copy(), 0
    clock = choose_clock(header, log, "header")
    assert clock.broken == 1 and (clock.stamps == expected).all()


def test_rate_is_the_mean_rate():
    assert rate_hz(int64(0, 1, 2, 3) * NS) == 1.0
    assert rate_hz(int64(4)) == 0.0


def test_linear_blending():
    assert blend_linear(np.array([0.0, 4.0]), np.array([1.0, 0.0]), 0.25).tolist() == [0.25, 3.0]


def test_angles_take_the_shorter_way():
    first, second = np.array([3.1, -3.1, 1.0]), np.array([-3.1, 3.1, 2.0])
    blended = blend_angles(first, second, 0.5)
    assert np.cos(blended) == pytest.approx([-1.0, -1.0, np.cos(1.5)], abs=1e-6)


def rotation(axis, angle):
    """The quaternion (x, y, z, w) of a turn."""
    return np.array([*(np.sin(angle / 2) * np.asarray(axis, float)), np.cos(angle / 2)])


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_quaternions_turn_at_constant_speed_whatever_their_sign(weight, sign):
    start, end = rotation([0, 0, 1], 0.2), sign * rotation([0, 0, 1], 1.4)
    blended = blend_quaternions(start, end, weight)
    expected = rotation([0, 0, 1], 0.2 + weight * 1.2)
    assert abs(blended @ expected) == pytest.approx(1.0)
    assert np.linalg.norm(blended) == pytest.approx(1.0)


def test_quaternions_that_are_equal_or_zero_do_not_divide_by_zero():
    same = rotation([1, 0, 0], 0.3)
    assert blend_quaternions(same, same, 0.5) == pytest.approx(same)
    assert blend_quaternions(np.zeros(4), same, 0.5).tolist() == [0, 0, 0, 0]
