"""Pre-training that is killed, diverges or meets a foreign checkpoint."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UserError
from embodied.core.reporting import SilentReporter
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE, resume_step


class Guess(nn.Module):
    """Predicts ones from a noisy view of the frames' mean colour: a matrix, a bias, a token, and use of randomness."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        with torch.no_grad():
            self.encoder.weight.normal_(generator=torch.Generator().manual_seed(0))
            self.encoder.bias.zero_()
        self.token = nn.Parameter(torch.full((1, 1, 4), 0.5))

    def forward(self, batch, generator):
        colour = batch["images"].float().mean((1, 2)) / 255
        noise = torch.rand(len(colour), 3, generator=generator)
        error = self.encoder(colour + 0.1 * noise) + self.token[0] - 1.0
        return error.pow(2).mean(), {"spread": error.std()}


class Diverges(Guess):
    def forward(self, batch, generator):
        loss, metrics = super().forward(batch, generator)
        return loss * float("nan"), metrics


def read_batch(step):
    return np.random.default_rng(step).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def kill_at(step):
    """A `read_batch` whose process is gone, without a word, when `step` begins."""

    def read(number):
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_batch(number)

    return read


def run(folder, *, read=read_batch, objective=None, records=None, precision="fp32", seed=0, checkpoint_every=6):
    objective = objective or Guess()
    pretrain(
        objective,
        read,
        steps=20,
        learning_rate=0.05,
        weight_decay=0.05,
        warmup_steps=3,
        clip=1.0,
        precision=precision,
        seed=seed,
        checkpoint_folder=folder,
        checkpoint_every=checkpoint_every,
        device=torch.device("cpu"),
        log=[].append if records is None else records.append,
        reporter=SilentReporter(),
        log_every=4,
    )
    return objective


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_speed(records):
    speed = ("frames_per_second", "mfu", "data_wait")
    return [{name: value for name, value in record.items() if name not in speed} for record in records]


def test_killed_process_resumed_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    process = subprocess.run([sys.executable, __file__, str(tmp_path / "killed"), "15"], timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert resume_step(tmp_path / "killed") == 12
    expected_records, records = [], []
    expected = run(tmp_path / "whole", records=expected_records)
    resumed = run(tmp_path / "killed", records=records)
    assert same(expected, resumed)
    # the optimiser's state too, so that a second kill would not matter
    first, second = (load_checkpoint(tmp_path / name / STATE)[0] for name in ("whole", "killed"))
    assert first.keys() == second.keys()
    assert any(name.startswith("optimizer/") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # and the records: a mean never spans a checkpoint
    assert [record["step"] for record in expected_records] == [4, 6, 8, 12, 16, 18, 20]
    assert without_speed(records) == without_speed(record for record in expected_records if record["step"] > 12)


def test_seed_decides(tmp_path):
    first, again, other = (run(tmp_path / str(number), seed=seed) for number, seed in enumerate((0, 0, 1)))
    assert same(first, again)
    assert not same(first, other)


def test_both_precisions_in_one_process(tmp_path):
    rounded = run(tmp_path / "bf16", precision="bf16")
    exact = run(tmp_path / "fp32", precision="fp32")
    assert not same(exact, rounded)
    assert rounded.encoder.weight.dtype == torch.float32
    torch.testing.assert_close(exact.encoder.weight, rounded.encoder.weight, atol=0.05, rtol=0.0)


def test_frozen_parameters_are_left_alone(tmp_path):
    objective = Guess()
    objective.token.requires_grad_(False)
    run(tmp_path, objective=objective)
    assert torch.equal(objective.token, torch.full((1, 1, 4), 0.5))


def test_a_diverged_run_is_not_saved(tmp_path):
    with pytest.raises(UserError, match=r"the loss is nan at step 1: lower train\.learning_rate"):
        run(tmp_path, objective=Diverges(), checkpoint_every=3)
    assert not (tmp_path / STATE).exists()


def test_records_are_json(tmp_path):
    records = []
    run(tmp_path, records=records)
    assert json.loads(json.dumps(records)) == records


def test_a_checkpoint_of_another_loop_is_refused(tmp_path):
    save_checkpoint(tmp_path / STATE, {}, {})
    with pytest.raises(UserError, match="names no step"):
        resume_step(tmp_path)


if __name__ == "__main__":  # the process that is killed
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), read=kill_at(int(sys.argv[2])))
