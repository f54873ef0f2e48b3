"""Where the time goes."""

import pytest

from embodied.real_robot.policy.stages import Stages


def test_percentiles_are_of_the_steps_that_had_the_stage():
    stages = Stages()
    for number in range(100):
        stages.add("receive", 1.0)
        stages.add("policy", 0.010)
        if number % 2:
            stages.add("encode", 0.002)
            stages.add("encode", 0.002)
        stages.finish()
    found = stages.percentiles_ms()
    assert found["encode"] == {"p50": 4.0, "p99": 4.0}
    assert found["work"]["p50"] == pytest.approx(12.0) and found["work"]["p99"] == pytest.approx(14.0)
    assert "decode" not in found and stages.count == 100


def test_dropped_steps_leave_nothing_and_old_ones_are_forgotten():
    stages = Stages()
    stages.add("write", 5.0)
    stages.drop()
    for _ in range(2000):
        stages.add("write", 0.001)
        stages.finish()
    assert stages.percentiles_ms()["write"] == {"p50": 1.0, "p99": 1.0}
    stages.clear()
    assert stages.percentiles_ms() == {} and stages.count == 0
