"""SiamMAE and CroCo: what is hidden stays hidden, the other view is seen whole and is needed, numbers by hand."""

import copy

import numpy as np
import pytest
import torch
from tiny_objectives import DECODER, WHOLE, batch, encoder, frames, generator, make, partners, train
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.masked.croco import CroCo
from embodied.objectives.masked.siammae import SiamMAE
from embodied.objectives.parts.pairings import CameraPairs, PlacePairs, TimePairs

BOTH = ("siammae", "croco")


def views(name, count=1):
    """The objective in eval mode, two views as leaves, and mask noise."""
    objective = make(name).eval()
    pixels = objective.encoder.preprocess(frames(count))
    other = objective.encoder.preprocess(partners(frames(count))[:, 0])
    noise = torch.rand(count, 16, generator=generator())
    return objective, pixels.requires_grad_(True), other.requires_grad_(True), noise


def reached(gradient):
    """bool [B, 16]: patches whose pixels have any."""
    return gradient.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum(dim=(1, 4, 5)).flatten(1) > 0


@pytest.mark.parametrize("name", BOTH)
def test_predictions_see_the_visible_patches_and_all_of_the_other_view(name):
    objective, view, other, noise = views(name)
    done = objective.masked_loss(view, other, noise)
    hidden = (done.prediction * done.mask[..., None]).sum()
    to_view, to_other = torch.autograd.grad(hidden, [view, other])
    assert torch.equal(reached(to_view), ~done.mask.bool())
    assert reached(to_other).all()


@pytest.mark.parametrize("name", BOTH)
def test_only_hidden_patches_are_trained_on(name):
    objective, view, other, noise = views(name, count=3)
    done = objective.masked_loss(view, other, noise)
    (gradient,) = torch.autograd.grad(done.loss, done.prediction)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, done.mask.bool())


@pytest.mark.parametrize(("kind", "kept"), [(SiamMAE, 9), (CroCo, 19)])
def test_as_many_patches_are_hidden_as_the_papers_hide_of_196(kind, kept):
    vit = ViTEncoder(image_size=56, patch_size=4, width=16, depth=1, heads=2)
    objective = kind(vit, **DECODER)
    pixels = torch.randn(2, 3, 56, 56, generator=generator())
    mask = objective.masked_loss(pixels, pixels, torch.rand(2, 196, generator=generator(1))).mask
    assert (mask == 0).sum(dim=1).tolist() == [kept, kept]


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_equals_a_numpy_loop(norm_pix):
    objective = SiamMAE(encoder(), mask_ratio=0.9, norm_pix=norm_pix, **DECODER).eval()
    view, other = (torch.randn(2, 3, 32, 32, generator=generator(seed)) for seed in range(2))
    done = objective.masked_loss(view, other, torch.rand(2, 16, generator=generator(2)))
    errors = []
    for image, guess, hidden in zip(view.numpy(), done.prediction.detach().numpy(), done.mask.numpy(), strict=True):
        for patch in np.flatnonzero(hidden):
            row, column = divmod(int(patch), 4)
            target = image[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].transpose(1, 2, 0).ravel()
            if norm_pix:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            errors.append(np.mean((guess[patch] - target) ** 2))
    assert len(errors) == 2 * 15
    assert done.loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def attention(query, memory, block, heads):
    """The cross-attention of a block by torch's own function."""
    width = query.shape[-1]
    weight = torch.cat([block.query.weight, block.key_value.weight])
    bias = torch.cat([block.query.bias, block.key_value.bias])
    out, _ = F.multi_head_attention_forward(
        *(query.transpose(0, 1), memory.transpose(0, 1), memory.transpose(0, 1), width, heads, weight, bias),
        *(None, None, False, 0.0, block.project.weight, block.project.bias),
        need_weights=False,
    )
    return out.transpose(0, 1)


def test_the_decoder_equals_the_papers_formula_in_torchs_own_attention():
    """Mask tokens in the gaps, positions of both views, then self-attention, cross-attention and MLP."""
    objective, view, other, noise = views("croco", count=2)
    with torch.no_grad():
        done = objective.masked_loss(view, other, noise)
        decoder = objective.decoder
        order = noise.argsort(dim=1)[:, :4]
        tokens, _ = objective.encoder(view, order)
        sequence = decoder.mask_token.expand(2, 16, -1).clone()
        for image in range(2):
            sequence[image, order[image]] = decoder.decoder.embed(tokens[image])
        sequence = sequence + decoder.positions
        memory = decoder.decoder.embed(objective.encoder(other)[0]) + decoder.positions
        for block in decoder.decoder.blocks:
            sequence = block.self_block(sequence)
            seen = block.norm_memory(memory)
            sequence = sequence + attention(block.norm_query(sequence), seen, block, block.heads)
            sequence = sequence + block.mlp(block.norm(sequence))
        expected = decoder.decoder.head(decoder.decoder.norm(sequence))
    torch.testing.assert_close(done.prediction, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_a_trained_one_needs_the_partner_that_belongs_to_the_image(name):
    objective = train(make(name), 120, rate=6e-3).eval()
    view, other = (objective.encoder.preprocess(part) for part in (frames(32), partners(frames(32))[:, 0]))
    noise = torch.rand(32, 16, generator=generator(50))
    with torch.no_grad():
        done = objective.masked_loss(view, other, noise)
        strange = objective.masked_loss(view, other.roll(1, dims=0), noise)
    assert done.metrics["stranger_loss"] > 10 * done.loss
    torch.testing.assert_close(done.metrics["stranger_loss"], strange.loss)


def test_the_other_view_gives_what_a_masked_autoencoder_cannot_know():
    """Noise has nothing that could be completed, except from the same noise."""
    noise = torch.randint(0, 256, (8, 32, 32, 3), generator=generator(), dtype=torch.uint8)
    pair = {"images": noise, "partners": noise[:, None]}
    objective = CroCo(encoder(class_tokens=0), mask_ratio=0.75, jitter=0.0, crop_scale=WHOLE, **DECODER)
    optimizer, draws = torch.optim.AdamW(objective.parameters(), lr=5e-3), generator(1)
    for _ in range(150):
        view, other = objective.encoder.preprocess(pair["images"]), objective.encoder.preprocess(noise)
        loss = objective.masked_loss(view, other, torch.rand(8, 16, generator=draws)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * objective.encoder.preprocess(noise).var()


def test_without_metrics_of_strangers_the_loss_is_the_same():
    one, other = make("croco"), make("croco")
    other.watch = False
    first, metrics = one(batch(4), generator(3))
    second, fewer = other(batch(4), generator(3))
    assert first.item() == second.item()
    assert metrics.keys() - fewer.keys() == {"stranger_loss"}


def test_siammae_crops_both_frames_alike_and_croco_each_by_itself():
    images = frames(4)
    same = {"images": images, "partners": images[:, None]}
    seen = {}
    for name in BOTH:
        objective = copy.deepcopy(make(name))
        objective.crop_scale, objective.jitter = (0.3, 0.5), 0.0
        objective.masked_loss = lambda view, other, noise, name=name: seen.__setitem__(name, (view, other))
        with pytest.raises(AttributeError):  # of the None that stands for a loss
            objective(same, generator())
    assert torch.equal(*seen["siammae"])
    assert not torch.equal(*seen["croco"])


def test_pictures_show_the_partner_first():
    shown = make("siammae").eval().reconstruct(frames(3), generator(), partners(frames(3)))
    assert len(shown) == 4
    assert torch.equal(shown[0], partners(frames(3))[:, 0])
    hidden = (shown[1] != frames(3)).any(dim=-1)
    assert torch.equal(shown[2][~hidden], frames(3)[~hidden])


def test_what_is_asked_of_the_data():
    assert make("siammae").pairing == TimePairs(gap=(4, 48))
    assert CroCo(encoder(), mask_ratio=0.9).pairing == CameraPairs()
    assert CroCo(encoder(), mask_ratio=0.9, pairing="time", gap=[2, 5]).pairing == TimePairs(gap=(2, 5))
    places = CroCo(encoder(), mask_ratio=0.9, pairing="places", place="observation.state", place_dims=[0, 1])
    assert places.pairing == PlacePairs(place="observation.state", dims=(0, 1), size=0.5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SiamMAE, {}, "mask_ratio 0.95 leaves none of 16 patches"),
        (SiamMAE, {"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\), got 1.0"),
        (SiamMAE, {"mask_ratio": 0.9, "gap": [0, 3]}, "gap must be two numbers"),
        (SiamMAE, {"mask_ratio": 0.9, "decoder": "crossself"}, "unknown decoder 'crossself': did you mean cross_self"),
        (CroCo, {"pairing": "camera"}, "unknown objective.pairing 'camera': did you mean cameras"),
        (CroCo, {"jitter": 2.0}, r"jitter must be in \[0, 1\], got 2.0"),
        (CroCo, {"decoder_heads": 3, "decoder_width": 32}, "decoder_width must be a multiple"),
    ],
)
def test_wrong_settings(kind, options, message):
    with pytest.raises(UsageError, match=message):
        kind(encoder(), **options)


def test_a_batch_without_partners_is_refused():
    with pytest.raises(UsageError, match=r"needs pairs: batch\['partners'\]"):
        make("croco")({"images": frames(2)}, generator())
