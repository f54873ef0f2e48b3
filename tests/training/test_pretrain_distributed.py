"""Two processes do what one does: every method, and an objective without randomness on the double batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from tiny_objectives import METHODS, VARIANTS, batch, make

from embodied.core.checkpoint import load_checkpoint
from embodied.core.reporting import SilentReporter
from embodied.training.optimization import Recipe
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE

STEPS = 3


class Colour(nn.Module):
    """Predicts a frame's mean colour from its corner: no randomness, so the parts of a batch do not matter."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        with torch.no_grad():
            self.encoder.weight.normal_(generator=torch.Generator().manual_seed(0))
            self.encoder.bias.zero_()

    def forward(self, batch, generator):
        images = batch["images"].float() / 255
        loss = (self.encoder(images[:, 0, 0]) - images.mean((1, 2))).pow(2).mean()
        return loss, {"bias": self.encoder.bias.abs().mean()}


def read_batch(step):
    return {name: values.numpy() for name, values in batch(8, seed=step).items()}


def train(name, folder, *, accumulate):
    records = []
    pretrain(
        Colour() if name == "colour" else make(name),
        read_batch,
        steps=STEPS,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_steps=1,
        clip=1.0,
        precision="fp32",
        seed=0,
        checkpoint_folder=folder / name,
        checkpoint_every=STEPS,
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        recipe=Recipe(accumulate=accumulate),
    )
    return records


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder where two processes left what they trained."""
    folder = tmp_path_factory.mktemp("pair")
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)], env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder


def largest_difference(one, other):
    first, second = load_checkpoint(one / STATE)[0], load_checkpoint(other / STATE)[0]
    assert first.keys() == second.keys()
    return max(
        float((first[name].double() - second[name].double()).abs().max()) for name in first if first[name].numel()
    )


@pytest.mark.parametrize("name", sorted(METHODS | VARIANTS))
def test_two_processes_equal_one_with_the_double_batch_in_two_parts(pair, tmp_path, name):
    train(name, tmp_path, accumulate=2)
    assert largest_difference(pair / name, tmp_path / name) < 2e-5


def test_two_processes_equal_one_with_the_double_batch(pair, tmp_path):
    records = train("colour", tmp_path, accumulate=1)
    assert largest_difference(pair / "colour", tmp_path / "colour") < 1e-6
    logged = np.loadtxt(pair / "losses.txt")
    assert logged == pytest.approx(records[-1]["loss"], rel=1e-5)  # the mean over processes, not the first one's


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    for method in sorted(METHODS | VARIANTS):
        train(method, target, accumulate=1)
    found = train("colour", target, accumulate=1)
    if os.environ["RANK"] == "0":
        np.savetxt(target / "losses.txt", [found[-1]["loss"]])
    torch.distributed.destroy_process_group()
