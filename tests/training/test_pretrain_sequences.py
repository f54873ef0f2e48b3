"""RPT in the pre-training loop, on windows of mixed stores: a kill, two processes, and parts of a batch."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from tiny_sequences import VIEW, make, make_store, windows_of
from window_loops import largest_difference, main, require_equal, run_loop, train_in_two, train_until_killed

from embodied.training.pretrain_state import resume_step


def train_whole(folder, data, **options):
    windows = windows_of(data / "cache", data / "robot", data / "video", weights=[2, 1])
    objective, statistics = make(), windows.statistics().items()
    objective.encoder.sequence.fit({key: tuple(map(torch.from_numpy, each)) for key, each in statistics})
    return objective, run_loop(objective, windows, folder, batch_size=8, log_every=3, **options)


def train(folder, data, **options):
    train_whole(folder, data, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_store(folder / "robot", lengths=(7, 9))
    make_store(folder / "video", lengths=(6,), keys=(VIEW,), first_seed=4)
    windows_of(folder / "cache", folder / "robot", folder / "video")  # encoded before two processes read
    return folder


def test_a_killed_run_goes_on_to_the_same_bits_and_records(tmp_path, data):
    train_until_killed(__file__, tmp_path / "killed", data)
    assert resume_step(tmp_path / "killed") == 3
    whole, expected = train_whole(tmp_path / "whole", data)
    resumed, records = train_whole(tmp_path / "killed", data)
    require_equal(tmp_path / "whole", tmp_path / "killed")
    assert [record["loss"] for record in records] == [each["loss"] for each in expected if each["step"] > 3]
    weights, start_weights = whole.state_dict(), make().state_dict()
    assert all(torch.equal(weights[name], part) for name, part in resumed.state_dict().items())
    frozen = [name for name in weights if name.startswith("encoder.frames.")]
    assert frozen and all(torch.equal(weights[name], start_weights[name]) for name in frozen)


def test_two_processes_equal_one_with_the_batch_in_two_parts(tmp_path, data):
    train_in_two(__file__, tmp_path / "pair", data)
    train(tmp_path / "parts", data, accumulate=2)
    assert largest_difference(tmp_path / "pair", tmp_path / "parts") < 2e-5


if __name__ == "__main__":  # a process that is killed, or one of two
    main(train)
