"""The pre-training loop on windows, in this process and in others that are killed or train together.

A test file runs `main` when it is started by path: `train(folder, data, **options)` is its own.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch

from embodied.core.checkpoint import load_checkpoint
from embodied.core.reporting import SilentReporter
from embodied.training.optimization import Recipe
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE

STEPS, KILLED_AT, SAVED = 8, 5, 3


def run_loop(objective, windows, folder, *, batch_size, log_every, accumulate=1, kill_at=None):
    """Train on the windows of a dataset; returns the records that were logged."""
    sampler, records = windows.sampler(batch_size=batch_size, seed=0), []

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
        checkpoint_every=SAVED,
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        recipe=Recipe(accumulate=accumulate),
        log_every=log_every,
    )
    return records


def tensors(folder):
    """Of the last checkpoint: weights and the optimiser's."""
    return load_checkpoint(folder / STATE)[0]


def require_equal(folder, other):
    """The same bits in the last checkpoints of both."""
    first, second = tensors(folder), tensors(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(folder, other):
    """Of any number in the last checkpoints of both."""
    first, second = tensors(folder), tensors(other)
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def start(file, *arguments, **environment):
    """The test file as a process."""
    return subprocess.Popen([sys.executable, file, *map(str, arguments)], env={**os.environ, **environment})


def train_until_killed(file, folder, data):
    """A process that kills itself after the first checkpoint."""
    assert start(file, folder, data, KILLED_AT).wait(timeout=200) == -signal.SIGKILL


def train_in_two(file, folder, data):
    """Two processes that train together."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [start(file, folder, data, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def main(train):
    """Of a test file that was started by path."""
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), Path(sys.argv[2]), kill_at=int(sys.argv[3]) if len(sys.argv) > 3 else None)
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
