"""The imitation loop: deterministic, resumable to the bit, covers every sample."""

import numpy as np
import pytest
import torch
from torch import nn

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.training.checkpoints import checkpoint_steps, resume_step
from embodied.training.imitate import batch_indices, imitate, mean_metrics


class LinearPolicy(nn.Module):
    """Predicts the action from the feature; batch norm gives it a buffer and an integer tensor to restore."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Dropout(0.0))

    def loss(self, batch, generator=None):
        noise = torch.randn(batch["features"].shape, generator=generator) * 0.01
        loss = (self.network(batch["features"] + noise) - batch["action"]).pow(2).mean()
        return loss, {"error": loss.detach().sqrt()}

    def trained_tensors(self):
        return self.state_dict()

    def load_trained_tensors(self, tensors):
        self.load_state_dict(tensors)


class Samples:
    def __init__(self, count=50):
        rng = np.random.default_rng(0)
        self.features = torch.from_numpy(rng.normal(size=(count, 3)).astype(np.float32))
        self.action = self.features[:, :2] * 2 + 1

    def __len__(self):
        return len(self.features)

    def batch(self, indices):
        rows = torch.from_numpy(indices)
        return {"features": self.features[rows], "action": self.action[rows]}


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


def run(folder, reporter=None, log=lambda record: None, steps=40):
    return imitate(
        LinearPolicy(),
        Samples(),
        steps=steps,
        batch_size=16,
        learning_rate=1e-2,
        weight_decay=0.0,
        checkpoints=4,
        seed=7,
        checkpoint_folder=folder,
        metadata={"target": "t"},
        device=torch.device("cpu"),
        log=log,
        reporter=reporter or SilentReporter(),
        log_every=10,
    )


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole, _ = load_checkpoint(run(tmp_path / "whole"))
    for at in (5, 23, 37):
        with pytest.raises(Killed):
            run(tmp_path / "killed", KillingReporter(at))
    assert resume_step(tmp_path / "killed") == 30
    resumed, metadata = load_checkpoint(run(tmp_path / "killed"))
    assert metadata == {"target": "t", "step": 40}
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_checkpoints_stand_at_even_distances(tmp_path):
    run(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == [*(f"state_{40:06d}.safetensors",), *(f"step_{step:06d}.safetensors" for step in (10, 20, 30, 40))]


def test_learns_and_logs_means(tmp_path):
    records = []
    run(tmp_path, log=records.append, steps=400)
    assert [record["step"] for record in records] == list(range(10, 401, 10))
    assert records[-1]["loss"] < 0.05 * records[0]["loss"]


class EncodingPolicy(LinearPolicy):
    """With an encoder, a part that freezes itself half-way, as VQ-BeT's does, and a count of steps."""

    def __init__(self):
        super().__init__()
        self.encoder, self.codes, self.calls = nn.Linear(3, 3), nn.Linear(3, 2), 0

    def loss(self, batch, generator=None):
        if self.calls >= 20:
            self.codes.requires_grad_(False)
            self.codes.weight.grad = self.codes.bias.grad = None
            return super().loss({**batch, "features": self.encoder(batch["features"])}, generator)
        loss = (self.codes(self.encoder(batch["features"])) - batch["action"]).square().mean()
        return loss, {"reconstruction": loss.detach()}

    def after_step(self):
        self.calls += 1


def imitate_with(policy, folder, records, **options):
    settings = {"steps": 40, "batch_size": 16, "learning_rate": 1e-2, "weight_decay": 0.1, "checkpoints": 1, "seed": 7}
    places = {"checkpoint_folder": folder, "metadata": {}, "device": torch.device("cpu"), "log": records.append}
    return imitate(policy, Samples(), **settings, **places, reporter=SilentReporter(), log_every=15, **options)


def test_the_encoder_learns_at_a_rate_of_its_own(tmp_path):
    moved = []
    for rate in (1e-2, 1e-4):
        policy = EncodingPolicy()
        before = policy.encoder.weight.detach().clone()
        imitate_with(policy, tmp_path / str(rate), [], encoder_learning_rate=rate)
        moved.append((policy.encoder.weight - before).abs().max().item())
    assert moved[1] < 0.05 * moved[0]


def test_a_policy_hears_of_every_step_and_may_change_what_it_measures(tmp_path):
    policy, records = EncodingPolicy(), []
    imitate_with(policy, tmp_path, records)
    assert policy.calls == 40
    assert [set(record) for record in records] == [
        {"step", "loss", "reconstruction"},
        {"step", "loss", "reconstruction", "error"},
        {"step", "loss", "error"},
    ]


def test_metrics_are_averaged_over_the_steps_that_have_them():
    assert mean_metrics([{"a": 1.0}, {"a": 2.0, "b": 5.0}]) == {"a": 1.5, "b": 5.0}


def test_an_epoch_is_a_permutation():
    seen = np.concatenate([batch_indices(12, 4, step, seed=0) for step in range(3)])
    assert sorted(seen) == list(range(12))
    assert not np.array_equal(batch_indices(12, 4, 0, seed=0), batch_indices(12, 4, 3, seed=0))


def test_batch_is_at_most_the_number_of_samples():
    assert sorted(batch_indices(3, 256, 5, seed=0)) == [0, 1, 2]


def test_checkpoints_must_fit():
    assert checkpoint_steps(10, 3) == [3, 7, 10]
    assert checkpoint_steps(0, 4) == [0]  # nothing is trained
    with pytest.raises(UsageError, match=r"must be in \[1, train.steps=3\], got 4"):
        checkpoint_steps(3, 4)
