"""Clips at the size of a test: tokenizers of 16 x 16 pixels and four codes a frame, clips of stores and films."""

from fractions import Fraction

import av
import numpy as np
import torch
from tiny_sequences import SIDE

from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.clip_sources import Codes, open_clips
from embodied.datasets.loading.sequence_sources import Caches
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.pyramid import PyramidEncoder
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import FSQ, Codebook

VIT = {"kind": "vit", "width": 16, "depth": 1, "heads": 2}
CONV = {"kind": "conv", "width": 32, "depth": 1, "stem": 2}


def tokenizer(seed=0, *, kind="vit", codes=16):
    """With random weights; `codes=None` for finite scalars."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        book = FSQ(levels=(3, 3, 2)) if codes is None else Codebook(codes=codes, width=4)
        if kind == "vit":
            encoder = ViTEncoder(image_size=SIDE, patch_size=8, width=16, depth=1, heads=2)
        else:
            encoder = PyramidEncoder(image_size=SIDE, patch_size=8, width=32, stem=2)
        return freeze(FrameTokenizer(encoder=encoder, quantizer=book, decoder=VIT if kind == "vit" else CONV))


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def clips_of(root, *paths, reporter=None, made=None, **options):
    """Clips of stores and films, as `open_clips` makes them."""
    made = made or tokenizer()
    return open_clips(
        paths,
        codes=Codes(tokenizer=made, fingerprint=fingerprint(made)),
        caches=Caches(root=root, max_bytes=None, device=torch.device("cpu"), reporter=reporter or SilentReporter()),
        **{"frames": 3, **options},
    )


def write_film(path, *, frames=6, height=16, width=16, fps=10, seed=0):
    """A film of random blocks, a key frame each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 1
        for _ in range(frames):
            blocks = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            picture = np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
