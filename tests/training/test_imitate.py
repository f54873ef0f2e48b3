"""The imitation loop: deterministic, resumable to the bit, covers every sample."""

import numpy as np
import pytest
import torch
from torch import nn

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.training.checkpoints import checkpoint_steps, resume_step
from embodied.training.imitate import Training, batch_indices, imitate, mean_metrics


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
        Training(steps=steps, batch_size=16, learning_rate=1e-2, weight_decay=0.0, checkpoints=4),
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
    settings = {"steps": 40, "batch_size": 16, "learning_rate": 1e-2, "weight_decay": 0.1, "checkpoints": 1, **options}
    places = {"checkpoint_folder": folder, "metadata": {}, "device": torch.device("cpu"), "log": records.append}
    return imitate(policy, Samples(), Training(**settings), seed=7, **places, reporter=SilentReporter(), log_every=15)


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


class RecordingPolicy(LinearPolicy):
    """Its loss has a gradient of a known norm; it remembers the type it computed with and every step it made."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 2)
        self.types, self.moves, self.before = [], [], None

    def loss(self, batch, generator=None):
        answer = self.network(batch["features"])
        self.types.append(answer.dtype)
        self.before = self.network.weight.detach().clone()
        return 1000 * (answer - batch["action"]).square().mean(), {}

    def after_step(self):
        self.moves.append((self.network.weight - self.before).abs().max().item())


def test_the_rate_rises_before_it_falls(tmp_path):
    plain, warmed = RecordingPolicy(), RecordingPolicy()
    imitate_with(plain, tmp_path / "plain", [])
    imitate_with(warmed, tmp_path / "warmed", [], warmup_steps=10)
    # Adam's first step is as long as the rate: a tenth of it on the first of ten steps.
    assert warmed.moves[0] == pytest.approx(0.1 * plain.moves[0], rel=1e-3)
    assert warmed.moves[-1] < 0.02 * max(warmed.moves)


def test_a_gradient_is_scaled_to_its_largest_norm(tmp_path):
    grown, clipped, records = RecordingPolicy(), RecordingPolicy(), []
    imitate_with(grown, tmp_path / "grown", [])
    imitate_with(clipped, tmp_path / "clipped", records, clip=1e-3)
    assert all("gradient_norm" in record and record["gradient_norm"] > 1 for record in records)  # as it was
    norm = torch.cat([part.grad.flatten() for part in clipped.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.cat([part.grad.flatten() for part in grown.parameters()]).norm() > 1


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path):
    whole, reduced = RecordingPolicy(), RecordingPolicy()
    imitate_with(whole, tmp_path / "fp32", [], precision="fp32", steps=200)
    path = imitate_with(reduced, tmp_path / "bf16", [], precision="bf16", steps=200)
    assert set(whole.types) == {torch.float32} and set(reduced.types) == {torch.bfloat16}
    saved, _ = load_checkpoint(path)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert (saved["network.weight"] - whole.network.weight).abs().max() < 0.02


def test_warm_up_clipping_and_bf16_resume_to_the_same_weights(tmp_path):
    options = {"warmup_steps": 15, "clip": 0.5, "precision": "bf16", "checkpoints": 4}
    whole, _ = load_checkpoint(imitate_with(LinearPolicy(), tmp_path / "whole", [], **options))
    with pytest.raises(Killed):
        imitate(
            LinearPolicy(), Samples(),
            Training(steps=40, batch_size=16, learning_rate=1e-2, weight_decay=0.1, **options),
            seed=7, checkpoint_folder=tmp_path / "parts", metadata={}, device=torch.device("cpu"),
            log=lambda record: None, reporter=KillingReporter(12),
        )  # fmt: skip
    assert resume_step(tmp_path / "parts") == 10
    parts, _ = load_checkpoint(imitate_with(LinearPolicy(), tmp_path / "parts", [], **options))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


class DivergingPolicy(LinearPolicy):
    def loss(self, batch, generator=None):
        loss, metrics = super().loss(batch, generator)
        self.calls = getattr(self, "calls", 0) + 1
        return (loss / 0 if self.calls == 25 else loss), metrics


def test_a_loss_that_is_not_finite_ends_the_training_and_spoils_no_file(tmp_path):
    with pytest.raises(UserError, match=r"the loss is inf at step 25: lower train.learning_rate, or set train.clip=1"):
        imitate_with(DivergingPolicy(), tmp_path, [], checkpoints=4)
    assert resume_step(tmp_path) == 20
    saved, _ = load_checkpoint(tmp_path / "step_000020.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())


class SteepPolicy(LinearPolicy):
    def loss(self, batch, generator=None):
        loss, metrics = super().loss(batch, generator)
        self.calls = getattr(self, "calls", 0) + 1
        steep = (loss - loss.detach()).sqrt() if self.calls == 40 else 0  # nothing, with an infinite slope
        return loss + steep, metrics


def test_a_last_step_that_spoils_the_weights_is_not_saved(tmp_path):
    with pytest.raises(UserError, match=r"the weights are not finite after step 40: lower train.learning_rate"):
        imitate_with(SteepPolicy(), tmp_path, [], checkpoints=4)
    assert resume_step(tmp_path) == 30 and not (tmp_path / "step_000040.safetensors").exists()


def test_a_record_of_settings_has_later_ones_only_where_they_are_set():
    old = {"steps": 40, "batch_size": 16, "learning_rate": 1e-2, "weight_decay": 0.1, "checkpoints": 1}
    assert Training(**old).record() == {**old, "encoder_learning_rate": None}
    assert Training(**old, clip=1.0).record() == {**old, "encoder_learning_rate": None, "clip": 1.0}
    assert Training(**Training(**old, clip=1.0).record()) == Training(**old, clip=1.0)
