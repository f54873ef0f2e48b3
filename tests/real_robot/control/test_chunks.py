"""From chunks to references: alignment, interpolation, merging, refusal."""

from dataclasses import replace

import numpy as np
import pytest
from real_robots import toy_robot

from embodied.real_robot.control.chunks import action_scale, add_chunk, living, reference_at
from embodied.real_robot.control.mailbox import RawChunk

MS = 1_000_000
STEP = 50 * MS
ROBOT = toy_robot()
NEWEST = ROBOT.execution


def raw(values, *, number=1, observed_ns=0, step_ns=STEP):
    return RawChunk(
        number, observed_ns, observed_ns, step_ns, np.stack([values, np.zeros(len(values))], 1).astype(float)
    )


def added(chunks, chunk, now_ns, execution=NEWEST, robot=ROBOT):
    chunks, problem = add_chunk(chunks, chunk, action_scale(robot), execution, now_ns)
    assert problem is None
    return chunks


def at(chunks, now_ms, execution=NEWEST, interpolate=True):
    found = reference_at(chunks, execution, round(now_ms * MS), interpolate=interpolate)
    return None if found is None else (found.value[0], found.rate[0])


def test_targets_are_interpolated_with_their_velocity():
    chunks = added((), raw([0, 1, 1.5]), 0)
    assert at(chunks, 0) == (0, pytest.approx(20))
    assert at(chunks, 25) == (pytest.approx(0.5), pytest.approx(20))
    assert at(chunks, 75) == (pytest.approx(1.25), pytest.approx(10))
    assert at(chunks, 125) == (1.5, 0)
    assert at(chunks, 150) is None


def test_velocities_hold_for_their_step():
    chunks = added((), raw([0, 1]), 0)
    assert [at(chunks, t, interpolate=False) for t in (0, 49, 50, 99)] == [(0, 0), (0, 0), (1, 0), (1, 0)]


def test_what_inference_took_is_skipped_unless_actions_begin_on_arrival():
    chunk = raw([0, 1, 2, 3])
    assert at(added((), chunk, 100 * MS), 100) == (2, pytest.approx(20))
    arrival = replace(NEWEST, align="arrival")
    assert at(added((), chunk, 100 * MS, arrival), 100, arrival) == (0, pytest.approx(20))


def test_only_so_many_actions_are_executed():
    two = replace(NEWEST, steps=2)
    chunks = added((), raw([0, 1, 2, 3]), 0, two)
    assert at(chunks, 99, two) is not None and at(chunks, 100, two) is None


def test_blending_goes_from_the_old_chunk_to_the_new_one():
    blend = replace(NEWEST, merge="blend", blend_s=0.1)
    chunks = added((), raw([0] * 10), 0, blend)
    chunks = added(chunks, raw([1] * 10, number=2, observed_ns=50 * MS), 100 * MS, blend)
    assert [at(chunks, t, blend)[0] for t in (100, 150, 200, 300)] == pytest.approx([0, 0.5, 1, 1])


def test_ensembling_weighs_the_oldest_most():
    ensemble = replace(NEWEST, merge="ensemble", ensemble_m=np.log(2))
    chunks = ()
    for number, value in enumerate([0.0, 1.0, 2.0]):
        chunks = added(chunks, raw([value] * 10, number=number, observed_ns=number * MS), number * MS, ensemble)
    assert at(chunks, 10, ensemble)[0] == pytest.approx((0 * 1 + 1 * 0.5 + 2 * 0.25) / 1.75)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (raw([np.nan]), "finite"),
        (raw([np.inf]), "finite"),
        (raw([0.0], observed_ns=2000 * MS), "stamp"),
        (raw([0.0], observed_ns=-1), "order"),
        (RawChunk(1, 0, 0, STEP, np.zeros((1, 3))), "shape"),
    ],
)
def test_bad_chunks_are_refused_with_a_reason(chunk, reason):
    chunks = added((), raw([1, 1]), 0)
    same, problem = add_chunk(chunks, chunk, action_scale(ROBOT), NEWEST, 1000 * MS)
    assert same is chunks and problem.startswith(f"{reason}:")


def test_chunks_that_have_ended_go_but_the_newest_stays_for_its_stamp():
    chunks = added(added((), raw([1]), 0), raw([1], number=2, observed_ns=MS), MS)
    assert [chunk.number for chunk in living(chunks, 50 * MS)] == [2]
    assert [chunk.number for chunk in living(chunks, 5000 * MS)] == [2]
    assert living((), 0) == ()


def test_displacements_become_velocities_and_the_gripper_a_position():
    axis = {"unit": "rad", "low": -1, "high": 1, "velocity": 1, "acceleration": 4, "jerk": 40}
    robot = toy_robot(
        command={"kind": "joint_delta"}, axes={"one": {**axis, "scale": 0.02}},
        gripper={"axis": "two", "opened": 0.08, "closed": 0.0, "action": [-1, 1]},
    )  # fmt: skip
    values = action_scale(robot)(np.array([[0.5, -1.0], [1.0, 1.0], [0.0, 0.0]]), STEP)
    assert values == pytest.approx(np.array([[0.2, 0.08], [0.4, 0.0], [0.0, 0.04]]))
