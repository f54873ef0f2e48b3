"""Demonstrations that go left or right at random: heads that can must do both, regression must land between.

All chunks are near +0.6 or near -0.6; the features say nothing about which.
"""

from functools import partial

import pytest
import torch

from embodied.policies.heads.act import ACTHead
from embodied.policies.heads.bins import BinsHead
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.flow import FlowHead
from embodied.policies.heads.gmm import GMMHead
from embodied.policies.heads.mlp import MLPHead
from embodied.policies.heads.rnn_gmm import RNNGMMHead
from embodied.policies.heads.vq_bet import VQBeTHead

from .head_samples import A, H, V, fit_two_modes, shares, two_modes

UNET = {"channels": (32,), "kernel_size": 3, "time_width": 16}
TRANSFORMER = {"width": 32, "depth": 1, "heads": 2, "dropout": 0.0}
SMALL_ACT = {"width": 16, "heads": 2, "hidden": 32, "encoder_layers": 1, "vae_layers": 1, "latent_dim": 2}
SMALL_VQ = {"latent_dim": 16, "vq_hidden": 32, "width": 32, "depth": 2, "heads": 2}

WHOLE_CHUNKS = {  # head, updates, learning rate
    "gmm": (partial(GMMHead, hidden=(32,)), 200, 3e-3),
    "diffusion-unet": (partial(DiffusionHead, levels=20, network_options=UNET), 250, 5e-3),
    "diffusion-transformer": (
        partial(DiffusionHead, levels=20, network="transformer", network_options=TRANSFORMER, prediction="sample"),
        300,
        5e-3,
    ),
    "flow": (partial(FlowHead, network_options=UNET), 250, 5e-3),
    "vq_bet": (partial(VQBeTHead, codebook_steps=80, **SMALL_VQ), 200, 4e-3),
}


def fitted(maker, steps, learning_rate, *, history=1):
    torch.manual_seed(0)
    head = maker(feature_dim=V, history=history, horizon=H, action_dim=A)
    return fit_two_modes(head, steps=steps, learning_rate=learning_rate)


@torch.no_grad()
def samples(head, count=400):
    return head.sample(torch.ones(count, head.history, V), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", WHOLE_CHUNKS)
def test_samples_are_whole_chunks_of_either_mode(name):
    maker, steps, learning_rate = WHOLE_CHUNKS[name]
    up, down = shares(samples(fitted(maker, steps, learning_rate)))
    assert up > 0.2 and down > 0.2
    assert up + down > 0.7


@pytest.mark.parametrize(
    ("maker", "history"),
    [(partial(RNNGMMHead, width=16), H), (partial(BinsHead, bins=32, hidden=(32,), decode="sample"), 1)],
    ids=["rnn_gmm", "bins"],
)
def test_heads_that_choose_per_step_give_either_mode_at_every_step(maker, history):
    """rnn_gmm chooses per step, bins per value: they know both modes, but not that a chunk keeps to one."""
    chunks = samples(fitted(maker, 200, 3e-3, history=history))
    near = ((chunks.abs() - 0.6).abs() < 0.25).float().mean()
    positive = (chunks > 0).float().mean()
    assert near > 0.9
    assert 0.3 < positive < 0.7


@pytest.mark.parametrize("error", ["mse", "huber"])
def test_regression_lands_between_the_modes(error):
    head = fitted(partial(MLPHead, hidden=(32,), error=error, beta=1.0), 200, 3e-3)
    assert samples(head).abs().max() < 0.3


def test_act_reaches_both_modes_by_its_style_and_gives_one_answer_without():
    head = fitted(partial(ACTHead, kl_weight=0.02, dropout=0.0, **SMALL_ACT), 250, 5e-3)
    answers = samples(head)
    assert (answers == answers[0]).all()
    head.sample_prior = True
    up, down = shares(samples(head))
    assert up > 0.2 and down > 0.2 and up + down > 0.7
    _, actions = two_modes(100, torch.Generator().manual_seed(2))
    features = torch.ones(100, 1, V)
    with torch.no_grad():
        mean, _ = head.posterior(features, actions, torch.ones(100, H, dtype=torch.bool))
        assert (head.decode(features, mean) - actions).abs().mean() < 0.15
