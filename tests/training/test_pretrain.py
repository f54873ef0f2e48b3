"""The pre-training loop: resumable to the bit, decays only matrices, follows its schedule."""

import threading

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import Stopwatch
from embodied.training.optimization import learning_rate_factor, parameter_groups
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_records import Window
from embodied.training.pretrain_state import resume_step


class MeanColour(nn.Module):
    """Predicts the mean colour of a frame from a noisy copy."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, batch, generator):
        colour = batch["images"].float().mean(dim=(1, 2)) / 255
        noisy = colour + 0.01 * torch.randn(colour.shape, generator=generator)
        loss = (self.head(self.encoder(noisy) + self.token[0]) - colour).pow(2).mean()
        return loss, {"noise": (noisy - colour).abs().mean()}


def read_batch(step):
    return np.random.default_rng(step).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)


class Killed(Exception):
    pass


class KillingReporter(SilentReporter):
    def __init__(self, at):
        self.at = at

    def track(self, items, *, total, description, done=0):
        for item in items:
            if item == self.at:
                raise Killed
            yield item


def run(folder, *, reporter=None, steps=30, read=read_batch, log=lambda record: None, objective=None, **options):
    objective = objective or MeanColour()
    settings = {"learning_rate": 0.02, "clip": 1.0, "precision": "fp32", **options}
    pretrain(
        objective,
        read,
        steps=steps,
        weight_decay=0.05,
        warmup_steps=5,
        seed=3,
        checkpoint_folder=folder,
        checkpoint_every=7,
        device=torch.device("cpu"),
        log=log,
        reporter=reporter or SilentReporter(),
        log_every=10,
        **settings,
    )
    return objective


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    run(tmp_path / "whole")
    for at in (3, 12, 29):
        with pytest.raises(Killed):
            run(tmp_path / "killed", reporter=KillingReporter(at))
    assert resume_step(tmp_path / "killed") == 28
    run(tmp_path / "killed")
    whole, _ = load_checkpoint(tmp_path / "whole" / "state.safetensors")
    resumed, metadata = load_checkpoint(tmp_path / "killed" / "state.safetensors")
    assert metadata == {"step": 30}
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_finished_training_is_loaded_not_repeated(tmp_path):
    run(tmp_path)

    def refuse(step):
        raise AssertionError(step)

    again = run(tmp_path, read=refuse)
    saved, _ = load_checkpoint(tmp_path / "state.safetensors")
    assert torch.equal(again.head.weight, saved["model/head.weight"])


def test_learns_better_than_the_mean(tmp_path):
    records = []
    run(tmp_path, steps=300, log=records.append)
    assert [record["step"] for record in records][:4] == [7, 10, 14, 20]  # and at checkpoints
    colours = np.concatenate([read_batch(step).mean(axis=(1, 2)) / 255 for step in range(50)])
    assert records[-1]["loss"] < 0.3 * colours.var(axis=0).mean()
    speed = {"frames_per_second", "mfu", "data_wait"}
    assert {"loss", "noise", "gradient_norm", "learning_rate", *speed} <= records[0].keys()


def test_the_next_batch_is_read_while_a_step_is_computed(tmp_path):
    started, read_ahead = threading.Event(), threading.Event()

    class Starts(SilentReporter):
        def track(self, items, **given):
            started.set()  # what came before was no step
            yield from items

    class Waits(MeanColour):
        def forward(self, batch, generator):
            assert not started.is_set() or read_ahead.wait(60)
            return super().forward(batch, generator)

    def read(step):
        if step == 1:
            read_ahead.set()
        return read_batch(step)

    run(tmp_path, steps=3, read=read, reporter=Starts(), objective=Waits())


def test_records_have_the_share_of_the_time_that_went_by_waiting(monkeypatch):
    monkeypatch.setattr(Stopwatch, "seconds", property(lambda self: 4.0))
    window = Window(Accelerator(cpu=True), flops=6.0, peak=3.0)
    for seconds in (0.75, 0.25):
        window.wait(seconds)
        window.add({"loss": torch.tensor(1.0)})
        window.end_step({"gradient_norm": torch.tensor(1.0)}, 8)
    record = window.record()
    assert (record["data_wait"], record["frames_per_second"], record["mfu"]) == (0.25, 4.0, 8.0)
    window.end_step({"gradient_norm": torch.tensor(1.0)}, 8)
    assert window.record()["data_wait"] == 0.0


def test_bf16_runs(tmp_path):
    run(tmp_path, precision="bf16", steps=3)


def test_unknown_precision(tmp_path):
    with pytest.raises(UsageError, match="fp32 or bf16, got 'fp8'"):
        run(tmp_path, precision="fp8")


def test_diverging_training_stops_with_a_message(tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step 2: lower .* its batch is in ") as caught:
        run(tmp_path, learning_rate=1e30)
    tensors, metadata = load_checkpoint(str(caught.value).rpartition(" ")[2])
    assert torch.equal(tensors["images"], torch.from_numpy(read_batch(1)))  # steps are counted from 1, batches from 0
    assert metadata["bad_step"] == 2


def test_checkpoint_of_another_model_is_refused(tmp_path):
    save_checkpoint(tmp_path / "state.safetensors", {"model/other": torch.zeros(1)}, {"step": 1})
    with pytest.raises(UserError, match="belongs to another model"):
        run(tmp_path)


def test_schedule_warms_up_and_ends_at_zero():
    factors = [learning_rate_factor(step, warmup_steps=4, steps=12) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert learning_rate_factor(12, warmup_steps=4, steps=12) == pytest.approx(0.0)


def test_only_matrices_decay():
    module = MeanColour()
    decayed, plain = parameter_groups(module, 0.05)
    assert {id(parameter) for parameter in decayed["params"]} == {id(module.encoder.weight), id(module.head.weight)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert any(parameter is module.token for parameter in plain["params"])
