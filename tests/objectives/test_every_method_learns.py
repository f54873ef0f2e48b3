"""Every method, trained on 32 images, ends below what a predictor that looks at nothing reaches on them."""

import math

import pytest
import torch
from tiny_objectives import METHODS, batch, frames, generator, labels, make, train
from torch.nn import functional as F

from embodied.models.patches import patchify
from embodied.objectives.masked.ropim import complement_error
from embodied.objectives.parts.corruptions import count_sketch, projector
from embodied.objectives.parts.hog import hog_target
from embodied.objectives.parts.losses import frequency_error, masked_mean
from embodied.objectives.parts.targets import pixel_target


def spread(target):
    """Mean squared error of always predicting the mean over images, patch by patch of the image."""
    return (target - target.mean(dim=0)).pow(2).mean().item()


def mean_image_in_frequencies(mfm, images):
    low = torch.arange(len(images)) % 2 == 0
    kept = mfm.kept_frequencies(images, low)
    error = frequency_error(images.mean(dim=0).expand_as(images), images).mean(dim=1)
    return masked_mean(error, torch.fft.ifftshift(~kept, dim=(-2, -1)).float(), reduction="batch").item()


def mean_image_in_projection(ropim, images):
    seen = projector(count_sketch(len(images), 16, ropim.rank, generator()))
    return complement_error(patchify(images.mean(dim=0) - images, 8), seen).item()


def entropy_of_codes(beit, images):
    shares = torch.bincount(beit.tokenizer.codes(images).flatten(), minlength=16).float() / (16 * len(images))
    return -(shares * shares.clamp(min=1e-12).log()).sum().item()


def mean_features(distill, images):
    """Of a predictor that says the best constant of every image, patch by patch: 1 - |mean of unit targets|."""
    tokens, whole = (F.normalize(part, dim=-1) for part in distill._look(distill._crop(frames(32), generator())))
    patches, classes = tokens.mean(dim=0).norm(dim=-1), whole.mean(dim=0).norm()
    cosine = (1 - classes + 1 - patches.mean()) / 2
    return (cosine + distill.feature_weight * 2 * (1 - classes) / whole.shape[1]).item()


def median_pixels_and_one_key(macrl, images):
    """The median over images as the prediction, of views without colour changes; every key alike."""
    patches = patchify(images, 8)
    pixels = (patches - patches.median(dim=0).values).abs().mean().item()
    return pixels + macrl.contrast_weight * math.log(1 + len(macrl.queue.value))


def shares_of_classes():
    return torch.bincount(labels(32)) / 32


def everything_alike(look, images):
    """Every other picture weighs the same, and has the class as often as it occurs among them."""
    shares = shares_of_classes()
    return -(shares * ((32 * shares - 1) / 31).log()).sum().item()


# What is reached without looking: the mean, or for classes their frequencies.
TRIVIAL = {
    "mae": lambda objective, images: spread(patchify(images, 8)),
    "pixio": lambda objective, images: spread(pixel_target(images, 8, normalize=True)),
    "maskfeat": lambda objective, images: spread(hog_target(images, 8)[0]),
    "mfm": mean_image_in_frequencies,
    "ropim": mean_image_in_projection,
    "droppos": lambda objective, images: math.log(16),
    "vq": lambda objective, images: spread(patchify(images, 8)),
    "beit": entropy_of_codes,
    "aim": lambda objective, images: spread(patchify(images, 8)),
    "diffmae": lambda objective, images: spread(patchify(images, 8)),
    # A collapsed teacher: every view is told the same. What follows is below only if images are told apart.
    "dino": lambda objective, images: math.log(32),
    "ibot": lambda objective, images: 1.5 * math.log(32),  # half of the views have nothing hidden
    "distill": mean_features,
    "tokenunify": lambda objective, images: spread(patchify(images, 8)),
    "tbm": lambda objective, images: spread(patchify(images, 8)),
    "siammae": lambda objective, images: spread(patchify(images, 8)),
    "croco": lambda objective, images: spread(patchify(images, 8)),
    "macrl": median_pixels_and_one_key,
    "densecl": lambda objective, images: math.log(1 + 48),  # everything looks alike
    "supervised": lambda objective, images: -(shares_of_classes() * shares_of_classes().log()).sum().item(),
    "look": everything_alike,
}
# Of it, where the targets' noise or few steps set a limit; else 0.5.
SHARE = {"mfm": 0.9, "maskfeat": 0.85, "ropim": 0.8, "dino": 0.85, "ibot": 0.9, "densecl": 0.6}
STEPS = {"beit": 150, "maskfeat": 150, "mfm": 250}
RATE = {"dino": 3e-3, "ibot": 3e-3}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_overfits_32_images_below_a_trivial_predictor(name):
    objective = train(make(name), STEPS.get(name, 120), rate=RATE.get(name, 6e-3))
    with torch.no_grad():
        images = objective.encoder.preprocess(frames(32))
        trivial = TRIVIAL[name](objective, images)
        loss = sum(objective(batch(32), generator(seed))[0].item() for seed in range(100, 104)) / 4
    print(f"{name}: loss {loss:.4f}, trivial {trivial:.4f}, ratio {loss / trivial:.3f}")
    assert loss < SHARE.get(name, 0.5) * trivial
