"""Models of timm as encoders: of a stand-in with timm's interface always, of timm itself where it is installed."""

import sys
import types

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.timm import TimmEncoder

FRAMES = torch.randint(0, 256, (2, 40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Patches(nn.Module):
    """What timm's models have in common, over 8-pixel patches: tokens with others before them, or a map."""

    def __init__(self, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Parameter(torch.randn(6, 3, 8, 8, generator=generator))
        self.kind, self.num_features = kind, 6
        if kind != "conv":
            self.num_prefix_tokens = {"vit": 1, "registers": 4, "swin": 0, "odd": 1}[kind]
            self.cls_token = nn.Parameter(torch.ones(1, 1, 6)) if kind in ("vit", "odd") else None
        if kind == "swin":
            self.output_fmt = "NHWC"

    def map_of(self, images):
        return nn.functional.conv2d(images, self.embed, stride=8)

    def forward_features(self, images):
        found = self.map_of(images)  # (B, 6, 4, 4)
        if self.kind == "conv":
            return found
        if self.kind == "swin":
            return found.permute(0, 2, 3, 1)
        tokens = found.flatten(2).transpose(1, 2)[:, : 15 if self.kind == "odd" else 16]
        return torch.cat([torch.full((len(images), self.num_prefix_tokens, 6), 7.0), tokens], dim=1)

    def forward_intermediates(self, images, *, output_fmt, intermediates_only):
        assert (output_fmt, intermediates_only) == ("NCHW", True)
        return [self.map_of(images), 2 * self.map_of(images)]


@pytest.fixture
def timm(monkeypatch):
    """A module that has of timm what the encoder calls."""
    kinds = ("vit", "registers", "swin", "conv", "odd")

    def create(name, *, pretrained, num_classes):
        assert num_classes == 0
        if "." in name:
            raise RuntimeError(f"Invalid pretrained tag\nof {name}")
        return Patches(name)

    module = types.ModuleType("timm")
    module.is_model, module.list_models, module.create_model = kinds.__contains__, lambda: list(kinds), create
    settings = {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    module.data = types.SimpleNamespace(resolve_model_data_config=lambda model: settings)
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.parametrize("kind", ["vit", "registers", "swin", "conv"])
def test_tokens_are_the_patches_in_raster_order(timm, kind):
    encoder = load_encoder(f"timm:{kind}")
    images = encoder.preprocess(FRAMES)
    assert images.shape == (2, 3, 32, 32)
    tokens, out = encoder(images, layers=True)
    assert (encoder.width, encoder.grid) == (6, (4, 4))
    expected = encoder.model.map_of(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(out["pooled"], expected.mean(dim=1))
    torch.testing.assert_close(out["layer2"], 2 * expected)
    assert ("cls" in out) == (kind == "vit")  # registers are no class token
    if kind == "vit":
        assert out["cls"].tolist() == [[7.0] * 6] * 2


def test_it_is_its_name_and_its_weights(timm, tmp_path):
    encoder = load_encoder("timm:vit")
    save_encoder(encoder, tmp_path / "artifact", card="")
    assert fingerprint(load_artifact(tmp_path / "artifact")) == fingerprint(encoder)


def test_what_cannot_be_had_gives_one_message(timm):
    with pytest.raises(UsageError, match="unknown timm model 'swim': did you mean swin"):
        load_encoder("timm:swim")
    with pytest.raises(UserError, match=r"encoder=timm:vit\.nothing cannot be loaded: Invalid pretrained tag$"):
        load_encoder("timm:vit.nothing")
    with pytest.raises(UserError, match="gives 15 tokens, which make no square"):
        load_encoder("timm:odd")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_timm_itself(name):
    pytest.importorskip("timm")
    encoder = TimmEncoder(model=name, pretrained=False).eval()
    with torch.no_grad():
        tokens, out = encoder(encoder.preprocess(FRAMES), layers=True)
    assert tokens.shape == (2, encoder.grid[0] * encoder.grid[1], encoder.width)
    assert (encoder.width, encoder.grid) == {"v": (192, (14, 14)), "s": (768, (7, 7)), "r": (512, (7, 7))}[name[0]]
    assert ("cls" in out) == name.startswith("vit")
