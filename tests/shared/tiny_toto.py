"""Toto at the size of a test, on the clips of `moving_squares`."""

import torch
from moving_squares import CODES, FRAMES, GRID, tokenizer

from embodied.core.protocols import ACTION
from embodied.models.sequence.toto import TotoNetwork
from embodied.objectives.video.toto import Toto

SMALL = {"width": 32, "depth": 2, "heads": 2}


def network(*, grid=(GRID, GRID), **options):
    """With random weights of seed 0, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"cameras": ["front"], "grid": grid, "vocabulary": CODES, "context": FRAMES, "size": None}
        return TotoNetwork(**{**sizes, **SMALL, **options}).eval()


@torch.no_grad()
def sharpened(module):
    """With weights so large that what it reads makes a difference."""
    for part in module.parameters():
        part.mul_(6)
    return module


def make_encoder(*, steps=FRAMES, action_dim=2, **options):
    """With random weights of seed 1."""
    sizes = {ACTION: action_dim, "steps": steps}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Toto.make_encoder(tokenizer=tokenizer(), network={**SMALL, **options}, sizes=sizes, camera="front")


def make(*, objective=None, **options):
    """The objective in training mode."""
    return Toto(make_encoder(**options), **(objective or {})).train()
