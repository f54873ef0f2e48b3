"""Further views in the feature cache: what moves, what stays, and what training sees of them."""

import numpy as np
import pytest
import torch
from small_policies import HashedText

from embodied.bench.imitation_data import demonstrations, feature_inputs
from embodied.cli.cloning_settings import policy_arguments
from embodied.cli.config import compose_config
from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import freeze
from embodied.encoders.vit import ViTEncoder
from embodied.policies.augmented_views import MovedFrames, Views, moved, read_views

KEY, LENGTHS = "observation.images.front", (3, 2)


def test_frames_move_by_whole_pixels_and_repeat_the_border():
    frames = torch.arange(12, dtype=torch.uint8).view(1, 3, 4, 1).expand(1, 3, 4, 3)
    found = moved(frames, down=1, right=-2)[0, ..., 0]
    assert found.tolist() == [[2, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7]]
    assert torch.equal(moved(frames, down=0, right=0), frames)


def test_every_view_has_one_offset_and_none_is_the_frame_itself():
    views = Views(count=3, shift=1)
    offsets = [views.offset(view) for view in range(40)]
    assert offsets[0] == (0, 0) and (0, 0) not in offsets[1:]
    assert set(offsets[1:]) == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)} - {(0, 0)}
    assert offsets == [Views(count=9, shift=1).offset(view) for view in range(40)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (3, "policy.views must be a group"),
        ({"cuont": 3}, "unknown entry of policy.views 'cuont': did you mean count"),
        ({"count": -1}, "policy.views.count must be a whole number of at least 0, got -1"),
        ({"shift": 0}, "policy.views.shift must be a whole number of at least 1, got 0"),
    ],
)
def test_mistakes_are_explained(settings, message):
    with pytest.raises(UsageError, match=message):
        read_views(settings)


def make_store(folder):
    keys = {KEY: KeySpec("uint8", (16, 16, 3)), "observation.state": KeySpec("float32", (2,))}
    random = np.random.default_rng(0)
    with EpisodeStore.create(folder, keys={**keys, "action": KeySpec("float32", (1,))}, fps=10.0) as store:
        for number, length in enumerate(LENGTHS):
            frames = random.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
            state = random.normal(size=(length, 2)).astype(np.float32)
            arrays = {KEY: frames, "observation.state": state, "action": state[:, :1]}
            store.append(arrays, task=f"task {number}", seed=number, success=True)
    return EpisodeStore.open(folder)


def test_an_epoch_passes_through_all_views_of_every_frame(tmp_path):
    encoder = freeze(ViTEncoder(image_size=16, patch_size=8, width=12, depth=1, heads=3))
    store, views = make_store(tmp_path / "store"), Views(count=2, shift=3)
    options = {
        "image_keys": [KEY],
        "feature": "pooled",
        "frames": 5,
        "cache_root": tmp_path / "cache",
        "device": torch.device("cpu"),
        "reporter": SilentReporter(),
        "max_bytes": None,
    }
    (features,) = feature_inputs(store, encoder, views=views, **options)
    frames = torch.from_numpy(store.read(KEY, 0, 5))
    for view in range(3):
        down, right = views.offset(view)
        with torch.inference_mode():
            expected = encoder(encoder.preprocess(moved(frames, down=down, right=right)))[1]["pooled"]
        np.testing.assert_allclose(features[5 * view : 5 * view + 5], expected.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(features[:5], features[5:10])
    assert np.array_equal(feature_inputs(store, encoder, **options)[0], features[:5])  # without views: as ever
    settings = {"episodes": 2, "history": 2, "chunk": 2, "forward": False, "text_encoder": HashedText()}
    plain = demonstrations(store, [features[:5]], **settings)
    whole = demonstrations(store, [features], views=2, **settings)
    assert (len(plain), len(whole)) == (5, 15)
    for view in range(3):
        batch, expected = whole.batch(np.arange(5) + 5 * view), plain.batch(np.arange(5))
        for name in expected.keys() - {"features"}:
            assert torch.equal(batch[name], expected[name]), name
        present = features[5 * view : 5 * view + 5]
        assert np.array_equal(batch["features"][:, 1].numpy(), present)
        assert np.array_equal(batch["features"][1:3, 0].numpy(), present[:2])  # the moment before is of the same view


def test_views_have_caches_of_their_own():
    names = {MovedFrames(torch.nn.Identity(), down=down, right=1).known_as("abc") for down in (0, 1)}
    assert len(names | {"abc"}) == 3


def test_the_setting_stands_in_a_protocol_only_where_it_is_used():
    assert "views" not in policy_arguments(compose_config("train", []))
    given = policy_arguments(compose_config("train", ["policy.views={count: 2}"]))["views"]
    assert read_views(given) == Views(count=2, shift=6)
    with pytest.raises(UsageError, match=r"views are features of a frozen encoder, which policy\.tune=lora trains"):
        policy_arguments(compose_config("train", ["policy.views={count: 2}", "policy.tune=lora"]))
