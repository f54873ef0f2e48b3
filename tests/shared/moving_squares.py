"""Videos at the size of a test: a square moves over a ring of places, as codes and as frames, and a tiny MaskViT."""

import torch

from embodied.core.protocols import ACTION
from embodied.encoders.artifact import freeze
from embodied.encoders.maskvit import MaskViTEncoder
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import Codebook
from embodied.objectives.video.maskvit import MaskViT

SIDE, GRID, FRAMES, CODES = 16, 4, 5, 8
VIEW = "observation.images.front"
GROUNDS = 3  # codes 0 to 2 are backgrounds, the others squares


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tokenizer():
    """16 x 16 pixels, a grid of 4 x 4, 8 codes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ViTEncoder(image_size=SIDE, patch_size=SIDE // GRID, width=16, depth=1, heads=2)
        encoder.vit.embed.weight.data *= 10  # else places decide the codes, not pixels
        decoder = {"kind": "vit", "width": 16, "depth": 1, "heads": 2}
        return freeze(FrameTokenizer(encoder=encoder, quantizer=Codebook(codes=CODES, width=4), decoder=decoder))


def make_encoder(**options):
    """With random weights of seed 1."""
    sizes = {ACTION: options.pop("action_dim", 2), "steps": options.pop("steps", FRAMES)}
    network = {"width": 32, "depth": 2, "heads": 2, "temporal_window": 2, **options}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return MaskViT.make_encoder(tokenizer=tokenizer(), network=network, sizes=sizes, camera="front")


def make(*, objective=None, **options):
    """MaskViT in training mode."""
    encoder = make_encoder(**options)
    assert isinstance(encoder, MaskViTEncoder)
    return MaskViT(encoder, **(objective or {})).train()


def clips(rows, *, frames=FRAMES, seed=0):
    """A square of 2 x 2 places moves sideways by `action` in every step, round the edges; it and the ground vary."""
    draws = generator(seed)
    ground = torch.randint(0, GROUNDS, (rows, 1, 1, 1), generator=draws)
    ink = torch.randint(GROUNDS, CODES, (rows, 1, 1, 1), generator=draws)
    moves = torch.randint(0, 2, (rows, frames, 2), generator=draws)
    moves[..., 0] = 0
    start = torch.randint(0, GRID, (rows, 1, 2), generator=draws)
    corner = torch.cat([start, start + moves[:, :-1].cumsum(dim=1)], dim=1)  # (B, T, 2)
    place = torch.arange(GRID)
    inside = ((place - corner[..., None]) % GRID) < 2  # (B, T, 2, GRID)
    square = inside[:, :, 0, :, None] & inside[:, :, 1, None, :]
    codes = torch.where(square, ink, ground).flatten(2)
    return {
        "codes": codes,
        ACTION: moves.float(),
        f"{ACTION}_is_pad": torch.zeros(rows, frames, dtype=torch.bool),
    }


def pictures(rows, *, frames=FRAMES, seed=0):
    """Random frames uint8 [B, T, 16, 16, 3]."""
    return torch.randint(0, 256, (rows, frames, SIDE, SIDE, 3), generator=generator(seed), dtype=torch.uint8)
