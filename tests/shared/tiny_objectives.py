"""Every pre-training method at the size of a test: 32 x 32 pixels, 4 x 4 patches.

Adding a method here is adding it to the tests of every method: tests/objectives/test_every_*.py and the loop's.
"""

import math

import torch

from embodied.encoders.vit import ViTEncoder
from embodied.objectives.distill import Distill
from embodied.objectives.masked.aim import AIM
from embodied.objectives.masked.beit import BEiT
from embodied.objectives.masked.croco import CroCo
from embodied.objectives.masked.diffmae import DiffMAE
from embodied.objectives.masked.droppos import DropPos
from embodied.objectives.masked.mae import MAE
from embodied.objectives.masked.maskfeat import MaskFeat
from embodied.objectives.masked.mfm import MFM
from embodied.objectives.masked.pixio import Pixio
from embodied.objectives.masked.ropim import ROPIM
from embodied.objectives.masked.siammae import SiamMAE
from embodied.objectives.masked.tbm import TBM
from embodied.objectives.masked.tokenunify import TokenUnify
from embodied.objectives.masked.vq import VQ
from embodied.objectives.parts.quantizers import VectorQuantizer
from embodied.objectives.parts.tokenizer import Tokenizer
from embodied.objectives.self_distillation.densecl import DenseCL
from embodied.objectives.self_distillation.dino import DINO
from embodied.objectives.self_distillation.ibot import IBOT
from embodied.objectives.self_distillation.macrl import MACRL
from embodied.objectives.supervised import Supervised

WHOLE = (1.0, 1.0)  # crops of the whole image, of another aspect ratio only
DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
DISTILLED = {
    "prototypes": 32,
    "hidden": 32,
    "bottleneck": 16,
    "local_crops": 2,
    "local_patches": 2,
    "strength": 0.2,
    "momentum": 0.9,
    "freeze_last": 0.0,
}
CONTRAST = {"hidden": 32, "outputs": 16, "queue": 48, "momentum": 0.9}


def encoder(**options):
    return ViTEncoder(image_size=32, patch_size=8, width=32, depth=2, heads=2, **options)


def tokenizer():
    made = Tokenizer(encoder(), VectorQuantizer(codes=16, width=4))
    with torch.no_grad():  # codes that spread over what the network makes of images
        vectors = made.quantizer.scaled(made.vectors(made.encoder.preprocess(frames(32))))
        made.quantizer.book.copy_(vectors.flatten(0, 1)[:: 32 * 16 // 16])
    return made.requires_grad_(False).eval()


def teacher():
    """Of another grid and width than what learns from it."""
    return ViTEncoder(image_size=48, patch_size=8, width=24, depth=2, heads=2)


METHODS = {
    "mae": lambda: MAE(encoder(), crop_scale=WHOLE, **DECODER),
    "pixio": lambda: Pixio(encoder(class_tokens=4, positions="learned"), grid=2, crop_scale=WHOLE, **DECODER),
    "maskfeat": lambda: MaskFeat(encoder(), crop_scale=WHOLE),
    "mfm": lambda: MFM(encoder(), radius=4, crop_scale=WHOLE),
    "ropim": lambda: ROPIM(encoder(), rank=4, crop_scale=WHOLE),
    "droppos": lambda: DropPos(encoder(), mask_ratio=0.5, position_ratio=0.5, crop_scale=WHOLE, **DECODER),
    "vq": lambda: VQ(encoder(), codes=32, code_width=8, crop_scale=WHOLE, **DECODER),
    "beit": lambda: BEiT(encoder(), tokenizer=tokenizer(), crop_scale=WHOLE),
    "aim": lambda: AIM(encoder(class_tokens=0), head_width=64, head_depth=1, crop_scale=WHOLE),
    "diffmae": lambda: DiffMAE(encoder(), crop_scale=WHOLE, **DECODER),
    "dino": lambda: DINO(encoder(), koleo_weight=0.1, **DISTILLED),
    "ibot": lambda: IBOT(encoder(), **DISTILLED),
    "distill": lambda: Distill(encoder(), teacher=teacher(), feature_weight=10.0, hidden=32, crop_scale=WHOLE),
    "densecl": lambda: DenseCL(encoder(), strength=0.2, **CONTRAST),
    "tbm": lambda: TBM(encoder(), noise=0.1, crop_scale=WHOLE, **DECODER),
    "tokenunify": lambda: TokenUnify(encoder(class_tokens=0), head_width=64, head_depth=1, crop_scale=WHOLE),
    "macrl": lambda: MACRL(encoder(), crop_scale=WHOLE, strength=0.2, **CONTRAST, **DECODER),
    "siammae": lambda: SiamMAE(encoder(), mask_ratio=0.9, crop_scale=WHOLE, **DECODER),
    "croco": lambda: CroCo(encoder(class_tokens=0), mask_ratio=0.75, jitter=0.1, crop_scale=WHOLE, **DECODER),
    "supervised": lambda: Supervised(encoder(), classes=3, smoothing=0.0, strength=0.1, crop_scale=WHOLE),
    "look": lambda: Supervised(
        encoder(), classes=3, loss="look", neighbours=8, hidden=32, outputs=16, bank=16, crop_scale=WHOLE
    ),
}

# Methods in further settings, tested in part.
VARIANTS = {
    "vqgan": lambda: VQ(
        encoder(),
        **{"codes": 32, "code_width": 8, "crop_scale": WHOLE, "pixels": "l1", **DECODER},
        **{"adversarial": 0.5, "discriminator_width": 8, "discriminator_layers": 2},
    ),
}


def make(name):
    """A method with the weights of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {**METHODS, **VARIANTS}[name]().train()


def frames(count, seed=0):
    """uint8 [count, 32, 32, 3]: red and green are ramps, at right angles, in one of nine directions; blue is even."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.radians(40) * torch.randint(9, (count, 1, 1), generator=generator) + math.radians(15)
    place = torch.linspace(-0.7, 0.7, 32)
    y, x = torch.meshgrid(place, place, indexing="ij")
    red, green = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    blue = torch.rand(count, 1, 1, generator=generator).expand(-1, 32, 32) - 0.5
    pixels = torch.stack([red, green, blue], dim=-1) / 2 + 0.5
    return (pixels.clamp(0, 1) * 255).to(torch.uint8)


def labels(count, seed=0):
    """int64 [count]: in which of three thirds of the circle the direction of the ramps of `frames` lies."""
    return torch.randint(9, (count, 1, 1), generator=torch.Generator().manual_seed(seed)).flatten() // 3


def partners(images):
    """uint8 [count, 1, 32, 32, 3]: the images a moment before, three pixels to the left."""
    return images.roll(-3, dims=2)[:, None]


def batch(count, seed=0):
    """What the loop may hand to an objective."""
    images = frames(count, seed)
    return {"images": images, "labels": labels(count, seed), "partners": partners(images)}


def generator(seed=0):
    """Of a seed."""
    return torch.Generator().manual_seed(seed)


def train(objective, steps, rate=3e-3, seed=1):
    """The objective after some steps on the same 32 images, with warm-up and a linear decay."""
    draws, images = generator(seed), batch(32)
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=rate)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 10) * min(1.0, 2 - 2 * step / (steps + 1))
        loss, _ = objective(images, draws)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 3.0)
        optimizer.step()
        if hasattr(objective, "after_step"):
            objective.after_step(step, steps)
    return objective
