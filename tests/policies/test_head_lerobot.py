"""Heads compute what lerobot 0.4.4's policies compute from the same weights (tests/oracles/heads_lerobot_*.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embodied.policies.heads.act import ACTHead
from embodied.policies.heads.chunks import prepare
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.flow import FlowHead
from embodied.policies.heads.networks.gpt import GPT
from embodied.policies.heads.networks.time_embedding import TimeEmbedding
from embodied.policies.heads.temporal_ensemble import ensemble, initial_ensemble
from embodied.policies.heads.vq_bet import VQBeTHead
from embodied.policies.necks.spatial_softmax import SpatialSoftmax

from ..oracles.heads_numbers import fill, tensor

PAD_MASK = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
OVER_ALL = 13 / 16  # lerobot divides by all steps, padded ones included; ours by the 13 real ones


@pytest.fixture(scope="module")
def golden():
    files = (Path(__file__).parent / "fixtures").glob("heads_lerobot_*.npz")
    return {name: array for file in files for name, array in np.load(file).items()}


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=atol, rtol=1e-4)


@pytest.fixture(scope="module")
def diffusion():
    head = DiffusionHead(
        feature_dim=5,
        history=2,
        horizon=8,
        action_dim=2,
        network_options={"channels": (16, 32, 64), "time_width": 16},
        sampler="ddim",
    )
    fill(dict(head.network.named_parameters()))
    features = torch.cat([tensor("diffusion state", 2, 2, 2), tensor("diffusion env", 2, 2, 3)], dim=-1)
    return head.eval(), features, tensor("diffusion noise", 2, 8, 2)


def test_unet(golden, diffusion):
    head, features, x = diffusion
    close(head.network(x, torch.tensor([3, 80]), features), golden["diffusion_output"])


def test_ddim_sample_of_the_whole_diffusion_head(golden, diffusion):
    head, features, noise = diffusion
    close(head.sample(features, noise=noise[:, None]), golden["diffusion_sample"], atol=1e-4)


def test_diffusion_loss(golden, diffusion):
    """lerobot noises the padded actions it was given, ours hold the last real one: the same once the data does too."""
    head, features, noise = diffusion
    actions = tensor("diffusion action", 2, 8, 2).clamp(-1, 1)
    ours = head.denoising_loss(features, actions, torch.ones_like(PAD_MASK), torch.tensor([3, 80]), noise)
    noisy = head.schedule.add_noise(actions, noise, torch.tensor([3, 80]))
    errors = (head.network(noisy, torch.tensor([3, 80]), features) - noise).square()
    close(ours, errors.mean().detach().numpy())
    close((errors * PAD_MASK[..., None]).mean(), golden["diffusion_loss_over_all"])


@pytest.fixture(scope="module")
def act():
    head = ACTHead(
        feature_dim=3,
        history=2,
        horizon=8,
        action_dim=2,
        width=16,
        heads=2,
        hidden=24,
        encoder_layers=2,
        vae_layers=2,
        latent_dim=4,
        dropout=0.0,
    )
    fill(dict(head.named_parameters()))
    return head, tensor("act features", 2, 2, 3), tensor("act action", 2, 8, 2)


def test_act_posterior_does_not_see_padded_steps(golden, act):
    head, features, actions = act
    mean, log_variance = head.posterior(features, actions, PAD_MASK)
    close(mean, golden["act_mean"])
    close(log_variance, golden["act_log_variance"])
    held, _ = prepare(head, actions, PAD_MASK, None)
    close(head.posterior(features, held, PAD_MASK)[0], golden["act_mean"])


def test_act_chunks_with_a_given_style_and_at_test_time(golden, act):
    head, features, _ = act
    mean, log_variance = torch.from_numpy(golden["act_mean"]), torch.from_numpy(golden["act_log_variance"])
    z = mean + (log_variance / 2).exp() * tensor("act noise", 2, 4)
    close(head.decode(features, z), golden["act_train_chunk"])
    close(head.sample(features), golden["act_test_chunk"])


def test_act_loss(golden, act, monkeypatch):
    head, features, actions = act
    monkeypatch.setattr("embodied.policies.heads.act.draw_normal", lambda *_, **__: tensor("act noise", 2, 4))
    loss, metrics = head.loss(features, actions, PAD_MASK)
    close(metrics["action_error"] * OVER_ALL, golden["act_l1_over_all"])
    close(metrics["kl"], golden["act_kl"])
    close(loss - metrics["action_error"] * (1 - OVER_ALL), golden["act_loss_over_all"])


def test_temporal_ensemble(golden):
    chunks = tensor("ensemble chunks", 12, 2, 5, 3)
    carry = initial_ensemble(2, 5, 3, like=chunks)
    for chunk, expected in zip(chunks, golden["ensembled"], strict=True):
        carry, action = ensemble(carry, chunk)
        close(action, expected)


@pytest.fixture
def vq_bet():
    head = VQBeTHead(
        feature_dim=3,
        history=2,
        horizon=4,
        action_dim=2,
        codes=6,
        latent_dim=8,
        vq_hidden=12,
        codebook_steps=1,
        width=16,
        depth=1,
        heads=2,
        dropout=0.0,
        offset_codes="sampled",
        temperature=1e-6,
    )
    fill(dict(head.named_parameters()))
    books = tensor("codebooks", 2, 6, 8)
    head.quantizer.codebooks.copy_(books)
    head.quantizer.sums.copy_(books)
    head.quantizer.counts.fill_(1.0)
    head.quantizer.started.fill_(True)
    return head, tensor("vq actions", 7, 4, 2)


def test_vq_bet_codes_are_learned_alike(golden, vq_bet):
    head, actions = vq_bet
    loss, metrics = head.train().loss(tensor("any", 7, 2, 3), actions, torch.ones(7, 4, dtype=torch.bool))
    loss.backward()
    close(loss, golden["vq_code_loss"])
    close(metrics["reconstruction_error"], golden["vq_reconstruction"])
    assert metrics["codes_used"] == len(np.unique(golden["vq_train_codes"], axis=0))
    close(head.encoder[0].weight.grad, golden["vq_encoder_gradient"])
    close(head.quantizer.codebooks, golden["vq_codebooks"])


def test_vq_bet_codes_offsets_and_loss(golden, vq_bet, monkeypatch):
    head, actions = vq_bet
    head.steps.fill_(1)
    outputs = tensor("vq outputs", 7, 16)
    predicted = head.eval().decide(outputs, torch.zeros(7, 2))
    close(predicted.logits, golden["vq_logits"])
    assert np.array_equal(predicted.codes.numpy(), golden["vq_codes"])
    close(predicted.chunk, golden["vq_chunk"])
    assert np.array_equal(head.quantizer(head.encoder(actions.flatten(1)))[1].numpy(), golden["vq_target"])
    monkeypatch.setattr(head, "read", lambda features: outputs)
    loss, metrics = head.loss(tensor("any", 7, 2, 3), actions, torch.ones(7, 4, dtype=torch.bool))
    close(loss, golden["vq_loss"])
    close(metrics["action_error"], golden["vq_offset"])


def test_gpt(golden):
    gpt = GPT(tokens=5, width=16, depth=2, heads=2, dropout=0.0)
    fill(dict(gpt.named_parameters()))
    close(gpt(tensor("gpt tokens", 2, 5, 16)), golden["gpt"])


class Velocity(torch.nn.Module):
    def forward(self, x, tau, features):
        return torch.tanh(1.3 * x.flip(-1) + 0.5 * tau[:, None, None] - 0.2)


def test_flow_sampler_and_loss(golden):
    head = FlowHead(feature_dim=1, horizon=4, action_dim=2, network_options={"channels": (8,)})
    head.network = Velocity()
    features, noise = torch.zeros(2, 1, 1), tensor("flow noise", 2, 4, 2)
    close(head.sample(features, noise=noise), golden["flow_sample"])
    tau, real = torch.tensor([0.25, 0.9]), torch.ones(2, 4, dtype=torch.bool)
    loss = head.velocity_loss(features, tensor("flow action", 2, 4, 2), real, tau, noise)
    close(loss, golden["flow_errors"].mean())
    close(TimeEmbedding(16)(tau), golden["flow_embedding"], atol=1e-4)  # lerobot's angles are float64


def test_spatial_softmax(golden):
    neck = SpatialSoftmax(grid=(4, 6), width=5, keypoints=3)
    fill(dict(neck.named_parameters()))
    close(neck(tensor("keypoint tokens", 2, 24, 5)[:, None])[:, 0], golden["keypoints"].reshape(2, 6))
