"""GR-1 in the pre-training loop, on windows of robots and videos: a kill, two processes, what it learns."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from tiny_gr1 import WORDS, make, make_store, windows_of
from tiny_sequences import VIEW
from window_loops import largest_difference, main, require_equal, run_loop, train_in_two, train_until_killed

from embodied.core.protocols import INSTRUCTION
from embodied.training.batches import to_tensors
from embodied.training.pretrain_state import resume_step


def fitted(windows, **options):
    objective, statistics = make(**options), windows.statistics().items()
    objective.encoder.network.fit({key: tuple(map(torch.from_numpy, each)) for key, each in statistics})
    return objective


def train_whole(folder, data, **options):
    windows = windows_of(data / "cache", data / "robot", data / "video", weights=[2, 1])
    objective = fitted(windows, dropout=0.1, gripper=1)
    return objective, run_loop(objective, windows, folder, batch_size=8, log_every=3, **options)


def train(folder, data, **options):
    train_whole(folder, data, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_store(folder / "robot", lengths=(7, 9))
    make_store(folder / "video", lengths=(6,), keys=(VIEW,), tasks=("",), first_seed=4)
    windows_of(folder / "cache", folder / "robot", folder / "video")  # encoded before two processes read
    return folder


def test_a_killed_run_goes_on_to_the_same_bits_and_records(tmp_path, data):
    train_until_killed(__file__, tmp_path / "killed", data)
    assert resume_step(tmp_path / "killed") == 3
    whole, expected = train_whole(tmp_path / "whole", data)
    resumed, records = train_whole(tmp_path / "killed", data)
    require_equal(tmp_path / "whole", tmp_path / "killed")
    assert [record["loss"] for record in records] == [each["loss"] for each in expected if each["step"] > 3]
    weights = whole.state_dict()
    assert all(torch.equal(weights[name], part) for name, part in resumed.state_dict().items())


def test_two_processes_equal_one_with_the_batch_in_two_parts(tmp_path, data):
    train_in_two(__file__, tmp_path / "pair", data)
    train(tmp_path / "parts", data, accumulate=2)
    assert largest_difference(tmp_path / "pair", tmp_path / "parts") < 2e-5


def test_it_follows_instructions_and_sees_what_is_to_come(tmp_path):
    """Which way the dot is to move only the words say: without them the best guess is no move at all."""
    store = make_store(tmp_path / "dots", lengths=(12,) * 16, tasks=tuple(WORDS))
    windows = windows_of(tmp_path / "cache", store)
    trained, held = windows.hold_out(0.25, seed=0)
    objective = fitted(windows, width=48, objective={"video_weight": 1.0})
    sampler = trained.sampler(batch_size=32, seed=0)
    optimizer = torch.optim.Adam([part for part in objective.parameters() if part.requires_grad], lr=2e-3)
    cpu, draws = torch.device("cpu"), torch.Generator()
    for step in range(270):
        loss, _ = objective(to_tensors(trained.batch(sampler.batch(step)), slice(None), cpu), draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = to_tensors(held.batch(np.arange(len(held))), slice(None), cpu)
    objective.eval()
    with torch.no_grad():
        _, metrics = objective(batch, draws)
        swapped = torch.from_numpy(sum(WORDS.values())) - batch[INSTRUCTION]  # each other's words
        _, misled = objective({**batch, INSTRUCTION: swapped}, draws)
        pixels = objective.target(batch["future." + VIEW])
        there = ~batch["future." + VIEW + "_is_pad"] & ~batch[VIEW + "_is_pad"]
        guess = (pixels - pixels[there].mean(dim=0)).square().mean(dim=(-1, -2))[there].mean()
    assert float(metrics["loss_arm"]) < 0.1  # no move at all: 0.4
    assert float(misled["loss_arm"]) > 0.5
    assert float(metrics["loss_video"]) < 0.8 * float(guess)  # the mean picture


if __name__ == "__main__":  # a process that is killed, or one of two
    main(train)
