"""Features of several depths through the encoder contract."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.core.protocols import Encoder
from embodied.encoders.artifact import build_encoder, fingerprint, load_artifact, save_encoder
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.load import load_encoder
from embodied.encoders.resnet import ResNetEncoder
from embodied.encoders.vit import ViTEncoder


def frames(size=40):
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_chosen_layers_lie_side_by_side():
    plain, encoder = load_encoder("random"), load_encoder("random@2+6")
    assert isinstance(encoder, Encoder)
    assert (encoder.width, encoder.grid) == (384, (8, 8))
    images = encoder.preprocess(frames())
    with torch.no_grad():
        tokens, out = encoder(images)
        expected = plain(images, layers=True)[1]
    for part, layer in zip(tokens.chunk(2, dim=-1), (2, 6), strict=True):
        raw = expected[f"layer{layer}"]
        centred = raw - raw.mean(dim=-1, keepdim=True)
        torch.testing.assert_close(part, centred / (raw.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt())
    torch.testing.assert_close(out["pooled"], tokens.mean(dim=1))
    torch.testing.assert_close(out["cls"], expected["cls"])


def test_each_choice_has_its_own_features_in_the_cache():
    prints = {fingerprint(load_encoder(spec)) for spec in ("random", "random@6", "random@5+6", "random@6+5")}
    assert len(prints) == 4
    assert fingerprint(load_encoder("random@6")) == fingerprint(load_encoder("random@6"))


def test_it_stays_frozen_and_rebuilds(tmp_path):
    encoder = load_encoder("random@1")
    encoder.train()
    assert not any(part.training for part in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    rebuilt = build_encoder(encoder.config())
    rebuilt.load_state_dict(encoder.state_dict())
    assert fingerprint(rebuilt) == fingerprint(encoder)
    save_encoder(encoder, tmp_path / "artifact", card="")
    loaded = load_artifact(tmp_path / "artifact")
    images = encoder.preprocess(frames())
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images)[0], encoder(images)[0])


def test_an_earlier_stage_of_a_conv_net_is_finer():
    network = ResNetEncoder(image_size=64)
    encoder = LayersEncoder(encoder=network, layers=[3])
    assert (encoder.width, encoder.grid) == (256, (4, 4))
    assert network.training  # looking at it changed nothing
    assert network.network.bn1.num_batches_tracked == 0
    with pytest.raises(UsageError, match=r"layers \[3, 4\] have different numbers of tokens \(16, 4\)"):
        LayersEncoder(encoder=network, layers=[3, 4])


def test_layers_that_are_not_there():
    with pytest.raises(UsageError, match="layer 7 is not there: this encoder has layers 1 to 6"):
        load_encoder("random@7")
    with pytest.raises(UsageError, match="PixelEncoder gives no layers"):
        load_encoder("pixels@1")


def test_a_folder_of_that_name_is_a_folder(tmp_path):
    save_encoder(ViTEncoder(image_size=32, patch_size=8, width=24, depth=1, heads=3), tmp_path / "run@3", card="")
    assert load_encoder(str(tmp_path / "run@3")).width == 24


def test_layers_of_transformers_models(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**small)).eval()
    model.save_pretrained(tmp_path / "model")
    encoder = load_encoder(f"hf:{tmp_path / 'model'}@1+3")
    assert encoder.width == 48
    images = encoder.preprocess(frames())
    with torch.no_grad():
        tokens, _ = encoder(images)
        hidden = model(pixel_values=images, output_hidden_states=True).hidden_states
    for part, layer in zip(tokens.chunk(2, dim=-1), (1, 3), strict=True):
        torch.testing.assert_close(part, torch.nn.functional.layer_norm(hidden[layer][:, 1:], (24,)))
