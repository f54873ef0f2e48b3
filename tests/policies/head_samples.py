"""Heads as small as they get, and a distribution with two modes: what the tests of all heads share."""

from functools import partial

import torch

from embodied.policies.heads.act import ACTHead
from embodied.policies.heads.bins import BinsHead
from embodied.policies.heads.diffusion import DiffusionHead
from embodied.policies.heads.flow import FlowHead
from embodied.policies.heads.gmm import GMMHead
from embodied.policies.heads.mlp import MLPHead
from embodied.policies.heads.rnn_gmm import RNNGMMHead
from embodied.policies.heads.vq_bet import VQBeTHead

UNET = {"channels": (16, 32), "groups": 4, "kernel_size": 3, "time_width": 16}
TRANSFORMER = {"width": 16, "depth": 2, "heads": 2}
VQ_BET = {"latent_dim": 8, "vq_hidden": 16, "width": 16, "depth": 2, "heads": 2}
T = H = 4
V, A = 3, 2

MAKERS = {
    "mlp": partial(MLPHead, hidden=(16,)),
    "mlp-batch-norm": partial(MLPHead, hidden=(16,), batch_norm=True, error="l1"),
    "mlp-tanh": partial(MLPHead, hidden=(16,), tanh=True, error="huber"),
    "gmm": partial(GMMHead, hidden=(16,)),
    "rnn_gmm": partial(RNNGMMHead, width=16),
    "act": partial(ACTHead, width=16, heads=2, hidden=32, encoder_layers=1, vae_layers=1, latent_dim=4),
    "act-prior": partial(
        ACTHead, width=16, heads=2, hidden=32, encoder_layers=1, vae_layers=1, latent_dim=4, sample_prior=True
    ),
    "diffusion-unet": partial(DiffusionHead, levels=20, network_options=UNET),
    "diffusion-transformer": partial(
        DiffusionHead, levels=20, network="transformer", network_options=TRANSFORMER, sampler="ddim", sample_steps=5
    ),
    "flow-unet": partial(FlowHead, network_options=UNET),
    "flow-transformer": partial(FlowHead, network="transformer", network_options=TRANSFORMER),
    "bins": partial(BinsHead, bins=16, hidden=(16,)),
    "bins-sample": partial(BinsHead, bins=16, hidden=(16,), decode="sample"),
    "vq_bet-codes": partial(VQBeTHead, **VQ_BET),
    "vq_bet": partial(VQBeTHead, codebook_steps=0, **VQ_BET),
}


def make_head(name):
    torch.manual_seed(0)
    return MAKERS[name](feature_dim=V, history=T, horizon=H, action_dim=A)


def make_batch(batch=8, seed=1):
    """Features, actions within [-0.9, 0.9], and a pad mask with whole, cut and empty chunks."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, T, V, generator=generator)
    actions = torch.rand(batch, H, A, generator=generator) * 1.8 - 0.9
    lengths = torch.tensor([H, 3, 2, 1, 0, H, H, 2])[:batch]
    return features, actions, torch.arange(H) < lengths[:, None]


def two_modes(batch, generator, *, horizon=H, moments=T):
    """Chunks that are all near +0.6 or all near -0.6, at random: the features are 1 and say nothing about it."""
    sign = torch.randint(0, 2, (batch, 1, 1), generator=generator) * 2.0 - 1
    actions = 0.6 * sign + 0.03 * torch.randn(batch, horizon, A, generator=generator)
    return torch.ones(batch, moments, V), actions


def fit_two_modes(head, *, steps, batch=64, learning_rate=1e-3, seed=0):
    """Trains on fresh draws of `two_modes`, the rate falling to zero, and leaves the head in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate)
    head.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        features, actions = two_modes(batch, generator, horizon=head.horizon, moments=head.history)
        loss, _ = head.loss(features, actions, torch.ones(batch, head.horizon, dtype=torch.bool), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def shares(samples):
    """The share of chunks [B, H, A] wholly near +0.6, and wholly near -0.6."""
    near = [((samples - mode).abs() < 0.25).flatten(1).all(dim=1).float().mean().item() for mode in (0.6, -0.6)]
    return near[0], near[1]
