"""Every built-in encoder keeps the contract; artifacts rebuild; fingerprints see every change; frozen stays frozen."""

import sys

import pytest
import torch
from torch import nn

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.core.protocols import Encoder
from embodied.encoders.artifact import build_encoder, fingerprint, freeze, load_artifact, save_encoder
from embodied.encoders.load import BUILTIN, DEFAULT_FOLDER, load_encoder
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.vit import ViTEncoder


def frames(batch=2, size=40):
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tiny(seed=0):
    torch.manual_seed(seed)
    return ViTEncoder(image_size=32, patch_size=8, width=24, depth=1, heads=3)


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"state"}))
def test_built_in_encoders_keep_the_contract(name):
    if name == "default" and not DEFAULT_FOLDER.is_dir():
        pytest.skip("the default encoder has not been trained yet")
    encoder = load_encoder(name, seed=1)
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        tokens, out = encoder(encoder.preprocess(frames()))
    rows, columns = encoder.grid
    assert tokens.shape[:2] == (2, rows * columns)
    assert out["pooled"].shape[0] == 2
    rebuilt = build_encoder(encoder.config())
    rebuilt.load_state_dict(encoder.state_dict())
    assert fingerprint(rebuilt) == fingerprint(encoder)


def test_state_encoder_passes_the_state_through():
    encoder = load_encoder("state", state_dim=3)
    _, out = encoder(encoder.preprocess(torch.tensor([[1.0, 2.0, 3.0]])))
    assert out["pooled"].tolist() == [[1.0, 2.0, 3.0]]
    with pytest.raises(UsageError, match="state_dim"):
        load_encoder("state")


def test_random_depends_on_the_seed_and_on_nothing_else():
    torch.manual_seed(0)
    first = fingerprint(load_encoder("random", seed=1))
    before = torch.rand(1)
    assert fingerprint(load_encoder("random", seed=1)) == first != fingerprint(load_encoder("random", seed=2))
    torch.manual_seed(0)
    assert torch.equal(before, torch.rand(1))  # the global generator was left alone


def test_pixels_are_area_means():
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[:, :2, :2] = 255
    encoder = PixelEncoder(size=16)
    tokens, out = encoder(encoder.preprocess(image))
    assert tokens[0, 0].tolist() == [1.0, 1.0, 1.0]
    assert tokens[0, 1].tolist() == [-1.0, -1.0, -1.0]
    assert out["pooled"].shape == (1, 768)


def test_missing_packages_name_the_extra(monkeypatch):
    for package in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[timm\]"):
        load_encoder("timm:vit_tiny_patch16_224")
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[hf\]"):
        load_encoder("hf:anything")


def test_unknown_names_list_near_ones():
    with pytest.raises(UsageError, match="did you mean pixels"):
        load_encoder("pixel")


def test_artifact_round_trip(tmp_path):
    encoder = tiny()
    save_encoder(encoder, tmp_path / "artifact", card="# card\n")
    assert sorted(path.name for path in (tmp_path / "artifact").iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
    ]
    loaded = load_encoder(str(tmp_path / "artifact"))
    assert fingerprint(loaded) == fingerprint(encoder)
    images = encoder.preprocess(frames())
    assert torch.equal(loaded(images)[0], encoder(images)[0])


def damage(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"not weights at all", "damaged"),
        ("config.yaml", b"encoder: 3\n", "not the config of an encoder artifact"),
        ("config.yaml", b"format: embodied-encoder-1\nencoder: 3\n", "does not say how to build its encoder"),
        ("config.yaml", b"\xff\xfe: [", "not readable YAML"),
        ("config.yaml", b"format: embodied-encoder-1\nencoder: {name: os.system}\n", "refusing to import"),
        ("config.yaml", b"format: embodied-encoder-1\nencoder: {name: embodied.encoders.new.X}\n", "upgrade"),
        (
            "config.yaml",
            b"format: embodied-encoder-1\nencoder: {name: embodied.encoders.pixels.PixelEncoder, sise: 3}\n",
            "cannot be built",
        ),
        (
            "config.yaml",
            b"format: embodied-encoder-1\nencoder: {name: embodied.encoders.pixels.PixelEncoder}\n",
            "does not fit",
        ),
    ],
)
def test_damaged_and_foreign_artifacts_give_one_message(tmp_path, name, content, message):
    save_encoder(tiny(), tmp_path / "a", card="")
    damage(tmp_path / "a", name, content)
    with pytest.raises(UserError, match=message):
        load_artifact(tmp_path / "a")


def test_missing_artifacts(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        load_encoder(str(tmp_path))


def test_fingerprint_sees_one_weight_and_the_preprocessing():
    encoder = tiny()
    before = fingerprint(encoder)
    assert fingerprint(tiny()) == before
    with torch.no_grad():
        encoder.vit.embed.weight[0, 0] += 1e-6
    changed = fingerprint(encoder)
    assert changed != before
    encoder.normalize.mean[0] += 0.1
    assert fingerprint(encoder) != changed


def test_frozen_encoder_does_not_change_when_a_controller_trains_on_it():
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Dropout(0.5))
    freeze(encoder)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    policy = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(4, 1)})
    policy.train()
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        features = encoder(torch.randn(8, 3, 5, 5)).mean((2, 3))
        policy["head"](features).sum().backward()
        optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert not any(part.training for part in encoder.modules())


def test_random_shift_moves_all_frames_of_a_window_alike():
    encoder = ConvEncoder(image_size=84, shift=4)
    window = frames(batch=3, size=84)[:, None].expand(-1, 2, -1, -1, -1)
    shifted = encoder.augment(window, torch.Generator().manual_seed(0))
    assert shifted.shape == (3, 2, 3, 84, 84)
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    assert not torch.equal(shifted[:, 0], encoder.resize(window[:, 0]))
    again = encoder.augment(window, torch.Generator().manual_seed(0))
    assert torch.equal(shifted, again)


def test_shift_of_zero_changes_nothing():
    encoder = ConvEncoder(image_size=84, shift=0)
    window = frames(batch=2, size=84)[:, None]
    torch.testing.assert_close(encoder.augment(window, None)[:, 0], encoder.resize(window[:, 0]))


def test_options_of_the_network_rebuild_and_their_defaults_change_nothing():
    small = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "heads": 3}
    torch.manual_seed(0)
    assert fingerprint(ViTEncoder(**small, registers=0, positions="sincos", eps=1e-6)) == fingerprint(tiny())
    encoder = ViTEncoder(**{**small, "image_size": (16, 32)}, registers=2, mean=(0.5, 0.5, 0.5))
    assert encoder.grid == (2, 4)
    assert encoder.preprocess(frames()).shape == (2, 3, 16, 32)
    rebuilt = build_encoder(encoder.config())
    rebuilt.load_state_dict(encoder.state_dict())
    assert fingerprint(rebuilt) == fingerprint(encoder)
    with pytest.raises(UserError, match=r"cannot be built with the arguments of its config.*did you mean registers"):
        build_encoder({**encoder.config(), "register": 2})


def test_published_sizes_by_name():
    config = ViTEncoder(image_size=32, size="mvp_vit_s").config()
    assert (config["width"], config["depth"], config["heads"]) == (384, 12, 12)
    assert "size" not in config
    with pytest.raises(UsageError, match="unknown size 'vit_xs'"):
        ViTEncoder(size="vit_xs")


def test_only_scratch_trains():
    assert load_encoder("scratch").trainable
    assert any(parameter.requires_grad for parameter in load_encoder("scratch").parameters())
    assert not any(parameter.requires_grad for parameter in load_encoder("random").parameters())
