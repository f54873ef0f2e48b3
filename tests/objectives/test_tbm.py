"""Token boosting: the property it rests on, the artifact as a plain ViT, what learns from which loss."""

import copy

import pytest
import torch
from tiny_objectives import DECODER, WHOLE, encoder, frames, generator, make, train
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.models.block import Block
from embodied.objectives.masked.mae import MAE
from embodied.objectives.masked.tbm import TBM
from embodied.objectives.parts.boosters import add_boosters, estimate, make_booster


def planted(samples, width=16, seed=0):
    """Reliable features in two directions, the same with noise, and with as much noise again."""
    draw = generator(seed)
    mixing = torch.randn(2, width, generator=generator(99))
    reliable = torch.randn(samples, 2, generator=draw) @ mixing
    features = reliable + torch.randn(samples, width, generator=draw)
    return reliable, features, features + torch.randn(samples, width, generator=draw), mixing


def distance(values, reliable):
    return (values - reliable).square().mean().item()


def test_boosting_by_the_best_linear_estimate_is_the_best_linear_guess_of_what_is_reliable():
    reliable, features, noisy, mixing = planted(200_000)
    linear = torch.linalg.lstsq(noisy, features).solution
    boosted = 2 * noisy @ linear - noisy
    assert distance(boosted, reliable) < 0.4 * distance(features, reliable)
    covariance = mixing.T @ mixing  # of what is reliable; that of the noise is twice the identity
    expected = torch.linalg.solve(covariance + 2 * torch.eye(16), covariance)
    torch.testing.assert_close(2 * linear - torch.eye(16), expected, atol=0.02, rtol=0.0)


def test_a_booster_that_learned_to_estimate_features_boosts_them():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        booster = Block(16, 2)
    make_booster(booster)
    optimizer = torch.optim.Adam([part for part in booster.parameters() if part.requires_grad], lr=3e-3)
    for step in range(400):
        _, features, noisy, _ = planted(256, seed=step)
        loss = F.mse_loss(estimate(booster, noisy), features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reliable, features, noisy, _ = planted(4000, seed=1000)
    with torch.no_grad():
        torch.testing.assert_close(booster(noisy[None])[0], 2 * estimate(booster, noisy) - noisy)
        assert distance(booster(noisy[None])[0], reliable) < 0.6 * distance(features, reliable)
        assert distance(booster(features[None])[0], reliable) < 0.6 * distance(features, reliable)  # as the artifact


@pytest.mark.parametrize("options", [{}, {"mlp": "swiglu", "registers": 1, "layer_scale": 0.1, "qk_norm": True}])
def test_boosters_change_nothing_before_they_learn(options):
    plain = encoder(**options)
    with torch.no_grad():
        plain.vit.blocks[1].norm1.bias.fill_(0.5)  # so that the order of blocks matters
    boosted, places = add_boosters(plain, [1, 2])
    assert places == [1, 3]
    pixels = plain.preprocess(frames(2))
    torch.testing.assert_close(boosted(pixels)[0], plain(pixels)[0])
    assert [len(vit.blocks) for vit in (plain.vit, boosted.vit)] == [2, 4]


def test_the_artifact_is_a_plain_vit_that_gives_the_same_features(tmp_path):
    objective = train(make("tbm"), 5).eval()
    save_encoder(objective.encoder, tmp_path / "encoder", card="")
    loaded = load_artifact(tmp_path / "encoder").eval()
    assert fingerprint(loaded) == fingerprint(objective.encoder)
    assert loaded.config()["depth"] == 4
    pixels = loaded.preprocess(frames(3))
    assert torch.equal(loaded(pixels)[0], objective.encoder(pixels)[0])


def test_without_corruption_noise_and_training_it_is_mae():
    plain = encoder()
    tbm = TBM(plain, noise=0.0, blur=0.0, crop_scale=WHOLE, **DECODER).eval()
    mae = MAE(plain, crop_scale=WHOLE, **DECODER).eval()
    mae.decoder = tbm.mae.decoder
    ours, theirs = (each({"images": frames(4)}, generator())[0] for each in (tbm, mae))
    torch.testing.assert_close(ours, theirs)


def test_a_booster_sees_its_features_with_noise_and_hands_on_what_it_boosted():
    objective = train(make("tbm"), 20)  # in training
    pixels = objective.encoder.preprocess(frames(2))
    seen, blocks = {}, objective.encoder.vit.blocks
    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda module, args, key=number: seen.__setitem__(key, args[0].detach()))
    order = torch.rand(2, 16, generator=generator())
    _, error, _, _ = objective.boosted_loss(pixels, pixels, order, generator(5))
    draw, expected = generator(5), []
    for place, noise in zip(objective.places, objective.noises, strict=True):
        added = noise.alpha * torch.randn(2, 5, 32, generator=draw)
        features = seen[place] - added
        if place + 1 in seen:  # the next block takes 2 g(I) - I
            boosted = 2 * estimate(blocks[place], seen[place]) - seen[place]
            torch.testing.assert_close(seen[place + 1], boosted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features, blocks[place - 1](seen[place - 1]), atol=1e-5, rtol=1e-4)
        expected.append((estimate(blocks[place], seen[place]) - features)[:, 1:].square().mean())
    torch.testing.assert_close(error, torch.stack(expected).mean(), atol=1e-6, rtol=1e-4)


def test_recomputed_activations_see_the_same_noise():
    gradients = []
    for checkpointing in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            objective = TBM(encoder(checkpointing=checkpointing), **DECODER).train()
        objective({"images": frames(4)}, generator())[0].backward()
        gradients.append([part.grad for part in objective.parameters() if part.requires_grad])
        objective.eval().encoder(objective.encoder.preprocess(frames(2)))  # of another size, and without noise
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_the_estimate_trains_the_auto_encoders_only():
    objective = make("tbm")
    pixels = objective.encoder.preprocess(frames(4))
    _, error, _, _ = objective.boosted_loss(pixels, pixels, torch.rand(4, 16, generator=generator()), generator(1))
    error.backward()
    learning = {name for name, part in objective.named_parameters() if part.grad is not None and part.grad.any()}
    places = [f"mae.encoder.vit.blocks.{place}." for place in objective.places]
    assert learning
    assert all(name.startswith(tuple(places)) and (".mlp." in name or ".norm2." in name) for name in learning)


def test_alpha_learns_from_the_reconstruction_and_attention_stays_out():
    objective = train(make("tbm"), 10)
    for place, noise in zip(objective.places, objective.noises, strict=True):
        assert noise.alpha.std() > 0
        block = objective.encoder.vit.blocks[place]
        assert not block.project.weight.any()
        assert block.mlp[2].weight.any()
    fixed = TBM(encoder(), learn_scale=False, **DECODER)
    before = copy.deepcopy(fixed.noises.state_dict())
    after = train(fixed, 2).noises.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_corruption_stays_within_the_range_of_pixels():
    objective = make("tbm")
    clean = objective.encoder.preprocess(frames(32))
    worse = objective.corrupt(clean, generator())
    mean, std = objective.encoder.normalize.mean, objective.encoder.normalize.std
    assert ((worse * std + mean) >= -1e-5).all() and ((worse * std + mean) <= 1 + 1e-5).all()
    change = ((worse - clean) * std).square().mean(dim=(1, 2, 3)).sqrt()
    assert 0.03 < change.mean() < 0.2  # deviations up to 0.2
    assert change.max() > 3 * change.min()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after": [3]}, r"after must name different blocks from 1 to 2, got \[3\]"),
        ({"after": [1, 1]}, "after must name different blocks"),
        ({"after": []}, "after must name different blocks"),
        ({"scale": 0.0}, "scale and estimate_weight must be positive"),
        ({"blur": 2.0}, r"blur in \[0, 1\]"),
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\)"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        TBM(encoder(), **options)
    with pytest.raises(UsageError, match="relative_bias=shared or none"):
        TBM(encoder(relative_bias="block"))
