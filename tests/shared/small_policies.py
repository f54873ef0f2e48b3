"""Small parts that tests of whole policies share."""

import torch
from torch import nn

from embodied.core.seeding import torch_generator
from embodied.policies.head_kinds import KINDS

PLAIN_HEADS = [name for name in KINDS if name != "gr1"]  # that go with any encoder; GR-1's goes with its own

SMALL = {
    "gmm": {"hidden": [16]},
    "rnn_gmm": {"width": 16},
    "act": {"width": 16, "heads": 2, "hidden": 32, "encoder_layers": 1, "vae_layers": 1},
    "diffusion": {
        "network_options": {"channels": [8, 16], "groups": 4, "kernel_size": 3, "time_width": 8},
        "levels": 8,
    },
    "flow": {"network_options": {"channels": [8, 16], "groups": 4, "kernel_size": 3, "time_width": 8}},
    "vq_bet": {"latent_dim": 8, "vq_hidden": 16, "width": 16, "depth": 1, "heads": 2, "codebook_steps": 0},
    "bins": {"hidden": [16], "bins": 8, "decode": "sample"},
}


class TinyEncoder(nn.Module):
    """Pooled feature = mean colour times a weight; tokens = the pixels."""

    modality, width, grid, trainable = "image", 3, (8, 8), False

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def preprocess(self, frames):
        return frames.permute(0, 3, 1, 2).float() / 255

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2) * self.scale
        return tokens, {"pooled": tokens.mean(1)}


class HashedText:
    """A text encoder that gives each text random values of its own; remembers what it was asked."""

    def __init__(self, width=6):
        self.width, self.asked = width, []

    def encode(self, texts):
        self.asked += texts
        return torch.stack([torch.randn(self.width, generator=torch_generator(0, text)) for text in texts])

    def config(self):
        return {"name": "hashed", "width": self.width}
