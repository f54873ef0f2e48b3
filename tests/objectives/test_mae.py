"""MAE: parity with transformers, exact masks, no leaks, and that it learns."""

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.encoders.convert import from_transformers, to_transformers
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.masked.mae import MAE


def tiny(norm_pix=False, **options):
    torch.manual_seed(0)
    encoder = ViTEncoder(image_size=32, patch_size=8, width=24, depth=2, heads=3)
    return MAE(encoder, decoder_width=16, decoder_depth=1, decoder_heads=2, norm_pix=norm_pix, **options)


def transformers_mae(norm_pix):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        layer_norm_eps=1e-6,
        norm_pix_loss=norm_pix,
    )
    torch.manual_seed(1)
    return transformers.ViTMAEForPreTraining(config).eval()


def sample(batch=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 3, 32, 32, generator=generator), torch.rand(batch, 16, generator=generator)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_same_weights_and_noise_give_transformers_loss(norm_pix):
    ours, theirs = tiny(norm_pix).eval(), transformers_mae(norm_pix)
    positions, decoder_positions = ours.encoder.vit.positions, ours.positions
    converted = to_transformers(
        ours.state_dict(), patch_size=8, positions=positions, decoder_positions=decoder_positions
    )
    theirs.load_state_dict(converted)  # strict: every name is there
    images, noise = sample()
    loss, prediction, mask = ours.masked_loss(images, noise)
    with torch.no_grad():
        expected = theirs(images, noise=noise)
    assert torch.equal(mask, expected.mask)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(prediction, expected.logits, rtol=1e-4, atol=1e-5)


def test_their_weights_give_our_loss():
    theirs, ours = transformers_mae(norm_pix=True), tiny(norm_pix=True).eval()
    with torch.no_grad():  # built from a config, their position tables and mask token are zero
        theirs.vit.embeddings.position_embeddings.copy_(ours.encoder.vit.positions[None])
        theirs.decoder.decoder_pos_embed.copy_(ours.positions[None])
        theirs.decoder.mask_token.normal_()
    missing, unexpected = ours.load_state_dict(from_transformers(theirs.state_dict()))
    assert not missing
    assert not unexpected
    images, noise = sample()
    with torch.no_grad():
        expected = theirs(images, noise=noise).loss
    torch.testing.assert_close(ours.masked_loss(images, noise)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_equals_a_numpy_loop(norm_pix):
    mae = tiny(norm_pix).eval()
    images, noise = sample(batch=2)
    loss, prediction, mask = mae.masked_loss(images, noise)
    errors = []
    for image, guess, hidden in zip(images.numpy(), prediction.detach().numpy(), mask.numpy(), strict=True):
        for patch in range(16):
            row, column = divmod(patch, 4)
            cut = image[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            target = np.array([cut[c, p, q] for p in range(8) for q in range(8) for c in range(3)])
            if norm_pix:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            if hidden[patch]:
                errors.append(np.mean((guess[patch] - target) ** 2))
    assert len(errors) == 2 * 12
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_tokens_do_not_depend_on_hidden_patches():
    mae = tiny()
    images, noise = sample(batch=1)
    images.requires_grad_(True)
    order = noise.argsort(dim=1)
    tokens, out = mae.encoder(images, order[:, :4])
    (tokens.sum() + out["cls"].sum()).backward()
    for patch in range(16):
        row, column = divmod(patch, 4)
        gradient = images.grad[0, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].abs().sum()
        assert (gradient > 0) == (patch in order[0, :4])


def test_prediction_of_a_hidden_patch_ignores_its_pixels():
    mae = tiny().eval()
    images, noise = sample(batch=1)
    hidden = int(noise.argmax())
    row, column = divmod(hidden, 4)
    changed = images.clone()
    changed[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 100.0
    before, after = mae.masked_loss(images, noise), mae.masked_loss(changed, noise)
    assert torch.equal(before[1], after[1])  # the prediction
    assert after[0] > before[0]  # the target


def test_loss_does_not_train_on_visible_patches():
    mae = tiny()
    images, noise = sample(batch=1)
    loss, prediction, mask = mae.masked_loss(images, noise)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, mask.bool())


def test_forward_draws_everything_from_the_generator():
    mae = tiny()
    batch = {"images": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    first, _ = mae(batch, torch.Generator().manual_seed(3))
    second, _ = mae(batch, torch.Generator().manual_seed(3))
    other, _ = mae(batch, torch.Generator().manual_seed(4))
    assert first.item() == second.item() != other.item()


def test_counts_flat_patches():
    # ImageNet's mean colour: after normalisation all three channels are near zero
    frames = torch.tensor([124, 116, 104], dtype=torch.uint8).repeat(1, 32, 32, 1)
    frames[:, :16] = torch.randint(0, 256, (1, 16, 32, 3), generator=torch.Generator().manual_seed(0))
    mae = tiny(crop_scale=(1.0, 1.0))
    _, metrics = mae({"images": frames}, torch.Generator().manual_seed(0))
    assert 0.25 <= metrics["flat_patches"].item() <= 0.5


def test_mask_ratio_must_be_a_share():
    with pytest.raises(UsageError, match=r"mask_ratio must be in \(0, 1\), got 1.5"):
        tiny(mask_ratio=1.5)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_overfits_one_batch(norm_pix):
    mae = tiny(norm_pix)
    images, noise = sample(batch=1)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=1e-2)
    first = mae.masked_loss(images, noise)[0].item()
    for _ in range(200):
        loss = mae.masked_loss(images, noise)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


def one_colour(batch, generator):
    """Frames of one colour each: what is hidden follows from the rest."""
    colour = torch.randint(0, 256, (batch, 1, 1, 3), generator=generator, dtype=torch.uint8)
    return colour.expand(-1, 32, 32, -1).contiguous()


def test_learns_to_predict_what_follows_from_the_rest():
    mae = tiny()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    for _ in range(150):
        frames = one_colour(32, generator)
        loss, _ = mae({"images": frames}, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames = one_colour(64, generator)
    trivial = mae.encoder.preprocess(frames).var().item()  # always predicting the mean
    with torch.no_grad():
        assert mae({"images": frames}, generator)[0].item() < 0.2 * trivial


@pytest.mark.parametrize("norm_pix", [True, False])
def test_reconstruct_shows_the_original_where_it_is_visible(norm_pix):
    mae = tiny(norm_pix)
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masked, predicted, original = mae.reconstruct(frames, torch.Generator().manual_seed(0))
    assert torch.equal(original, frames)
    visible = (masked == frames).all(dim=-1)
    assert 0.2 < visible.float().mean() < 0.35
    assert torch.equal(predicted[visible], frames[visible])
