"""The numbers and pictures of an inspection, on data whose answers are known."""

import numpy as np
import pytest
import torch

from embodied.bench.inspection.choices import pairs, patch_index, query_frames, shown_frames
from embodied.bench.inspection.features import flat_patches, read_features, read_tokens
from embodied.bench.inspection.health import complaints, health, patch_cosine, rank_me
from embodied.bench.inspection.measure import MEAN, PIXELS, probe_table, why_no_probe
from embodied.bench.inspection.pictures import heat, principal_colours, thumbnail
from embodied.bench.inspection.probes import (
    PENALTIES,
    episode_folds,
    knn_probe,
    linear_probe,
    mean_probe,
    moving_values,
    ridge,
)
from embodied.bench.inspection.samples import Part, spaced
from embodied.core.errors import UserError
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.vit import ViTEncoder

RANDOM = np.random.default_rng(0)
EPISODES = np.repeat(np.arange(10), 8)


def states(values=3):
    return RANDOM.normal(size=(len(EPISODES), values))


def part(episodes=EPISODES, size=32, state=None):
    frames = RANDOM.integers(0, 256, (len(episodes), size, size, 3), dtype=np.uint8)
    labels = [f"frame {number}" for number in range(len(episodes))]
    return Part(name="toy", frames=frames, episodes=np.asarray(episodes), labels=labels, states=state)


def test_a_linear_probe_reads_what_is_linear_and_nothing_else():
    target = moving_values(states())
    features = np.concatenate([target @ RANDOM.normal(size=(3, 20)), RANDOM.normal(size=(80, 4))], axis=1)
    good = linear_probe(features, target, EPISODES)
    assert good.r2 > 0.999
    assert good.low <= good.r2 <= good.high <= 1
    noise = linear_probe(RANDOM.normal(size=(80, 20)), target, EPISODES)
    assert noise.r2 < 0.1


@pytest.mark.parametrize("length", [5, 80], ids=["short", "longer than there are frames"])
def test_ridge_solves_the_normal_equations(length):
    generator = np.random.default_rng(0)
    known, test = (generator.normal(3, 2, (count, length)) for count in (40, 7))
    targets = generator.normal(1, 1, (40, 2))
    centred, wanted = known - known.mean(axis=0), targets - targets.mean(axis=0)
    for penalty, guess in zip(PENALTIES, ridge(known, targets, test), strict=True):
        alpha = penalty * (centred**2).sum()
        weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(length), centred.T @ wanted)
        assert np.allclose(guess, (test - known.mean(axis=0)) @ weights + targets.mean(axis=0), atol=1e-5)


def test_scale_and_shift_of_the_features_do_not_matter():
    target, features = moving_values(states()), RANDOM.normal(size=(80, 30))
    for kind in (linear_probe, knn_probe):
        one, other = (kind(values, target, EPISODES) for values in (features, 1000 * features + 7))
        assert one.r2 == pytest.approx(other.r2, abs=1e-6)


def test_neighbours_read_what_is_not_linear():
    angle = RANDOM.uniform(0, 2 * np.pi, 400)
    circle, target = np.stack([np.cos(angle), np.sin(angle)], axis=1), moving_values(np.cos(4 * angle)[:, None])
    episodes = np.repeat(np.arange(20), 20)
    assert knn_probe(circle, target, episodes).r2 > 0.95
    assert linear_probe(circle, target, episodes).r2 < 0.1


def test_what_is_only_true_within_an_episode_does_not_count():
    """Features that name the episode predict a state that depends on the episode only, unless it is held out."""
    target = moving_values(states(values=2)[EPISODES])
    named = np.eye(10)[EPISODES] + 0.01 * RANDOM.normal(size=(80, 10))
    assert linear_probe(named, target, EPISODES).r2 < 0.1
    assert knn_probe(named, target, EPISODES).r2 < 0.1


def test_folds_hold_out_whole_episodes_once():
    seen = np.zeros(len(EPISODES), int)
    for train, test in episode_folds(EPISODES):
        assert not set(EPISODES[train]) & set(EPISODES[test])
        assert (train ^ test).all()
        seen += test
    assert (seen == 1).all()


def test_the_mean_explains_nothing():
    assert -0.2 < mean_probe(moving_values(states()), EPISODES).r2 <= 0


def test_values_that_stand_still_are_no_target():
    still = np.concatenate([states(), np.full((80, 1), 3.0)], axis=1)
    assert moving_values(still).shape == (80, 3)
    np.testing.assert_allclose(moving_values(still).std(axis=0), 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": None}, "it has no observation.state"),
        ({"state": np.full((80, 2), np.nan)}, "NaN"),
        ({"state": np.ones((80, 2))}, "never changes"),
        ({"state": states()[:16], "episodes": EPISODES[:16]}, "it has 2 episodes: 4 are needed"),
    ],
)
def test_reasons_for_no_probe(change, reason):
    assert reason in why_no_probe(part(**change), "observation.state")


def test_table_of_probes_has_the_baselines_beside():
    given = part(state=states())
    assert why_no_probe(given, "observation.state") is None
    table = probe_table(given, {"pooled": RANDOM.normal(size=(80, 5))})
    assert [row.features for row in table.rows] == ["pooled", PIXELS, MEAN]
    assert (table.frames, table.episodes, table.moving, table.dimensions) == (80, 10, 3, 3)


def test_rank_counts_directions():
    assert rank_me(np.eye(7)) == pytest.approx(7)
    assert rank_me(np.outer(np.arange(1, 5), np.ones(6))) == pytest.approx(1)
    assert rank_me(np.zeros((4, 4))) == 1


def test_health_of_random_and_of_collapsed_features():
    healthy = health(RANDOM.normal(size=(300, 64)))
    assert healthy["spread"] == pytest.approx(1, abs=0.05)
    assert healthy["mean_cosine"] < 0.15
    assert healthy["rank_centred"] > 50
    assert complaints(healthy, healthy) == []
    common = np.ones(64) + 1e-4 * RANDOM.normal(size=(300, 64))
    (alike,) = complaints(health(common), healthy)
    assert "COLLAPSED" in alike and "next to equal" in alike
    line = np.outer(RANDOM.normal(size=300), np.ones(64))
    assert any("1.0 directions only" in text for text in complaints(health(line), healthy))


def test_frames_that_are_all_alike_are_no_collapse():
    still = health(np.ones(64) + 1e-4 * RANDOM.normal(size=(300, 64)))
    assert still["mean_cosine"] > 0.999
    assert complaints(still, still) == []


def test_flat_patches_are_those_of_one_colour():
    encoder = ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=2).eval()
    frames = part().frames[:2].copy()
    frames[0, :16], frames[1, :8, :8] = (200, 30, 90), 255
    assert flat_patches(encoder, frames) == 9 / 32
    assert flat_patches(ConvEncoder(image_size=65), frames) is None  # a map of 2x2 cells


def test_two_frames_are_too_few_to_see_a_collapse():
    features, pixels = RANDOM.normal(size=(2, 64)), RANDOM.normal(size=(2, 768))
    assert health(features)["rank_centred"] == pytest.approx(1)
    assert complaints(health(features), health(pixels)) == []


def test_health_does_not_depend_on_scale():
    features = RANDOM.normal(size=(50, 8))
    assert health(features) == pytest.approx(health(1000 * features))


def test_patches_that_are_all_alike():
    assert patch_cosine(np.ones((2, 4, 3))) == pytest.approx(1)
    assert patch_cosine(np.eye(4)[None]) == pytest.approx(0)


def test_colours_are_the_same_for_the_same_feature():
    kinds = RANDOM.normal(size=(4, 16))
    which = RANDOM.integers(0, 4, (3, 10))
    colours, shares = principal_colours(kinds[which])
    assert colours.shape == (3, 10, 3)
    pairs_seen = zip(which.ravel(), colours.reshape(-1, 3).tolist(), strict=True)
    assert len({(int(kind), *colour) for kind, colour in pairs_seen}) == 4
    assert sum(shares) == pytest.approx(1)
    again, _ = principal_colours(kinds[which][:, ::-1])
    assert np.array_equal(again[:, ::-1], colours)
    assert principal_colours(RANDOM.normal(size=(2, 5, 2)))[0].shape == (2, 5, 3)  # fewer values than colours


def test_heat_lies_where_it_should():
    frame = np.full((64, 64, 3), 128, np.uint8)
    values = np.zeros((4, 4))
    values[3, 0] = 1
    shown = heat(frame, values, low=0.0, high=1.0)
    assert shown[-4, 4].sum() > 2 * shown[4, -4].sum()
    assert thumbnail(np.zeros((320, 640, 3), np.uint8)).shape == (80, 160, 3)


def test_frames_to_show_cover_every_part():
    stores = [part(), part(np.arange(30))]
    rows = shown_frames(stores, rows=2, columns=5)
    assert [len(row) for row in rows] == [5, 5]
    assert [{place[0] for place in row} for row in rows] == [{0}, {1}]
    queries = query_frames(stores, 6)
    assert len(queries) == 6
    assert len({(number, stores[number].episodes[index]) for number, index in queries}) == 6


def test_the_patch_that_moves_is_chosen():
    still = part(np.zeros(6, int), size=64)
    frames = np.repeat(still.frames[:1], 6, axis=0)
    frames[2, 32:48, 16:32] = 255 - frames[2, 32:48, 16:32]
    moved = Part(name="toy", frames=frames, episodes=still.episodes, labels=still.labels)
    (pair,) = pairs([moved], 1, grid=(4, 4))
    assert pair.frame == (0, 2)
    assert patch_index(pair.patch, (4, 4)) == (2, 1)
    assert pair.others == [(0, 5)]


def test_spaced():
    assert spaced(10, 3) == [0, 4, 9]
    assert spaced(3, 10) == [0, 1, 2]
    assert spaced(9, 1) == [4]


def test_features_are_the_encoders():
    encoder = ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=2).eval()
    frames = part().frames[:40]  # more than a batch
    found = read_features(encoder, frames)
    with torch.no_grad():
        tokens, out = encoder(encoder.preprocess(torch.from_numpy(frames)))
    np.testing.assert_allclose(found["pooled"], out["pooled"], atol=1e-5)
    np.testing.assert_allclose(found["cls"], out["cls"], atol=1e-5)
    np.testing.assert_allclose(read_tokens(encoder, frames), tokens, atol=1e-5)
    coarse = found["tokens 4x4"].reshape(40, 12, 4, 4)  # 4x4 patches: each cell is one
    np.testing.assert_allclose(coarse, tokens.transpose(1, 2).reshape(40, 12, 4, 4), atol=1e-5)


def test_an_encoder_without_pooled_features_is_named():
    encoder = PixelEncoder()
    forward = encoder.forward
    encoder.forward = lambda images: (forward(images)[0], {"cls": torch.zeros(len(images), 2)})
    with pytest.raises(UserError, match=r"PixelEncoder gives no output `pooled` \(it gives cls\)"):
        read_features(encoder, np.zeros((2, 32, 32, 3), np.uint8))
