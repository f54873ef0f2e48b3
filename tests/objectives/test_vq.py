"""VQ-GAN's parts: the perceptual distance, the discriminator and its losses, convolutions, and what a run leaves."""

import copy
import math

import pytest
import torch
from tiny_objectives import DECODER, WHOLE, batch, encoder, frames, generator, make, train

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import save_encoder
from embodied.encoders.preprocessing import Normalize
from embodied.encoders.pyramid import PyramidEncoder
from embodied.encoders.tokenizer import FOLDER
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import Codebook
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.masked.vq import VQ
from embodied.objectives.parts.patch_gan import (
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    hinge_loss,
)
from embodied.objectives.parts.perceptual import PerceptualDistance


@pytest.fixture
def eyes(tmp_path):
    """A small network to look with."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_encoder(ViTEncoder(image_size=32, patch_size=8, width=24, depth=2, heads=2), tmp_path / "eyes", card="")
    return f"{tmp_path / 'eyes'}@1+2"


def conv(**options):
    settings = {"codes": 32, "code_width": 8, "decoder_width": 32, "decoder_depth": 1, "crop_scale": WHOLE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VQ(PyramidEncoder(image_size=32, patch_size=8, width=32, stem=4), **{**settings, **options}).train()


def test_the_distance_is_nothing_for_the_same_and_grows_with_the_difference(eyes):
    distance = PerceptualDistance(eyes, normalize=Normalize(32))
    images = Normalize(32)(frames(4))
    assert distance(images, images).item() == pytest.approx(0.0, abs=1e-9)
    noise = torch.randn(images.shape, generator=generator())
    values = [distance(images + scale * noise, images).item() for scale in (0.1, 0.4, 1.6)]
    assert 0 < values[0] < values[1] < values[2]
    seen = images.clone().requires_grad_(True)
    distance(seen, images + noise).backward()
    assert seen.grad.abs().sum() > 0
    assert all(part.grad is None for part in distance.parameters())


def test_another_scale_of_pixels_changes_nothing(eyes):
    """Images come as the tokenizer normalises them, and are seen as the network does."""
    plain, ours = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    both = [Normalize(32), Normalize(32, plain, ours)]
    values = [
        PerceptualDistance(eyes, normalize=each)(each(frames(2)), each(frames(2, seed=1))).item() for each in both
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_the_network_stays_and_is_no_part_of_a_checkpoint(eyes, tmp_path):
    vq = conv(perceptual=1.0, perceptual_network=eyes)
    before = copy.deepcopy(vq.perceptual.network.state_dict())
    vq(batch(4), generator())[0].backward()
    assert all(part.grad is None for part in vq.perceptual.parameters())
    state = vq.state_dict()
    assert not any(name.startswith("perceptual.network.") for name in state)
    vq.load_state_dict(state)
    assert all(torch.equal(part, before[name]) for name, part in vq.perceptual.network.state_dict().items())
    torch.manual_seed(9)
    save_encoder(ViTEncoder(image_size=32, patch_size=8, width=24, depth=2, heads=2), tmp_path / "other", card="")
    with pytest.raises(UserError, match="this training had another perceptual_network"):
        conv(perceptual=1.0, perceptual_network=f"{tmp_path / 'other'}@1+2").load_state_dict(state)
    with pytest.raises(UsageError, match="perceptual_network=pixels does not work"):
        conv(perceptual=1.0, perceptual_network="pixels")


def test_hinge():
    real, drawn = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge_loss(real, drawn).item() == pytest.approx((0.25 + 0.5) / 2)
    assert hinge_loss(torch.zeros(3), torch.zeros(3)).item() == 1.0


def test_the_generator_alone_learns_from_what_the_discriminator_says():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8, layers=2)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    loss = generator_loss(judge, images)
    loss.backward()
    assert loss.item() == pytest.approx(-judge(images).mean().item(), rel=1e-5)
    assert images.grad.abs().sum() > 0
    assert all(part.grad is None for part in judge.parameters())


def test_a_logit_depends_on_its_own_image():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8, layers=3)
    images = torch.randn(3, 3, 32, 32)
    assert judge(images).shape == (3, 1, 2, 2)
    torch.testing.assert_close(judge(images)[:1], judge(images[:1]))
    with pytest.raises(UsageError, match="discriminator_width must be a multiple of 8"):
        PatchDiscriminator(width=12)


def test_the_adaptive_weight_makes_gradients_of_one_length():
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    first, second = (3 * last).sum(), (0.01 * last).pow(2).sum()
    weight = adaptive_weight(first, second, last)
    lengths = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm().item() for loss in (first, weight * second)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.3)  # but for the 1e-4 that keeps it finite
    assert adaptive_weight(first, 0 * second, last).item() == 1e4
    assert not weight.requires_grad


def test_both_sides_learn_and_each_from_its_own_loss():
    vq = make("vqgan")
    loss, metrics = vq(batch(4), generator())
    loss.backward()
    assert {"adversarial_error", "adversarial_weight", "discriminator_error"} <= metrics.keys()
    parts = {name: value for name, value in vq.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in parts.values())
    # The discriminator's gradient is that of its hinge loss alone.
    images = random_resized_crop(vq.encoder.preprocess(frames(4)), generator(), scale=WHOLE)
    drawn = vq.predict(images)[0].detach()
    expected = torch.autograd.grad(
        hinge_loss(vq.discriminator(images), vq.discriminator(drawn)), list(vq.discriminator.parameters())
    )
    for value, gradient in zip(vq.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient, atol=1e-5, rtol=1e-3)


def test_the_discriminator_waits_for_its_step_and_says_nothing_in_evaluation():
    vq = conv(adversarial=1.0, adversarial_start=2, discriminator_width=8, discriminator_layers=2)
    loss, metrics = vq(batch(4), generator())
    loss.backward()
    assert "discriminator_error" not in metrics
    assert all(not part.grad.any() for part in vq.discriminator.parameters())
    assert "discriminator_error" not in vq(batch(4), generator())[1]
    vq.after_step(2, 10)
    resumed = conv(adversarial=1.0, adversarial_start=2, discriminator_width=8, discriminator_layers=2)
    resumed.load_state_dict(vq.state_dict())
    found, again = vq(batch(4), generator()), resumed(batch(4), generator())
    assert "discriminator_error" in found[1] and found[0].item() == again[0].item()
    vq.eval()
    with torch.no_grad():
        quiet, metrics = vq(batch(4), generator())
    assert quiet.item() == pytest.approx(metrics["pixel_error"].item() + metrics["code_error"].item(), rel=1e-5)


def test_under_autocast_the_loss_is_about_the_same():
    vq = make("vqgan")
    exact, _ = copy.deepcopy(vq)(batch(4), generator())
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = vq(batch(4), generator())
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(part.grad is None or part.grad.isfinite().all() for part in vq.parameters())


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_convolutions_learn_to_draw(quantizer):
    """Below what the mean image reaches."""
    vq = train(conv(quantizer=quantizer, levels=(5, 5, 5)), 60, rate=6e-3)
    images = vq.encoder.preprocess(frames(32))
    with torch.no_grad():
        error = (vq.predict(images)[0] - images).pow(2).mean().item()
    assert error < 0.5 * (images - images.mean(dim=0)).pow(2).mean().item()


def test_against_a_discriminator_it_still_learns_to_draw():
    vq = train(make("vqgan"), 60, rate=3e-3)
    images = vq.encoder.preprocess(frames(32))
    with torch.no_grad():
        error = (vq.predict(images)[0] - images).abs().mean().item()
    assert error < 0.6 * (images - images.median(dim=0).values).abs().mean().item()
    assert math.isfinite(vq(batch(4), generator())[0].item())


def test_what_a_run_leaves_is_a_frozen_tokenizer():
    vq = train(conv(), 3)
    (made,) = vq.artifacts().values()
    assert list(vq.artifacts()) == [FOLDER] and vq.exports() == {}  # BEiT's is of a ViT
    assert type(made.quantizer) is Codebook and not made.training
    assert torch.equal(made.codes(frames(3)), vq.eval().tokenizer.codes(frames(3)))
    vit = make("vq")
    assert list(vit.exports()) == ["tokenizer"]
    assert not any(name.startswith("decoder.") for name in vit.exports()["tokenizer"][0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixels": "l2"}, "unknown pixels 'l2'"),
        ({"quantizer": "emma"}, "unknown quantizer 'emma': did you mean ema"),
        ({"decoder": "cnn"}, "unknown decoder 'cnn'"),
        ({"adversarial": -1.0}, "must not be negative"),
        ({"decoder_width": 30}, "decoder_width must be a multiple of decoder_heads=4, got 30"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        VQ(encoder(), **settings)


def test_the_network_is_chosen_by_name():
    sizes = {"image_size": 32, "width": 32, "heads": 3}
    assert isinstance(VQ.make_image_encoder({"network": "conv", **sizes}), PyramidEncoder)
    assert isinstance(VQ.make_image_encoder({"image_size": 32, "patch_size": 8}), ViTEncoder)
    with pytest.raises(UsageError, match=r"unknown encoder\.network 'cnn'"):
        VQ.make_image_encoder({"network": "cnn"})
    with pytest.raises(UsageError, match=r"encoder: .*registers.*, with encoder.network=conv"):
        VQ.make_image_encoder({"network": "conv", "registers": 4})
    mixed = VQ(encoder(), decoder="conv", **{**DECODER, "decoder_width": 32})
    assert mixed.reconstruct(frames(2), generator())[0].shape == (2, 32, 32, 3)
