"""HPT in the pre-training loop, on a mixture: a kill, two processes, and parts of a batch."""

import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from tiny_mixtures import entries, fit, make, mixture

from embodied.core.checkpoint import load_checkpoint
from embodied.core.reporting import SilentReporter
from embodied.training.optimization import Recipe
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE, resume_step

STEPS = 8


def train(folder, data, *, accumulate=1, kill_at=None):
    windows = mixture(data, entries(data))
    sampler = windows.sampler(batch_size=2, seed=0)
    objective, records = fit(make(), windows), []

    def read(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return windows.batch(sampler.batch(step))

    pretrain(
        objective,
        read,
        steps=STEPS,
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_steps=1,
        clip=1.0,
        precision="fp32",
        seed=0,
        checkpoint_folder=folder,
        checkpoint_every=3,
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        recipe=Recipe(accumulate=accumulate),
        log_every=1,
    )
    return objective, records


def start(*arguments, **environment):
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env={**os.environ, **environment})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    mixture(folder, entries(folder))  # encoded before two processes read
    return folder


def tensors(folder):
    return load_checkpoint(folder / STATE)[0]


def test_a_killed_run_goes_on_to_the_same_bits_and_records(tmp_path, data):
    assert start(tmp_path / "killed", data, "5").wait(timeout=200) == -signal.SIGKILL
    assert resume_step(tmp_path / "killed") == 3
    _, expected = train(tmp_path / "whole", data)
    _, records = train(tmp_path / "killed", data)
    first, second = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
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
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [start(tmp_path / "pair", data, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    train(tmp_path / "parts", data, accumulate=2)
    first, second = tensors(tmp_path / "pair"), tensors(tmp_path / "parts")
    assert first.keys() == second.keys()
    assert max(float((first[name].double() - second[name].double()).abs().max()) for name in first) < 2e-5


if __name__ == "__main__":  # a process that is killed, or one of two
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), Path(sys.argv[2]), kill_at=int(sys.argv[3]) if len(sys.argv) > 3 else None)
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
