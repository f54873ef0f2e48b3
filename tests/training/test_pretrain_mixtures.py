"""HPT in the pre-training loop, on a mixture: a kill, two processes, and parts of a batch."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from tiny_mixtures import entries, fit, make, mixture
from window_loops import largest_difference, main, require_equal, run_loop, train_in_two, train_until_killed

from embodied.training.pretrain_state import resume_step


def train(folder, data, **options):
    windows = mixture(data, entries(data))
    return run_loop(fit(make(), windows), windows, folder, batch_size=2, log_every=1, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    mixture(folder, entries(folder))  # encoded before two processes read
    return folder


def test_a_killed_run_goes_on_to_the_same_bits_and_records(tmp_path, data):
    train_until_killed(__file__, tmp_path / "killed", data)
    assert resume_step(tmp_path / "killed") == 3
    expected, records = train(tmp_path / "whole", data), train(tmp_path / "killed", data)
    require_equal(tmp_path / "whole", tmp_path / "killed")
    timed = ("frames_per_second", "data_wait", "mfu")
    told = [{name: value for name, value in record.items() if name not in timed} for record in records]
    assert told == [
        {name: value for name, value in record.items() if name not in timed}
        for record in expected
        if record["step"] > 3
    ]
    lone = [record for record in expected if len({"loss_dot", "loss_arm"} & record.keys()) == 1]
    assert lone  # a batch of two sometimes holds one dataset alone, whose loss is then the batch's
    for record in lone:
        assert record["loss"] == pytest.approx(record.get("loss_dot", record.get("loss_arm")), rel=1e-6)
    assert not any(math.isnan(value) for record in expected for value in record.values())


def test_two_processes_equal_one_with_the_batch_in_two_parts(tmp_path, data):
    train_in_two(__file__, tmp_path / "pair", data)
    train(tmp_path / "parts", data, accumulate=2)
    assert largest_difference(tmp_path / "pair", tmp_path / "parts") < 2e-5


if __name__ == "__main__":  # a process that is killed, or one of two
    main(train)
