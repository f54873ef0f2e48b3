"""MaskViT in the pre-training loop: a kill, two processes, and parts of a batch."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from moving_squares import clips, make

from embodied.core.checkpoint import load_checkpoint
from embodied.core.reporting import SilentReporter
from embodied.training.optimization import Recipe
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE, resume_step

STEPS = 7
SETTINGS = {"corruption": 0.2, "action_dropout": 0.3, "checkpointing": True}


def train(folder, *, accumulate=1, kill_at=None):
    objective, records = make(objective=SETTINGS), []

    def read(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {name: values.numpy() for name, values in clips(8, seed=step).items()}

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
        log_every=3,
    )
    return objective, records


def start(*arguments, **environment):
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env={**os.environ, **environment})


def tensors(folder):
    return load_checkpoint(folder / STATE)[0]


def test_a_killed_run_goes_on_to_the_same_bits_and_records(tmp_path):
    assert start(tmp_path / "killed", "5").wait(timeout=200) == -signal.SIGKILL
    assert resume_step(tmp_path / "killed") == 3
    whole, expected = train(tmp_path / "whole")
    resumed, records = train(tmp_path / "killed")
    first, second = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [record["loss"] for record in records] == [each["loss"] for each in expected if each["step"] > 3]
    weights, start_weights = whole.state_dict(), make().state_dict()
    assert all(torch.equal(weights[name], part) for name, part in resumed.state_dict().items())
    frozen = [name for name in weights if name.startswith("encoder.frames.")]
    assert frozen and all(torch.equal(weights[name], start_weights[name]) for name in frozen)


def test_two_processes_equal_one_with_the_batch_in_two_parts(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [start(tmp_path / "pair", RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    train(tmp_path / "parts", accumulate=2)
    first, second = tensors(tmp_path / "pair"), tensors(tmp_path / "parts")
    assert first.keys() == second.keys()
    assert max(float((first[name].double() - second[name].double()).abs().max()) for name in first) < 2e-5


if __name__ == "__main__":  # a process that is killed, or one of two
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), kill_at=int(sys.argv[2]) if len(sys.argv) > 2 else None)
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
