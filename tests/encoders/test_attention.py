"""Where encoders look: the weights are those that the network itself uses."""

import pytest
import torch
from torch import nn

from embodied.encoders.attention import attention_weights, class_attention
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import Block
from embodied.models.positions import rotary_angles

SMALL = {"image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
@torch.no_grad()
def test_weights_times_values_is_what_the_block_does(qk_norm, masked):
    torch.manual_seed(0)
    block, tokens = Block(32, 2, qk_norm=qk_norm).eval(), torch.randn(3, 4, 32)
    rotation = rotary_angles(2, 2, 16, base=100.0, device=torch.device("cpu"))
    mask = {None: None, "bool": torch.ones(4, 4).tril().bool(), "float": torch.randn(4, 4)}[masked]
    weights = attention_weights(block, tokens, rotation=rotation, mask=mask)
    value = block.qkv(tokens).unflatten(-1, (3, 2, -1))[:, :, 2].transpose(1, 2)  # (B, H, T, E)
    ours = block.project((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, block.attend(tokens, rotation, mask))


@pytest.mark.parametrize(
    "options", [{}, {"registers": 3}, {"class_tokens": 2}, {"positions": "rope"}, {"relative_bias": "block"}]
)
def test_our_transformers(options):
    encoder = ViTEncoder(**SMALL, **options).eval()
    images = torch.randn(3, 3, 16, 16)
    before = encoder(images)[0]
    weights = class_attention(encoder, images)
    assert weights.shape == (3, 2, 4)
    assert (weights > 0).all() and (weights.sum(-1) < 1).all()
    assert torch.equal(before, encoder(images)[0])  # nothing is left hooked on
    assert not encoder.vit.blocks[-1]._forward_pre_hooks
    assert torch.equal(class_attention(LayersEncoder(encoder=encoder, layers=[1]), images), weights)


def test_without_a_class_token_there_is_none():
    assert class_attention(ViTEncoder(**SMALL, class_tokens=0).eval(), torch.randn(1, 3, 16, 16)) is None
    assert class_attention(PixelEncoder(), torch.randn(1, 3, 16, 16)) is None
    assert class_attention(nn.Identity(), torch.randn(1, 3, 16, 16)) is None


@pytest.mark.parametrize(
    ("kind", "has"), [("Dinov2", True), ("ViTMAE", True), ("CLIPVision", True), ("SiglipVision", False)]
)
def test_models_of_transformers(kind, has, tmp_path):
    transformers = pytest.importorskip("transformers")
    from embodied.encoders.hf import HuggingFaceEncoder

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = getattr(transformers, f"{kind}Config")(**size, intermediate_size=64)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    encoder, images = HuggingFaceEncoder(path=str(tmp_path)).eval(), torch.randn(3, 3, 16, 16)
    before = encoder(images)[0].detach()
    weights = class_attention(encoder, images)
    assert (weights is not None) == has
    if has:
        assert weights.shape == (3, 2, 4)
        assert (weights > 0).all() and (weights.sum(-1) < 1).all()
    assert torch.equal(encoder(images)[0].detach(), before)  # the fast attention is back


def test_theirs_is_ours(tmp_path):
    transformers = pytest.importorskip("transformers")
    from embodied.encoders.hf import HuggingFaceEncoder
    from embodied.encoders.hf_convert import from_hf

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(**size)).save_pretrained(tmp_path)
    theirs, images = HuggingFaceEncoder(path=str(tmp_path)).eval(), torch.randn(2, 3, 16, 16)
    ours = from_hf(str(tmp_path)).eval()
    torch.testing.assert_close(class_attention(theirs, images), class_attention(ours, images))
