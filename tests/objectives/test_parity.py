"""Losses and masked passes equal to those of `transformers` with the same weights."""

import pytest
import torch
from tiny_objectives import frames, generator
from torch import nn

from embodied.encoders.hf_convert import from_hf
from embodied.objectives.masked.beit import BEiT
from embodied.objectives.parts.quantizers import VectorQuantizer
from embodied.objectives.parts.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("positions", ["use_shared_relative_position_bias", "use_absolute_position_embeddings"])
def test_beit_is_beit_for_masked_image_modeling(tmp_path, positions):
    config = transformers.BeitConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        vocab_size=16,
        use_mask_token=True,
        use_mean_pooling=False,
        **{positions: True},
    )
    torch.manual_seed(0)
    theirs = transformers.BeitForMaskedImageModeling(config).eval()
    for parameter in theirs.parameters():  # tables start at zero, and would then prove nothing
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator()))
    theirs.beit.save_pretrained(tmp_path / "beit")
    (tmp_path / "beit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "BeitImageProcessor", "size": {"height": 32, "width": 32}, '
        '"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_center_crop": false}'
    )
    encoder = from_hf(str(tmp_path / "beit")).train()
    ours = BEiT(encoder, tokenizer=Tokenizer(from_hf(str(tmp_path / "beit")), VectorQuantizer(codes=16, width=4)))
    ours.eval()
    ours.mask_token.data.copy_(theirs.beit.embeddings.mask_token.data.flatten())
    ours.head = nn.Sequential(theirs.layernorm, theirs.lm_head)  # theirs has one more norm when tokens have one already
    images = encoder.preprocess(frames(3))
    mask = torch.rand(3, 16, generator=generator(1)) < 0.4
    codes = torch.randint(0, 16, (3, 16), generator=generator(2))
    with torch.no_grad():
        expected = theirs(images, bool_masked_pos=mask, labels=codes[mask])
        loss, logits = ours.masked_loss(images, mask, codes)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, expected.loss, atol=1e-6, rtol=1e-6)


def test_vjepa2s_context_is_encoded_as_by_its_own_layers(tmp_path):
    """Visible patches only, each with its position: `transformers` has that in the layers, not in its encoder."""
    config = transformers.VJEPA2Config(
        crop_size=32,
        patch_size=8,
        tubelet_size=2,
        hidden_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        mlp_ratio=2.0,
        **{"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    )
    torch.manual_seed(0)
    theirs = transformers.VJEPA2Model(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator()))
    theirs.save_pretrained(tmp_path / "vjepa2")
    ours = from_hf(str(tmp_path / "vjepa2")).eval()
    images = torch.randn(3, 3, 32, 32, generator=generator(1))
    keep_ids = torch.rand(3, 16, generator=generator(2)).argsort(dim=1)[:, :6]
    with torch.no_grad():
        embedded = theirs.encoder.embeddings(images[:, None].expand(-1, 2, -1, -1, -1))
        hidden = embedded.gather(1, keep_ids[..., None].expand(-1, -1, 24))
        for layer in theirs.encoder.layer:
            hidden = layer(hidden, keep_ids)[0]
        torch.testing.assert_close(ours(images, keep_ids)[0], theirs.encoder.layernorm(hidden), atol=1e-5, rtol=1e-4)
